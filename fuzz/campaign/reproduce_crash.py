# SPDX-License-Identifier: Apache-2.0
"""Reproduce a loss or an alarm in fresh machines: with the last scenario, then with earlier ones before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from fuzz.campaign.worker_context import WorkerContext
from fuzz.targets.runner import Boot, ScenarioRunner
from harness.errors import TargetError
from harness.findings.finding import Finding
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.crash import Reproduction

RUNS = 3
"""Number of tries of each sequence of scenarios, each in a fresh machine."""
MAX_TRIES = 2
"""Number of scenarios with which a worker tries to reproduce one crash or alarm."""


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


class Reproductions:
    """Reproduces the losses and alarms of a worker, each with at most MAX_TRIES scenarios, until ``ending``."""

    def __init__(self, context: WorkerContext, ending: Callable[[], bool]) -> None:
        self._targets, self._stats, self._ending = context.targets, context.stats, ending
        self._tries: Counter[str] = Counter()

    def tried(self, id_: str) -> bool:
        """Whether it was tried to reproduce a finding."""
        return self._tries[id_] > 0

    def left(self, id_: str) -> bool:
        """Whether a finding may be tried with a further scenario."""
        return self._tries[id_] < MAX_TRIES

    def find(
        self,
        finding: Finding,
        earlier: Sequence[Scenario],
        last: Scenario,
        *,
        same: Callable[[TargetError], bool] = lambda _: False,
        shown: Callable[[ScenarioRunner, Trace], bool] = lambda _, __: False,
    ) -> Reproduction | None:
        """Return how often it was reproduced, as :meth:`Reproducer.find`; None: no try or no time is left."""
        if self._ending() or not self.left(finding.id):
            return None
        boot = partial(self._targets.boot_again, finding.subject)
        try:
            again = Reproducer(boot, same, self._ending, shown).find(earlier, last)
        except Interrupted:
            return None
        self._tries[finding.id] += 1
        self._stats.add("reproduced", "yes" if again.hits else "no")
        return again
