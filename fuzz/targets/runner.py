# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on one machine: what a machine does, how many run at a time, and how many may be lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.alarms import Alarm

MACHINES = 2
"""Machines at a time, where each runs scenarios of its own and no number was given."""
MAX_LOSSES = 5
"""After so many lost machines in a row, none of which finished a scenario, no other one is booted."""
TRIES = 4
"""Runs of a scenario in which timer interrupts of the host prevent that the guest gets on."""


class ScenarioRunner(Protocol):
    """A booted machine that runs scenarios."""

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        """What the target's kernel complained of while it booted."""
        ...

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run a scenario and return its trace."""
        ...

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what the target's kernel complained of since this was asked the last time."""
        ...


Boot = Callable[[], AbstractContextManager[ScenarioRunner]]


def run_to_end(machine: ScenarioRunner, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
    """Run a scenario, again if it runs away: on a busy machine timer interrupts may come too fast for a slow guest."""
    for _ in range(TRIES - 1):
        trace = machine.run(scenario, fresh_vm=fresh_vm)
        if trace.status != "runaway":
            return trace
    return machine.run(scenario, fresh_vm=fresh_vm)
