# SPDX-License-Identifier: Apache-2.0
"""Process one input in a worker of a campaign on real KVM: run it, count what was compared, hand on what it shows.

A worker is one process with its own machines.  ``worker_process`` calls it from atheris (Python's libFuzzer), which
chooses the inputs; this module does not know atheris.  Divergences go to ``confirm_divergences``, alarms to
``confirm_alarms``, lost machines and internal errors to ``failures``; what they keep is in ``kept_findings``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fuzz.campaign.confirm_alarms import Alarms
from fuzz.campaign.confirm_divergences import Divergences
from fuzz.campaign.failures import Failures
from fuzz.campaign.features import features
from fuzz.campaign.kept_findings import KeptFindings
from fuzz.campaign.reproduce_crash import Reproductions
from fuzz.campaign.worker_context import GiveUp, WorkerContext
from fuzz.campaign.worker_machines import WorkerMachines
from fuzz.targets.observation import stability_key
from harness.errors import InputError, SetupError, TargetError
from harness.findings.checked import CheckResult
from harness.findings.known_divergences import Known
from harness.report.campaign_data import NOT_TAKEN, TAKEN
from harness.scenario.scenario import Scenario, parse

__all__ = ["GiveUp", "Worker", "WorkerContext"]  # all that callers use

FIRST_BOOTS = 2
"""Number of tries of a worker to boot its first machine."""
SAMPLED = 100
"""One of this number of scenarios is run again, whatever its result, to measure the share of unstable ones."""
SPREAD = 32
"""A scenario that shows stored findings more simply waits: after each such number of scenarios one is confirmed."""


class Worker:
    """Runs scenarios on its machines, and counts and stores the results."""

    def __init__(self, context: WorkerContext) -> None:
        self._with, self._stats = context, context.stats
        self.ending = False
        """Set when the campaign ends: long work such as reproducing a crash is then skipped."""
        self._machines = WorkerMachines(context)
        self._kept = KeptFindings(context)
        self._divergences = Divergences(context, self._machines, self._kept)
        reproductions = Reproductions(context, lambda: self.ending)
        self._alarms = Alarms(context, self._machines, self._kept, reproductions)
        self._failures = Failures(context, self._machines, self._kept, reproductions)

    def begin(self) -> None:
        """Boot for the first time.  TargetError: the machine does not boot; a finding has its console."""
        for left in reversed(range(FIRST_BOOTS)):
            try:
                self._machines.start()
            except TargetError as error:
                self._failures.on_loss(None, error)
                if not left:
                    raise
            else:
                return

    def close(self) -> None:
        """End the machines."""
        self._kept.write_counts()
        self._machines.stop()

    def run_input(self, data: bytes) -> None:
        """Run, check and count one input, a scenario as text.  GiveUp, SetupError: the worker cannot continue."""
        try:
            scenario = parse(data)
        except InputError:
            self._stats.add("count", "invalid")
            return
        self._attempt(scenario, self._scenario)
        if self._stats.get("count", "scenarios") % SPREAD == 0 and not self.ending:
            simplest = self._divergences.take_simplest()
            if simplest is not None:
                self._attempt(simplest, self._divergences.confirm_simpler)

    def _attempt(self, scenario: Scenario, work: Callable[[Scenario], None]) -> None:
        """Do some work with a scenario on a machine; alarms, and whatever ends the work, are kept with the scenario."""
        try:
            self._machines.start()
            self._machines.alarms.clear()
            work(scenario)
            self._alarms.handle(scenario)
            self._machines.recent.append(scenario)
            self._failures.on_success()
        except TargetError as error:
            self._failures.on_loss(scenario, error)
        except SetupError:
            raise
        except Exception as error:  # an internal error is a finding, too: it must not end the campaign
            self._failures.on_internal_error(scenario, error)

    def _scenario(self, scenario: Scenario) -> None:
        found = self._machines.run(scenario)
        self._with.on_run()
        self._stats.add("count", "scenarios")
        covered: set[int] = set()
        for seen in found:
            if seen.other is None:  # else it compares the traces of both targets, whose own observations are counted
                self._stats.add("status", seen.checked.status)
                hit = features(seen.traces[0], seen.checked)
                covered |= hit
                for index in hit:
                    self._with.count_coverage(index)
                    self._stats.saw(index)
            self._count(seen.checked)
        self._with.offer(scenario, covered)
        self._divergences.handle(scenario, found)
        if self._stats.get("count", "scenarios") % SAMPLED == 0:
            self._stats.add("count", "again")
            again = self._machines.run(scenario)
            if stability_key(again) != stability_key(found):
                self._stats.add("count", "unstable")

    def _count(self, checked: CheckResult) -> None:
        stats = self._stats
        stats.add_all("exits", checked.exits)
        stats.add_all("relations", checked.relations)
        stats.add_all("unchecked", checked.unchecked)
        stats.add_all("undefined", checked.undefined)
        stats.add_all("attempted", checked.attempted)
        stats.add_all("incomplete", checked.incomplete)
        stats.add_all("stood_in", checked.stood_in)
        if checked.dropped:
            stats.add("count", "dropped", checked.dropped)
        known = [judged.known for judged in checked.judged if judged.known is not None]
        stats.add_all("known", Counter([entry.id for entry in known]))
        stats.add("count", "by_conditions", sum(isinstance(entry, Known) and not entry.by_rule for entry in known))
        ways: Counter[tuple[str, bool]] = Counter()
        for (_, path), count in Counter(checked.paths).items():  # most are there several times
            for way in path:
                ways[way] += count
        for (name, taken), count in ways.items():
            stats.add("branches", f"{name}{TAKEN if taken else NOT_TAKEN}", count)
        # An exit counts as checked if its round was replayed on the model and compared with relation ``save``.  The
        # round before a vCPU's first entry (FIRST) has no exit.  The last exit of a scenario begins no complete round.
        exits = checked.relations.get("save", 0) - sum(1 for name, _ in checked.paths if name == "FIRST")
        if exits > 0:
            stats.add("count", "checked_exits", exits)
            if not stats.get("time", "first_exit"):
                stats.put("time", "first_exit", self._with.ticks())
