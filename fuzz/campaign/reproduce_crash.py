# SPDX-License-Identifier: Apache-2.0
"""Reproduce a loss or an alarm in fresh machines: with the last scenario, then with earlier ones before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fuzz.targets.runner import Boot, ScenarioRunner
from harness.errors import TargetError
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.crash import Reproduction

RUNS = 3
"""Number of tries of each sequence of scenarios, each in a fresh machine."""


class Interrupted(Exception):
    """The campaign ends: no time is left for further tries."""


class Reproducer:
    """Runs scenarios to reproduce one loss or alarm.

    ``same`` returns whether an error is the one to reproduce, ``shown`` whether a machine shows it after a run.
    """

    def __init__(
        self,
        boot: Boot,
        same: Callable[[TargetError], bool],
        ending: Callable[[], bool],
        shown: Callable[[ScenarioRunner, Trace], bool] = lambda _, __: False,
    ) -> None:
        self._boot, self._same, self._ending, self._shown = boot, same, ending, shown

    def find(self, earlier: Sequence[Scenario], last: Scenario) -> Reproduction:
        """Return how often it was reproduced; ``earlier`` scenarios are in the order in which they ran.

        Interrupted: ``ending`` returned true between two machines.
        """
        alone = self._rate((last,))
        if alone or not earlier:
            return Reproduction((alone, RUNS), (0, 0), 0)
        whole = (*earlier, last)
        if not self._once(whole):
            return Reproduction((0, RUNS), (0, 1), len(earlier))
        before = 1
        while before < len(earlier) and not self._once(whole[-before - 1 :]):
            before *= 2
        before = min(before, len(earlier))
        return Reproduction((0, RUNS), (self._rate(whole[-before - 1 :]), RUNS), before)

    def _rate(self, sequence: Sequence[Scenario]) -> int:
        return sum(self._once(sequence) for _ in range(RUNS))

    def _once(self, sequence: Sequence[Scenario]) -> bool:
        """Run scenarios one after the other in a fresh machine, as a campaign does: in one KVM VM."""
        if self._ending():
            raise Interrupted
        try:
            with self._boot() as machine:
                traces = (machine.run(scenario, fresh_vm=i == 0) for i, scenario in enumerate(sequence))
                return any(self._shown(machine, trace) for trace in traces)
        except TargetError as error:
            return self._same(error)
