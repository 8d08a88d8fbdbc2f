# SPDX-License-Identifier: Apache-2.0
"""Compilation of scenarios to operations: with writes by the module all operations stay, in the same order."""

from __future__ import annotations

import random
from itertools import groupby
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuzz.generate.mutator import generate
from harness import protocol
from harness.scenario.scenario import Scenario, parse
from harness.vm import executor
from harness.vm.executor import Executor, compile_scenario

HEAD = "shadowfuzz-scenario 1\nabout A test.\n"
NAMES = {number: name for name, (number, _) in protocol.OPS.items()}

Line = tuple[str, int, int, int]


def program(scenario: Scenario, *, by_probe: bool) -> list[Line]:
    count, data = compile_scenario(scenario, fresh_vm=False, by_probe=by_probe)
    assert count * protocol.OP_FORMAT.size == len(data)
    return [(NAMES[op], step, a, b) for op, step, a, b in protocol.OP_FORMAT.iter_unpack(data)]


@pytest.mark.parametrize("seed", range(40))
def test_nothing_else_changes(seed: int) -> None:
    scenario = generate(random.Random(seed))
    api, probe = program(scenario, by_probe=False), program(scenario, by_probe=True)
    assert [op for op in probe if op[0] not in ("later", "run")] == [op for op in api if op[0] != "run"]
    runs = [op for op in api if op[0] == "run"]
    assert [("run", *op[1:3], 0) if op[0] == "later" else op for op in probe if op[0] in ("later", "run")] == runs


@pytest.mark.parametrize("seed", range(40))
def test_delayed_writes_are_contiguous_and_precede_their_run(seed: int) -> None:
    """The agent uses one range, from the index of the first to the end of the last."""
    left = 0
    for name, ops in groupby(program(generate(random.Random(seed)), by_probe=True), key=lambda op: op[0]):
        for op in ops:
            if left:
                assert name == "set"
                left -= 1
            elif name == "later":
                left = op[3]
                assert left


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("hvc 0x0\nset x1 0x1\nset x2 0x2\nhvc 0x0\n", ["later", "set", "set", "run", "run"]),
        ("hvc 0x0\nset x1 0x1\ncomplete 0x2\nhvc 0x0\n", ["run", "set", "complete", "run", "run"]),
        ("hvc 0x0\nset tpidr_el1 0x1\nhvc 0x0\n", ["run", "set", "run", "run"]),
        ("hvc 0x0\nforge esr 0x0\nset x1 0x1\nhvc 0x0\n", ["forge", "run", "set", "run", "run"]),
        ("br x3\nset x1 0x1\nhvc 0x0\n", ["run", "set", "run", "run"]),
    ],
)
def test_only_where_the_host_does_nothing_else(steps: str, expected: list[str]) -> None:
    found = [op[0] for op in program(parse(HEAD + steps), by_probe=True)]
    assert [name for name in found[found.index("code") :] if name != "code"] == expected


class Console:
    """A fake machine that only prints; ``late`` is printed during waits, part by part."""

    def __init__(self) -> None:
        self.text, self.late, self.asked = b"[    1.000000] WARNING: a.c:1 at boot+0x1/0x2\n", list[bytes](), 0
        self.mailbox = bytearray(4096)

    def console_size(self) -> int:
        self.asked += 1
        return len(self.text)

    def console_from(self, offset: int) -> bytes:
        return self.text[offset:]

    def wait(self, _seconds: float) -> None:
        self.text += self.late.pop(0) if self.late else b""


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> tuple[Console, Executor]:
    machine = Console()
    monkeypatch.setattr(executor.time, "sleep", machine.wait)
    return machine, Executor(cast(Any, machine), cast(Any, SimpleNamespace(size=0)))


def test_alarms_since_the_last_time(console: tuple[Console, Executor]) -> None:
    machine, runs = console
    assert runs.alarms() == (), "alarms of the boot belong to no scenario"
    machine.text += b"[    2.000000] kvm [7]: Unsupported exception type: 1\n"
    assert runs.alarms() == ()
    machine.text += b"[    2.000000] WARNING: a.c:1 at f+0x1/0x2\n"
    assert [alarm.function for alarm in runs.alarms()] == ["f"]
    before = machine.asked
    assert runs.alarms() == () and machine.asked == before + 1, "only the size is read"


def test_the_rest_of_a_line_and_of_an_alarm_come_later(console: tuple[Console, Executor]) -> None:
    machine, runs = console
    machine.text += b"[    2.000000] WARN"
    assert runs.alarms() == () == runs.alarms()
    machine.text += b"ING: a.c:1 at f+0x1/0x2\n"
    machine.late = [b"[    2.000001] Call trace:\n", b"[    2.000002]  g+0x1/0x2\n"]
    (alarm,) = runs.alarms()
    assert alarm.splat.splitlines()[1:] == ["Call trace:", " g+0x1/0x2"]
    assert runs.alarms() == ()


def test_a_console_that_never_stops_growing_is_read(
    console: tuple[Console, Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, runs = console
    monkeypatch.setattr(executor, "SETTLE_PATIENCE", 0.0)
    machine.text += b"[    2.000000] WARNING: a.c:1 at f+0x1/0x2\n"
    machine.late = [b"[    2.000001] more\n"] * 100
    assert len(runs.alarms()) == 1
