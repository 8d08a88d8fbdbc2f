# SPDX-License-Identifier: Apache-2.0
"""A guest that userspace debugs, on a machine: its records, and that debugging ends with the scenario."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.layout import CODE
from harness.relations.debug_registers import TDE
from harness.relations.guest_debug import EXIT_DEBUG
from harness.scenario.scenario import load, parse
from harness.trace.events import ENTRY, EXIT, USER, Switch, Trace
from harness.vm.config import PROJECT
from harness.vm.executor import Executor
from tests.vm.running import booted


@pytest.fixture(scope="module")
def machine() -> Iterator[Executor]:
    with booted("kvm-nvhe") as executor:
        yield executor


def switches(trace: Trace, kind: int) -> list[Switch]:
    return [event for event in trace.events if isinstance(event, Switch) and event.kind == kind]


def run(machine: Executor, *steps: str) -> Trace:
    return machine.run(parse("\n".join(["shadowfuzz-scenario 1", "about A test.", *steps, ""])), fresh_vm=False)


def test_each_entry_and_exit_has_its_debug_registers(machine: Executor) -> None:
    trace = machine.run(load(PROJECT / "corpus" / "seeds" / "debug_steps.scn"))
    both = [i for i, event in enumerate(trace.events) if isinstance(event, Switch) and event.kind in (ENTRY, EXIT)]
    assert [points.event for points in trace.points] == both
    assert {bool(points.values[0] & TDE) for points in trace.points} == {True, False}
    for points in trace.points:
        event = trace.events[points.event]
        assert isinstance(event, Switch)
        assert event.kind == EXIT or event.debugged == bool(points.values[0] & TDE)


def test_debugging_ends_with_its_scenario(machine: Executor) -> None:
    stepped = run(machine, "hvc 0x0", "debug step", "breakpoint 0x0 0x40000008 any", "movz x1, 0x1", "movz x2, 0x2")
    told = [user for user in switches(stepped, USER) if user.code == EXIT_DEBUG]
    assert [user.values[32] for user in told][:2] == [CODE.base + 8, CODE.base + 8], "the step, then the breakpoint"
    after = run(machine, "movz x1, 0x1", "movz x2, 0x2", "hvc 0x0")
    assert not [user for user in switches(after, USER) if user.code == EXIT_DEBUG]
    assert not any(entry.debugged for entry in switches(after, ENTRY))
    assert after.points == (), "without debugging there is no cost"


def test_an_instruction_with_a_breakpoint_is_done_once_that_is_gone(machine: Executor) -> None:
    trace = run(machine, "hvc 0x0", "breakpoint 0x1 0x40000004 el1", "movz x9, 0x1234", "debug off", "hvc 0x1")
    last = switches(trace, EXIT)[-1]
    assert (trace.status, last.values[9]) == ("ok", 0x1234)
