# SPDX-License-Identifier: Apache-2.0
"""The findings of the corpus get the kept verdict from measured evidence alone."""

from __future__ import annotations

import pytest

from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from fuzz.triage.confirm import stages_of
from harness.findings.regressions import load_regressions
from harness.findings.verdict import classify, evidence, first_of
from harness.scenario.scenario import load
from harness.vm.config import PROJECT

REGRESSIONS = PROJECT / "corpus" / "regressions"
TARGET = "kvm-nvhe"
UNDECIDED = {
    # The deployed level passes KVM's ESR_EL1 through there, so the levels disagree.
    ("stage1_walk_outside_slots", "esr_el1", "prep_abort"),
    # No level models MMIO at the place of a deleted memory slot, so none predicts a write of the register.
    ("slot_gone_signed_load", "dirty.xN", "prep_abort"),
    # The deployed level resets ELR_EL1 to 0, which is also the return address of KVM's exception.
    ("reset_with_abort_pending", "elr_el1", ""),
}


@pytest.mark.timeout(180)
def test_verdicts_of_the_findings() -> None:
    # Above 40 bits no rule of the contract applies; the cause is known to be the same fault.
    wanted = {
        row.scenarios[-1]: "unexplained" if row.id.endswith("above-40-bits") else row.verdict
        for row in load_regressions(REGRESSIONS / "expected.toml")
        if TARGET in row.targets
    }
    assert len(wanted) >= 4
    with open_targets(TargetOptions(TARGET, "spec")) as targets:
        for name, verdict in wanted.items():
            scenario = load(REGRESSIONS / f"{name}.scn")
            seen = targets.run_and_check(scenario)
            trace, checked = seen.trace, seen.checked
            stages = stages_of(targets, scenario, signatures(checked), runs=3, boots=1)
            assert stages, name
            for key, counted in stages.items():
                divergence = first_of(checked, key)
                assert divergence is not None
                if divergence.exit_class == "IRQ":
                    continue  # an interrupt of the host is asynchronous
                expected = "unexplained" if (name, key[1], key[3]) in UNDECIDED else verdict
                assert classify(evidence(trace, checked, divergence, counted)).name == expected, (name, key)
