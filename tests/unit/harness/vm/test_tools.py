# SPDX-License-Identifier: Apache-2.0
"""Running tools: errors are reported, and hanging tools are ended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.tools import reason_line, run_tool, says_disk_full


def test_tools_say_what_went_wrong() -> None:
    lines: list[str] = []
    status, output = run_tool(["sh", "-c", "echo out; echo err >&2; exit 3"], "x", check=False, progress=lines.append)
    assert (status, output, lines) == (3, "out\nerr\n", [])
    with pytest.raises(SetupError, match=r"compiling failed: a\.c:1:1: error: no such thing"):
        run_tool(
            ["sh", "-c", "echo a.c: In function; echo 'a.c:1:1: error: no such thing'; echo make: Error 1; exit 2"],
            "compiling",
        )
    with pytest.raises(SetupError, match="x failed: exit status 1"):
        run_tool(["false"], "x")
    with pytest.raises(OSError, match="No space left on device"):
        run_tool(["sh", "-c", "echo 'cc1: error: a.s: No space left on device' >&2; exit 1"], "compiling", check=False)
    assert says_disk_full("E: You don't have enough free space in /var/cache/apt/archives/.")
    assert reason_line("") == ""


def test_slow_tools_are_reported() -> None:
    lines: list[str] = []
    run_tool(["sleep", "2.3"], "sleeping", progress=lines.append)
    assert lines == ["sleeping (2 s)"]


def test_stuck_tool_is_ended_with_its_children(tmp_path: Path) -> None:
    start = time.monotonic()
    script = f"sleep 600 & echo $! >{tmp_path}/child; trap '' TERM; wait"
    with pytest.raises(SetupError, match=r"fetching did not end within 1 s; run the command again"):
        run_tool(["sh", "-c", script], "fetching", timeout=1)
    assert time.monotonic() - start < 60
    child = int((tmp_path / "child").read_text())
    while alive(child):
        assert time.monotonic() - start < 60, "the tool's child still runs"
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_tools_do_not_see_our_make(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAKEFLAGS", "ARCH", "CC", "KCFLAGS"):
        monkeypatch.setenv(name, "--from-outside")
    _, output = run_tool(["env"], "env")
    assert "--from-outside" not in output
