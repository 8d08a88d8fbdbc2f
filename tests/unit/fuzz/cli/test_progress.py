# SPDX-License-Identifier: Apache-2.0
"""Progress goes to stderr, with a command's name and the remaining time; a bar is shown on terminals only."""

from __future__ import annotations

import sys

import click
import pytest

from fuzz.cli.progress import bar, progress_printer, say

Capture = pytest.CaptureFixture[str]


def test_lines_are_on_stderr(capsys: Capture) -> None:
    say("one")
    progress_printer("shadowfuzz")("two")
    assert capsys.readouterr() == ("", "one\nshadowfuzz: two\n")


def test_the_remaining_time(capsys: Capture) -> None:
    times = iter((100.0, 130.0, 500.0, 560.0))
    show = progress_printer("triage", lambda: next(times))
    for line in ("1 of 5: a", "2 of 5: b", "5 of 5: c", "2 findings of 3", "1 of 3: d", "2 of 3: e"):
        show(line)
    assert capsys.readouterr().err.splitlines() == [
        "triage: 1 of 5: a",
        "triage: 2 of 5: b (1:30 left)",
        "triage: 5 of 5: c",
        "triage: 2 findings of 3",
        "triage: 1 of 3: d",
        "triage: 2 of 3: e (1:00 left)",
    ]


def test_another_work_begins_anew(capsys: Capture) -> None:
    """Its numbers may go on from those of the work before, and a total may become lower."""
    show = progress_printer("setup", iter(range(0, 1000, 10)).__next__)
    for line in ("1 of 9 steps", "3 of 7 steps", "5 of 40 scenarios", "6 of 40 scenarios", "5 of 40 scenarios"):
        show(line)
    assert capsys.readouterr().err.splitlines() == [
        "setup: 1 of 9 steps",
        "setup: 3 of 7 steps (0:20 left)",
        "setup: 5 of 40 scenarios",
        "setup: 6 of 40 scenarios (5:40 left)",
        "setup: 5 of 40 scenarios",
    ]


def test_a_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with bar("replay", 2, shown=True) as done:
        done()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    for shown in (True, False):
        with bar("replay", 2, shown=shown) as done:
            done()
            done()
        err = click.unstyle(capsys.readouterr().err)
        assert ("2/2" in err) is shown
        assert all(len(part) <= 80 for line in err.splitlines() for part in line.split("\r"))
