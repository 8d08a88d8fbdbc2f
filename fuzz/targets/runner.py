# SPDX-License-Identifier: Apache-2.0
"""What a booted machine does, how many run at a time, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from harness.scenario.scenario import Scenario
from harness.trace.events import Trace

MACHINES = 2
"""At a time, where each runs scenarios of its own and nobody asked for a number."""
MAX_LOSSES = 5
"""So many machines lost in a row (none of them finished a scenario), and there is no point in another one."""
TRIES = 4
"""For a scenario whose guest does not get on between two ticks of the host's clock."""


class Runs(Protocol):
    """What a booted machine does."""

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run a scenario and return its trace."""
        ...


Boot = Callable[[], AbstractContextManager[Runs]]


def run_to_end(machine: Runs, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
    """Run a scenario to its end: on a machine short of cores the clock may tick too often for a slow guest."""
    for _ in range(TRIES - 1):
        trace = machine.run(scenario, fresh_vm=fresh_vm)
        if trace.status != "runaway":
            return trace
    return machine.run(scenario, fresh_vm=fresh_vm)
