# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on two targets and compare the traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fuzz.targets.target_set import Side, TargetSet
from harness.findings.checked import CheckResult, ExplainedDivergence
from harness.scenario.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Compared:
    """One scenario on two targets: how often it was run, and what each run's comparison gave."""

    name: str
    results: tuple[CheckResult, ...]

    @property
    def judged(self) -> tuple[ExplainedDivergence, ...]:
        """The differences of all runs, each once."""
        return tuple({_same(judged): judged for checked in self.results for judged in checked.judged}.values())

    def seen(self, judged: ExplainedDivergence) -> int:
        """In how many runs a difference was there."""
        return sum(_same(judged) in map(_same, checked.judged) for checked in self.results)


def _same(judged: ExplainedDivergence) -> tuple[object, ...]:
    """What makes two differences the same one; where in the trace it is, an interrupt more or less changes."""
    d = judged.divergence
    return d.register, d.exit_class, d.helper, d.expected, d.observed


def compare_all(targets: TargetSet[Side], scenarios: Sequence[tuple[str, Scenario]], repeat: int) -> Iterator[Compared]:
    """Yield each scenario compared on two targets, in fresh VMs.  TargetError: a machine was lost."""
    for name, scenario in scenarios:
        yield Compared(name, tuple(targets.compare_traces(scenario) for _ in range(repeat)))
