# SPDX-License-Identifier: Apache-2.0
"""The machines of a worker: boot them, run scenarios on them, and remember what ran there and which alarms it gave."""

from __future__ import annotations

from collections import Counter, deque

from fuzz.campaign.worker_context import WorkerContext
from fuzz.targets.observation import Observation
from fuzz.targets.target_set import Side, TargetSet
from harness.errors import TargetError
from harness.findings.finding import Subject
from harness.scenario.scenario import Scenario, parse
from harness.vm.alarms import Alarm

REMEMBERED = 16
"""Number of earlier scenarios that are stored with a crash."""
SIMPLEST_SCENARIO = parse(b"shadowfuzz-scenario 1\nabout The plainest.\nhvc 0x0\n")


class WorkerMachines:
    """Runs scenarios on the machines of a worker, and collects the alarms of their kernels."""

    def __init__(self, context: WorkerContext) -> None:
        self._targets, self._own_qemu = context.targets, context.own_qemu
        self._stats, self._ticks = context.stats, context.ticks
        self.recent: deque[Scenario] = deque(maxlen=REMEMBERED)
        """The last scenarios that ran to their end on the machines of now, the latest last."""
        self.alarms: list[tuple[Subject, Alarm]] = []
        """The alarms in all runs of the scenario of now."""

    def start(self) -> None:
        """Boot the machines, unless they run.  TargetError: one does not boot."""
        if self._targets.running:
            return
        self.recent.clear()
        self._targets.start()
        if not self._stats.get("time", "ready"):
            self._stats.put("time", "ready", self._ticks())
            for subject, alarms in self._targets.alarms_at_boot.items():  # a property of the target: once per worker
                self._stats.add_all("boot_alarms", Counter(f"{subject.target}: {one.sentence}" for one in alarms))

    def stop(self) -> None:
        """End the machines."""
        self._targets.stop()
        if self._own_qemu is not None:
            self._own_qemu.stop()

    def run(self, scenario: Scenario) -> tuple[Observation, ...]:
        """Run and check a scenario in the VM of the one before.  TargetError: a machine was lost."""
        return self._run(self._targets, scenario, fresh_vm=False)

    def run_in_fresh_vm(self, scenario: Scenario) -> tuple[Observation, ...]:
        """Run and check a scenario in a fresh VM, on Debian's own QEMU.  TargetError: a machine was lost."""
        return self._run(self._own_qemu or self._targets, scenario, fresh_vm=True)

    def _run(self, targets: TargetSet[Side], scenario: Scenario, *, fresh_vm: bool) -> tuple[Observation, ...]:
        found = targets.run_and_check_each(scenario, fresh_vm=fresh_vm)
        self.alarms += [(seen.subject, alarm) for seen in found for alarm in seen.alarms]
        for seen in found:
            self._stats.add_all("asserted", Counter(one.name for one in seen.asserted))
        return found

    def run_simplest(self) -> bool:
        """Return whether the targets still run the simplest scenario; the run is not counted.

        libFuzzer mutates one input several times in a row: if the first mutant ends the machine, the others often do,
        too.
        """
        try:
            self.start()
            self._targets.run_and_check_each(SIMPLEST_SCENARIO, fresh_vm=True)
        except TargetError:
            self.stop()
            return False
        return True
