# SPDX-License-Identifier: Apache-2.0
"""A target whose kernel raises an alarm for scenarios with an SMC, as WARN_ONCE does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from fuzz.targets.runner import ScenarioRunner
from harness.findings.checked import CheckResult
from harness.scenario.scenario import Scenario, Step
from harness.trace.events import Trace
from harness.vm.alarms import Alarm
from tests.support.fake_worker import SUBJECT, TRACE, checked

WARNING = Alarm("warn", "handle_smc", "WARNING: CPU: 0 PID: 7 at a.c:1 handle_smc+0x1/0x2", "WARNING\nCall trace:")
LARGE = Scenario("Large.", (("x0", 1),), (Step("hvc", (3,)), Step("smc", (7,)), Step("wfi"), Step("reset")))
QUIET = Scenario("Quiet.", (), (Step("hvc", (3,)),))


class Complaining:
    """``once``: only the first such scenario of each boot raises an alarm; else each does."""

    def __init__(self, once: bool = True) -> None:
        self.subject, self.config, self.once = SUBJECT, SimpleNamespace(name="fake"), once
        self.boots = 0
        self._said = False
        self._now: tuple[Alarm, ...] = ()

    @contextmanager
    def boot(self) -> Iterator[ScenarioRunner]:
        self.boots += 1
        self._said = False
        yield self

    def boot_again(self) -> Any:
        raise AssertionError("no machine is lost on purpose")

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        shows = any(step.kind == "smc" for step in scenario.steps) and not (self.once and self._said)
        self._now, self._said = (WARNING,) * shows, self._said or shows
        return TRACE

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        return ()

    def alarms(self) -> tuple[Alarm, ...]:
        return self._now

    def check(self, scenario: Scenario, trace: Trace) -> CheckResult:
        return checked()
