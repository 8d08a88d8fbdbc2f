# SPDX-License-Identifier: Apache-2.0
"""The tutorial and the README on real targets: files, commands in their order, and their output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fuzz.cli.main import main
from tests.support.paths import ROOT

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
TRIES = 4
"""Maximum number of runs until one has no timer interrupt between the events that the page shows."""

pytestmark = pytest.mark.timeout(600)


def blocks(kind: str) -> list[tuple[str, str]]:
    """Yield the fenced blocks of a kind: the words after the kind on the fence, and the text."""
    pattern = rf"^```{kind}(?: (\S+))?\n(.*?)^```$"
    return re.findall(pattern, TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pattern(line: str) -> re.Pattern[str]:
    """Return a pattern for a printed line: numbers that differ between runs are arbitrary, ``...`` is any text."""
    text = re.escape(" ".join(line.split()))
    text = re.sub(r"^\d+\\ (?=[NEUH]\\ )", r"\\d+\\ ", text)  # the number of an event
    text = re.sub(r"event\\ \d+", r"event\\ \\d+", text)
    text = re.sub(r"Linux\\ \S+", r"Linux\\ \\S+", text)
    text = re.sub(r"^(\S+\\.scn\\ \d+)\\ \d+\\ \d+\\ (\d+)\\ \d+$", r"\1\\ \\d+\\ \\d+\\ \2\\ \\d+", text)
    return re.compile(rf"(?<!\S){text.replace(re.escape('...'), '.*?')}(?!\S)")


def missing(shown: list[str], printed: str) -> str | None:
    """Return the first line of a page that the output lacks at its place; None: it has all, in their order."""
    words, at = " ".join(printed.split()), 0
    for line in shown:
        if line.strip() == "...":
            continue
        found = pattern(line).search(words, at)
        if found is None:
            return line
        at = found.end()
    return None


def run_as_shown(console: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a console's command and compare its output and exit status with the lines below it."""
    command, *shown = console.splitlines()
    assert command.startswith("$ shadowfuzz ")
    for left in reversed(range(TRIES)):
        status = main(shlex.split(command.removeprefix("$ shadowfuzz ")))
        printed = capsys.readouterr().out
        lost = missing(shown, printed)
        if lost is None:
            break
        assert left, f"{command}: no line {lost!r} in\n{printed}"
    assert status == any("divergence" in line for line in shown)


def test_every_command_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in blocks("scn"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    consoles = blocks("console")
    assert len(consoles) >= 5
    for _, console in consoles:
        run_as_shown(console, capsys)


def test_the_readme_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (console,) = re.findall(r"^    (\$ shadowfuzz .*\n(?:    .*\n)+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    run_as_shown(console, capsys)


def test_a_line_that_is_not_printed_is_found() -> None:
    printed = "a.scn   3     6    36    0     3\n    9 U    0  KVM_RUN returned MMIO\nKVM: Linux 6.1.0-57\n a b\n c\n"
    assert missing(["a.scn 3 5 35 0 2", "...", "10 U 0 KVM_RUN returned MMIO", "KVM: Linux 6.1.0-58"], printed) is None
    assert missing(["a ... c"], printed) is None
    assert missing(["a.scn 3 5 35 1 2"], printed) == "a.scn 3 5 35 1 2"
    assert missing(["KVM: Linux 6", "a.scn 3 5 35 0 2"], printed) == "a.scn 3 5 35 0 2"
    assert missing(["KVM_RUN returned MM"], printed) == "KVM_RUN returned MM"
