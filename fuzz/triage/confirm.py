# SPDX-License-Identifier: Apache-2.0
"""Measure how surely a divergence comes back, compare every level of the model, and give a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fuzz.targets.observation import signatures
from fuzz.targets.target_set import Side, TargetSet
from harness.findings.finding import Signature, Tries, signature_text
from harness.findings.verdict import STAGES, Evidence, Stage, Verdict, rate_text, together
from harness.scenario.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What is known of one signature of a scenario."""

    signature: Signature
    evidence: Evidence
    verdict: Verdict


def as_json(found: Confirmed) -> dict[str, object]:
    """Return plain data for :mod:`json`."""
    return {
        "signature": signature_text(found.signature),
        "verdict": asdict(found.verdict),
        "rate": rate_text(together(found.evidence.stages)),
        "evidence": asdict(found.evidence),
    }


def stages_of(
    targets: TargetSet[Side], scenario: Scenario, wanted: tuple[Signature, ...], runs: int, boots: int
) -> dict[Signature, tuple[Stage, ...]]:
    """Run a scenario in every stage and count, by signature, how often it came back.

    ``runs`` times in one KVM VM and in fresh ones, in ``boots`` fresh QEMUs.  TargetError: the machine was lost.
    """
    counts = {key: dict.fromkeys(STAGES, 0) for key in wanted}
    times = dict(zip(STAGES, (runs, runs, boots), strict=True))
    for stage in STAGES if wanted else ():
        for _ in range(times[stage]):
            if stage == "fresh_qemu":
                targets.stop()
            found = targets.run_and_check(scenario, fresh_vm=stage != "repeat")
            for key in set(signatures(found.checked)) & set(wanted):
                counts[key][stage] += 1
    return {key: tuple(Stage(s, Tries(hits[s], times[s])) for s in STAGES) for key, hits in counts.items()}
