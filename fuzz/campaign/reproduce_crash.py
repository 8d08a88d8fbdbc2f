# SPDX-License-Identifier: Apache-2.0
"""Try the last scenarios before a loss or an alarm in fresh machines: the last one, then with those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fuzz.targets.runner import Boot, ScenarioRunner
from harness.errors import TargetError
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.crash import Reproduction

RUNS = 3
"""How often a way to reproduce is tried, in a machine of its own each time."""


class Interrupted(Exception):
    """There is no time for more."""


class Reproducer:
    """Tries scenarios for one loss or alarm.

    ``same`` tells whether an error is the one that is looked for, ``shown`` whether a machine shows it after a run.
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
        """Return how often it came back; ``earlier`` scenarios are in the order in which they ran.

        Interrupted: ``ending`` said so between two machines.
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
