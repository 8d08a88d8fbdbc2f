# SPDX-License-Identifier: Apache-2.0
"""Checks of recordings of KVM's selftests, and of a program that shows an erratum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.triage.check_recording import check_file, write_excerpt
from harness.arch.exceptions import PC
from harness.report.recording import text
from harness.report.terminal import Style
from harness.trace.events import EXIT, Switch
from harness.trace.recording import Reader, create
from harness.vm.config import PROJECT

SELFTESTS = tuple(sorted((PROJECT / "tests" / "golden" / "selftests").glob("*.trace")))
LEVELS = ("spec", "low", "body", "kernel")
BANKED = "reset-keeps-banked-registers"


def quiet(line: str) -> None:
    """Ignore a line of progress."""


@pytest.mark.parametrize("path", SELFTESTS, ids=lambda path: path.stem)
def test_selftests_of_kvm_show_nothing_new(path: Path) -> None:
    report = check_file(path, LEVELS, quiet)
    assert not report.new
    assert {name for names in report.like.values() for name in names} == ({BANKED} if "vpmu" in path.stem else set())
    for tally in report.tallies.values():
        assert tally.known["ram-below-window-class"] >= 10 or "vpmu" in path.stem
        assert tally.rounds == tally.relations["save"] >= tally.exits.total()
    assert report.tallies["kernel"].relations["restore"] == report.tally.rounds >= report.tally.relations["restore"]


def lose_an_instruction(path: Path, out: Path) -> None:
    """Write a recording in which KVM skips the first access to memory below 1 GiB."""
    reader = Reader(path)
    with create(out, reader.head) as writer:
        before: Switch | None = None
        done = False
        for recorded in reader:
            event = recorded.event
            if isinstance(event, Switch):
                touched = before is not None and before.kind == EXIT and before.esr >> 26 == 0x24 and not event.pending
                if touched and not done:
                    values = list(event.values)
                    values[PC] += 4
                    recorded, done = recorded._replace(event=event._replace(values=tuple(values))), True
                before = event
            writer.add(recorded)
        assert reader.end is not None and done
        writer.end(reader.end.status, reader.end.code, 0, 0)


def test_a_skipped_access_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = next(path for path in SELFTESTS if path.stem == "psci_test")
    out, found = tmp_path / "lost.trace", tmp_path / "found.trace"
    lose_an_instruction(source, out)
    report = check_file(out, ("spec", "kernel"), quiet)
    assert ("host", "pc", "DABT_LOW") in {key[:3] for key in report.new}
    shown = text(report, Style(width=100))
    assert "unexplained 1x host.pc/DABT_LOW (another cause)\n" in shown
    assert "levels spec and kernel" in shown
    write_excerpt(report, found)
    assert set(check_file(found, ("spec", "kernel"), quiet).new) == set(report.new)
    assert main(["recording", "check", str(out), "--accept-kept"]) == 1
    capsys.readouterr()


def test_kept_findings_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    path = next(path for path in SELFTESTS if "vpmu" in path.stem)
    assert main(["recording", "check", str(path), "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)["recordings"]
    assert {row["signature"] for row in report["unexplained"]} == {
        f"host.{name}_el1/RESET ({BANKED})" for name in ("elr", "spsr")
    }
    assert all(row["like"] == [BANKED] and row["levels"] == ["spec", "kernel"] for row in report["unexplained"])
    assert main(["recording", "check", str(path), "--accept-kept"]) == 0
    out = capsys.readouterr().out
    assert f"  kept        1x host.elr_el1/RESET ({BANKED})\n" in out
    assert "2 unexplained divergences in 2 clusters, none of them new, levels spec and kernel" in out
    assert "  model       kernel: save " in out
