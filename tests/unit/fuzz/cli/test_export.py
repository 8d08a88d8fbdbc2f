# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings export`` as a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.kept_findings import find, stories
from harness.report.export import c_program
from harness.scenario.scenario import load, parse
from tests.support.kept import CRASHED, filled


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = filled(tmp_path / "c")
    told = stories(database)
    id_ = next(story.id for story in told if c_program(story, "x.c"))
    assert main(["export", id_, "--out", str(tmp_path / "c"), "--to", str(tmp_path / "to")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "to" / f"{id_}{suffix}") for suffix in (".scn", ".c")]
    assert load(tmp_path / "to" / f"{id_}.scn") == find(database, id_).kept.scenario
    assert main(["export", CRASHED.id, "--out", str(tmp_path / "c"), "--to", str(tmp_path / "to")]) == 0
    printed = capsys.readouterr()
    assert "no C program" in printed.err
    suffixes = ("-earlier-02.scn", "-earlier-01.scn", ".scn", ".txt")
    assert printed.out.split() == [str(tmp_path / "to" / f"{CRASHED.id}{suffix}") for suffix in suffixes]
    text = (tmp_path / "to" / f"{CRASHED.id}.scn").read_text()
    assert parse(text) == find(database, CRASHED.id).kept.scenario and "all 3 files in their order" in text
    told_of = (tmp_path / "to" / f"{CRASHED.id}.txt").read_text()
    assert "HCR_EL2" in told_of and "Kernel panic" in told_of and "\x1b" not in told_of
    bare = next(story.id for story in told if story.kept.scenario is None)
    assert main(["export", bare, "--out", str(tmp_path / "c"), "--to", str(tmp_path / "to")]) == 2
