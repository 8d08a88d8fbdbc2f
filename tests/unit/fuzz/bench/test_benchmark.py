# SPDX-License-Identifier: Apache-2.0
"""Phases of the benchmark are independent of each other."""

from __future__ import annotations

import os
from typing import Any, cast

from fuzz.bench.benchmark import _sample
from fuzz.bench.checked_campaign import CheckedCampaign
from harness.scenario.scenario import Scenario, parse
from harness.vm.alarms import Alarm

ALARM = Alarm("warn", "read_from_write_only", "Unexpected sys_reg read to write-only register", "")
SCENARIO = parse(b"shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n")


class NoisyMachine:
    """A machine whose kernel raises an alarm for every scenario that is not recorded."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.exits = 0
        self.waiting: list[Alarm] = []

    def run_bare(self, scenario: Scenario, *, fresh_vm: bool, record: bool) -> None:
        self.exits += 1
        self.waiting += [ALARM] * (not record)

    def alarms(self) -> tuple[Alarm, ...]:
        found, self.waiting = tuple(self.waiting), []
        return found


class CountingCampaign:
    def __init__(self) -> None:
        self.executor = NoisyMachine()
        self.scenarios = [SCENARIO]
        self.checked_exits = 0
        self.seen: list[Alarm] = []

    def step(self, scenario: Scenario) -> None:
        self.checked_exits += 1
        self.seen += self.executor.alarms()


def test_alarms_of_an_unchecked_phase_do_not_affect_the_next() -> None:
    campaign = CountingCampaign()
    raw = _sample("raw", 1, cast(CheckedCampaign, cast(Any, campaign)), 0.01)
    assert raw.exits > 0 and campaign.executor.waiting, "or it shows nothing"
    checked = _sample("checked", 1, cast(CheckedCampaign, cast(Any, campaign)), 0.01)
    assert checked.exits > 0 and campaign.seen == []
