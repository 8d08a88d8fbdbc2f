# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on two targets and compare the traces; return the differences as values, text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fuzz.targets.target_set import Side, TargetSet
from harness.findings.checked import CheckResult, ExplainedDivergence, signature
from harness.findings.compare_releases import RELATION
from harness.findings.finding import Subject, signature_text
from harness.scenario.scenario import Scenario


@dataclass(frozen=True, slots=True)
class ReleaseComparison:
    """One scenario on two targets: its name, and the result of the comparison of each run."""

    name: str
    results: tuple[CheckResult, ...]

    @property
    def judged(self) -> tuple[ExplainedDivergence, ...]:
        """Return the differences of all runs, each once."""
        return tuple({_same(judged): judged for checked in self.results for judged in checked.judged}.values())

    def seen(self, judged: ExplainedDivergence) -> int:
        """Return the number of runs with a difference."""
        return sum(_same(judged) in map(_same, checked.judged) for checked in self.results)


def _same(judged: ExplainedDivergence) -> tuple[object, ...]:
    """Return the identity of a difference without its position in the trace, which depends on interrupts."""
    d = judged.divergence
    return d.register, d.exit_class, d.helper, d.expected, d.observed


def compare_all(
    targets: TargetSet[Side], scenarios: Sequence[tuple[str, Scenario]], repeat: int
) -> Iterator[ReleaseComparison]:
    """Yield the comparison of each scenario on two targets, in fresh VMs.  TargetError: a machine was lost."""
    for name, scenario in scenarios:
        yield ReleaseComparison(name, tuple(targets.compare_traces(scenario) for _ in range(repeat)))


def comparison_lines(subjects: Sequence[Subject], found: Sequence[ReleaseComparison], *, known: bool) -> Iterator[str]:
    """Yield the lines of a report on two targets; ``known``: also list each intended difference."""
    one, other = (f"{s.target}, Linux {s.kernel_release}" for s in subjects)
    yield f"{one}\nagainst {other}"
    intended: Counter[str] = Counter()
    unchecked: Counter[str] = Counter()
    for each in found:
        for checked in each.results[:1]:
            unchecked.update(checked.unchecked)
        for judged in each.judged:
            d = judged.divergence
            if judged.known is not None:
                intended[judged.known.id] += 1
            if judged.known is None or known:
                part = f", {each.seen(judged)} of {len(each.results)} runs" if len(each.results) > 1 else ""
                why = f"; {judged.known.id}" if judged.known is not None else ""
                values = " and ".join(v if isinstance(v, str) else hex(v) for v in (d.expected, d.observed))
                where = f"step {d.step}" if d.step < 1 << 31 else "no step"
                yield f"{each.name}: {d.name} at {d.exit_class} ({where}): {values}{part}{why}"
    for id_, count in intended.most_common():
        yield f"{count:6}x intended: {id_}"
    for why, count in unchecked.most_common():
        yield f"{count:6}x unchecked: {why}"
    records = sum(checked.relations[RELATION] for each in found for checked in each.results[:1])
    differ = sum(any(j.known is None for j in each.judged) for each in found)
    yield f"{len(found)} scenarios, {records} records compared, {differ} scenarios differ"


def comparison_json(subjects: Sequence[Subject], found: Sequence[ReleaseComparison]) -> dict[str, object]:
    """Return plain data for :mod:`json`."""
    return {
        "targets": [{"target": s.target, "kernel_release": s.kernel_release} for s in subjects],
        "scenarios": [
            {
                "scenario": each.name,
                "runs": len(each.results),
                "unchecked": dict(each.results[0].unchecked),
                "differences": [
                    {
                        "name": judged.divergence.name,
                        "signature": signature_text(signature(judged.divergence)),
                        "step": judged.divergence.step,
                        "values": [judged.divergence.expected, judged.divergence.observed],
                        "seen": each.seen(judged),
                        "known": None if judged.known is None else judged.known.id,
                    }
                    for judged in each.judged
                ],
            }
            for each in found
        ],
    }
