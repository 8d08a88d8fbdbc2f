# SPDX-License-Identifier: Apache-2.0
"""A scenario that runs away is run again, up to a limit."""

from __future__ import annotations

from dataclasses import replace

from fuzz.targets.runner import TRIES, run_to_end
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from tests.support.fake_worker import SCENARIO, TRACE


class Slow:
    """A machine whose guest makes no progress in its first runs."""

    def __init__(self, runaways: int) -> None:
        self.runaways, self.fresh = runaways, list[bool]()

    def run(self, _: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Return the trace of a run, as the executor does."""
        self.fresh.append(fresh_vm)
        return replace(TRACE, status="runaway") if len(self.fresh) <= self.runaways else TRACE


def test_a_guest_without_progress_is_run_again() -> None:
    for runaways, runs, status in ((0, 1, "ok"), (2, 3, "ok"), (TRIES - 1, TRIES, "ok"), (TRIES, TRIES, "runaway")):
        machine = Slow(runaways)
        assert run_to_end(machine, SCENARIO, fresh_vm=False).status == status
        assert machine.fresh == [False] * runs
