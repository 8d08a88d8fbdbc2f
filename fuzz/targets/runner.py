# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on one machine: its interface, the number of machines at a time, and of losses in a row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.alarms import Alarm

MACHINES = 2
"""Default number of machines at a time, if each runs its own scenarios."""
MAX_LOSSES = 5
"""Number of machines lost in a row, without a finished scenario, after which no further one is booted."""
TRIES = 4
"""Maximum number of runs of a scenario in which host timer interrupts prevent guest progress."""


class ScenarioRunner(Protocol):
    """A booted machine that runs scenarios."""

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of the target's kernel while it booted."""
        ...

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run a scenario and return its trace."""
        ...

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of the target's kernel since the last call."""
        ...


Boot = Callable[[], AbstractContextManager[ScenarioRunner]]


def run_to_end(machine: ScenarioRunner, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
    """Run a scenario; if its status is ``runaway``, run it again.

    On a busy machine timer interrupts may be too frequent for guest progress.
    """
    for _ in range(TRIES - 1):
        trace = machine.run(scenario, fresh_vm=fresh_vm)
        if trace.status != "runaway":
            return trace
    return machine.run(scenario, fresh_vm=fresh_vm)
