# SPDX-License-Identifier: Apache-2.0
"""Show the alarms (warnings) of the targets' kernels again on freshly booted machines, and keep them as findings.

The machine of now may not show one again: a kernel may report it only once per boot (WARN_ONCE).
"""

from __future__ import annotations

from fuzz.campaign.kept_findings import KeptFindings, earlier_texts
from fuzz.campaign.reproduce_crash import Reproductions
from fuzz.campaign.worker_context import WorkerContext
from fuzz.campaign.worker_machines import WorkerMachines
from fuzz.store.findings import CONSOLE, FRESH_QEMU
from fuzz.targets.runner import ScenarioRunner
from harness.findings.asserted_alarms import sort_alarms
from harness.findings.finding import Finding
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.alarms import Alarm, once_each
from harness.vm.crash import Reproduction


class Alarms:
    """Confirms, keeps and counts the alarms of scenarios."""

    def __init__(
        self, context: WorkerContext, machines: WorkerMachines, kept: KeptFindings, reproductions: Reproductions
    ) -> None:
        self._stats = context.stats
        self._machines, self._kept, self._reproductions = machines, kept, reproductions

    def handle(self, scenario: Scenario) -> None:
        """Keep the alarms in the runs of a scenario: as flaky if freshly booted machines do not show them."""
        alarms = self._machines.alarms
        for subject in dict.fromkeys(subject for subject, _ in alarms):
            of_one = once_each(alarm for owner, alarm in alarms if owner == subject)
            for signature, (alarm, count) in of_one.items():
                finding = self._kept.without_values("alarm", signature, subject, alarm.sentence)
                self._keep(scenario, finding, alarm, count)

    def _keep(self, scenario: Scenario, finding: Finding, alarm: Alarm, count: int) -> None:
        id_ = finding.id
        if id_ in self._kept:
            self._stats.add("alarms", id_, count)
            self._kept.count(id_)
            return
        again = self._rate_of(finding, scenario)
        confirmed = again is not None and again.hits > 0
        self._stats.add("alarms" if confirmed else "flaky", id_, count)
        if again is None and self._reproductions.tried(id_):  # it is stored as flaky already
            return
        before = again.before if again is not None else 0
        texts = {CONSOLE: alarm.splat} | earlier_texts(tuple(self._machines.recent)[-before:] if before else ())
        if again is not None:
            hits, runs = again.sequence if before else again.alone
            texts[FRESH_QEMU] = f"{hits} {runs}"
        keep = self._kept.keep if confirmed else self._kept.keep_flaky
        keep(finding, scenario, texts)

    def _rate_of(self, finding: Finding, scenario: Scenario) -> Reproduction | None:
        """Return how often freshly booted machines show an alarm again; None: no try or no time is left."""

        def shown(machine: ScenarioRunner, trace: Trace) -> bool:
            found = sort_alarms(machine.alarms(), trace).findings
            return any(alarm.signature == finding.signature for alarm in found)

        return self._reproductions.find(finding, tuple(self._machines.recent), scenario, shown=shown)
