# SPDX-License-Identifier: Apache-2.0
"""An executor hands on the alarms that the machine printed since the last time, whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.vm import executor
from harness.vm.executor import Executor


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
