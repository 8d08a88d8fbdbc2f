# SPDX-License-Identifier: Apache-2.0
"""The tutorial on real targets: its files, its commands in their order, and what it says that they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fuzz.cli.main import main
from tests.support.paths import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"
TRIES = 4
"""Runs until one has no timer interrupt between the events that the page shows."""

pytestmark = pytest.mark.timeout(600)


def blocks(kind: str) -> list[tuple[str, str]]:
    """The fenced blocks of a kind: what follows the kind on the fence, and the text."""
    pattern = rf"^```{kind}(?: (\S+))?\n(.*?)^```$"
    return re.findall(pattern, TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pattern(line: str) -> re.Pattern[str]:
    """What a printed line must look like: numbers that differ from run to run may be any."""
    text = re.escape(" ".join(line.split()))
    text = re.sub(r"^\d+\\ (?=[NEUH]\\ )", r"\\d+\\ ", text)  # the number of an event
    text = re.sub(r"event\\ \d+", r"event\\ \\d+", text)
    text = re.sub(r"Linux\\ \S+", r"Linux\\ \\S+", text)
    text = re.sub(r"^(\S+\\.scn\\ \d+)\\ \d+\\ \d+\\ (\d+)\\ \d+$", r"\1\\ \\d+\\ \\d+\\ \2\\ \\d+", text)
    return re.compile(text)


def missing(shown: list[str], printed: str) -> str | None:
    """The first line of the page that the output does not have at its place; None: it has all, in their order."""
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in shown:
        if line != "..." and not any(pattern(line).fullmatch(found) for found in lines):
            return line
    return None


def test_every_command_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in blocks("scn"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    consoles = blocks("console")
    assert len(consoles) >= 5
    for _, console in consoles:
        command, *shown = console.splitlines()
        assert command.startswith("$ shadowfuzz ")
        for left in reversed(range(TRIES)):
            status = main(shlex.split(command.removeprefix("$ shadowfuzz ")))
            printed = capsys.readouterr().out
            lost = missing(shown, printed)
            if lost is None:
                break
            assert left, f"{command}: no line {lost!r} in\n{printed}"
        assert status == ("unexplained divergence" in shown[-1])


def test_a_line_that_is_not_printed_is_found() -> None:
    printed = "a.scn   3     6    36    0     3\n    9 U    0  KVM_RUN returned MMIO\nKVM: Linux 6.1.0-57\n"
    assert missing(["a.scn 3 5 35 0 2", "...", "10 U 0 KVM_RUN returned MMIO", "KVM: Linux 6.1.0-58"], printed) is None
    assert missing(["a.scn 3 5 35 1 2"], printed) == "a.scn 3 5 35 1 2"
    assert missing(["KVM: Linux 6", "a.scn 3 5 35 0 2"], printed) == "a.scn 3 5 35 0 2"
