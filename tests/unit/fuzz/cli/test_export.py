# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings export`` as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.kept_findings import find_finding, stories
from harness.report.export import c_program
from harness.scenario.scenario import load, parse
from tests.support.kept import CRASHED, filled


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = filled(tmp_path / "c")
    told = stories(database)
    id_ = next(story.id for story in told if c_program(story, "x.c"))
    assert main(["export", id_, "--out", str(tmp_path / "c"), "--to", str(tmp_path / "to")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "to" / f"{id_}{suffix}") for suffix in (".scn", ".c")]
    assert load(tmp_path / "to" / f"{id_}.scn") == find_finding(database, id_).kept.scenario
    assert main(["export", CRASHED.id, "--out", str(tmp_path / "c"), "--to", str(tmp_path / "to")]) == 0
    printed = capsys.readouterr()
    assert "no C program" in printed.err
    suffixes = ("-earlier-02.scn", "-earlier-01.scn", ".scn", ".txt")
    assert printed.out.split() == [str(tmp_path / "to" / f"{CRASHED.id}{suffix}") for suffix in suffixes]
    text = (tmp_path / "to" / f"{CRASHED.id}.scn").read_text()
    assert parse(text) == find_finding(database, CRASHED.id).kept.scenario and "all 3 files in their order" in text
    told_of = (tmp_path / "to" / f"{CRASHED.id}.txt").read_text()
    assert "HCR_EL2" in told_of and "Kernel panic" in told_of and "\x1b" not in told_of
    bare = next(story.id for story in told if story.kept.scenario is None)
    assert main(["export", bare, "--out", str(tmp_path / "c"), "--to", str(tmp_path / "to")]) == 2


def test_a_mail_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, campaign = filled(tmp_path / "c"), ["--campaign", str(tmp_path / "c")]
    id_ = next(story.id for story in stories(database) if story.divergence)
    assert main(["findings", "export", id_, "--mail", *campaign]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("To: kvmarm@") and f"{tmp_path}/c/findings/{id_}" in printed.replace(" \\\n", "")
    assert main(["findings", "export", id_, "--mail", *campaign, "--out", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / f"{id_}.mail.txt").read_text() == printed
    assert main(["findings", "export", CRASHED.id, "--mail", *campaign]) == 0
    assert "the host keeps running" in capsys.readouterr().out


def test_a_kept_finding_needs_no_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["--campaign", str(tmp_path / "none")]
    assert main(["findings", "export", "mmio-load-loses-sign", "--mail", *nowhere]) == 0
    assert "mmio_load_loses_sign.c" in capsys.readouterr().out
    to = ["--out", str(tmp_path / "to")]
    assert main(["findings", "export", "mmio-load-loses-sign", "--selftest", *to, *nowhere, "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert "TEST_ASSERT(" in Path(file).read_text()
    assert main(["export", "mmio-load-loses-sign", "--selftest", "--to", str(tmp_path / "old"), *nowhere]) == 0
    assert (tmp_path / "old" / "mmio_load_loses_sign.c").is_file()
    capsys.readouterr()
    assert main(["findings", "export", "forged-cp15-read-bugs", "--selftest", *to, *nowhere]) == 2
    assert "step 2, `forge esr 0x12009be5`" in capsys.readouterr().err
    assert main(["findings", "export", "mmio-load-loses-sign", *nowhere]) == 2
    assert main(["findings", "export", "mmio-load-loses-sign", "--mail", "--selftest"]) == 2
