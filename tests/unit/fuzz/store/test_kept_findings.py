# SPDX-License-Identifier: Apache-2.0
"""Findings of custom targets are read with their stored target; one bad row does not affect the others."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.database import FILE, Database
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import find_finding, read_findings, stories
from harness.findings.finding import Subject
from harness.report.finding_data import Story, replay_command
from harness.vm.config import load_config
from harness.vm.config_text import OTHER_TARGET, TARGET, format_config
from tests.support.kept import SUBJECT, filled

OWN = "/gone/my.toml"


def of_another_target(root: Path, subject: Subject, *, stored: bool) -> Story:
    """Store a finding of the recorded trace as one of another target; return its story."""
    database = filled(root)
    like = next(story for story in stories(database) if story.ran is not None and story.kept.confirmed)
    finding = replace(like.kept.finding, subject=subject)
    store = Store(database, FINDINGS)
    config = replace(load_config(SUBJECT.target), name=subject.target)
    described = {TARGET: format_config(config)} if stored else {}
    assert store.add(finding, like.kept.scenario, {**store.texts(like.id), **described})
    return find_finding(database, finding.id)


@pytest.mark.parametrize("name", ["my", f"kvm-nvhe@{OWN}"])
def test_a_target_file_that_was_deleted(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = of_another_target(tmp_path, replace(SUBJECT, target=name), stored=True)
    assert story.ran is not None, "its trace was checked"
    assert story.kept.config is not None and story.kept.config.cpu == load_config(SUBJECT.target).cpu
    out = str(tmp_path)
    for argv in (
        ["findings", "--out", out],
        ["findings", "show", story.id, "--out", out],
        ["report", "--campaign", out, "--out", str(tmp_path / "r.html")],
        ["export", story.id, "--out", out, "--to", str(tmp_path / "handover")],
    ):
        assert main(argv) in (0, 1), argv
        assert "cannot be read" not in capsys.readouterr().err
    Store(Database(f"sqlite:///{tmp_path / FILE}"), FINDINGS).export(tmp_path / "findings")
    copy = tmp_path / "findings" / story.id / TARGET
    command = replay_command(story.kept, out)
    if name == "my":
        assert f"--target {copy} " in command and load_config(str(copy)).cpu == load_config(SUBJECT.target).cpu
    else:
        assert f"--target {name} " in command


def test_both_targets_of_a_comparison_are_stored(tmp_path: Path) -> None:
    database = filled(tmp_path)
    store, config = Store(database, FINDINGS), load_config(SUBJECT.target)
    finding = replace(
        next(story for story in stories(database) if story.kept.scenario is not None).kept.finding,
        kind="divergence",
        subject=replace(SUBJECT, target="one"),
        other=replace(SUBJECT, target="other"),
    )
    described = {TARGET: replace(config, name="one"), OTHER_TARGET: replace(config, name="other")}
    store.add(finding, None, {name: format_config(each) for name, each in described.items()})
    place = tmp_path / "findings" / finding.id
    command = replay_command(find_finding(database, finding.id).kept, str(tmp_path))
    assert command == f"shadowfuzz kernels against {place / TARGET} {place / OTHER_TARGET} {place / 'scenario.scn'}"


def test_a_finding_of_an_unknown_target_is_shown_without_a_check(tmp_path: Path) -> None:
    story = of_another_target(tmp_path, replace(SUBJECT, target="my"), stored=False)
    assert story.ran is None and "its target was not stored" in story.verdict.why
    assert story.kept.scenario is not None and not read_findings(Database(f"sqlite:///{tmp_path / FILE}")).unreadable


def test_a_stored_cpu_that_is_unknown(tmp_path: Path) -> None:
    story = of_another_target(tmp_path, replace(SUBJECT, target="my"), stored=True)
    database = Database(f"sqlite:///{tmp_path / FILE}")
    strange = replace(load_config(SUBJECT.target), name="my", cpu="cortex-z1")
    Store(database, FINDINGS).annotate(story.id, TARGET, format_config(strange))
    assert find_finding(database, story.id).ran is None and not read_findings(database).unreadable


def test_a_simpler_scenario_and_triage_keep_the_target(tmp_path: Path) -> None:
    story = of_another_target(tmp_path, replace(SUBJECT, target="my"), stored=True)
    store = Store(Database(f"sqlite:///{tmp_path / FILE}"), FINDINGS)
    assert story.kept.scenario is not None
    store.revise(story.kept.finding, story.kept.scenario, {"console.txt": "x"})
    assert set(store.texts(story.id)) == {TARGET, "console.txt"}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("fresh_qemu", "5 2", "5 of 2 runs, which is impossible"),
        ("fresh_qemu", "many", "expected two numbers"),
        ("releases.json", '[{"config": "x", "version": "1", "answer": "shows it", "seen": 4, "runs": 1}]', "4 of 1"),
        ("target.toml", "cpu = 5", "not a target"),
        ("trace.json", "{}", "key .dropped. is missing"),
    ],
)
def test_an_unreadable_text_is_reported_and_the_finding_is_shown(
    name: str, text: str, why: str, tmp_path: Path
) -> None:
    database = filled(tmp_path)
    first = stories(database)[0].id
    Store(database, FINDINGS).annotate(first, name, text)
    found = read_findings(database)
    assert first in {story.id for story in found.stories}
    (row,) = found.unreadable
    assert row.where == f"texts findings {first} {name}" and re.search(why, row.why)


def test_one_damaged_row_is_reported_and_the_others_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = filled(tmp_path)
    one, *others = [story.id for story in stories(database) if story.kept.confirmed]
    database.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute(
            "UPDATE findings SET document = replace(document, '\"hits\": ', '\"hits\": 7') WHERE id = ?", (one,)
        )
    connection.close()
    assert main(["findings", "--clusters", "--out", str(tmp_path)]) == 1
    out, said = capsys.readouterr()
    assert all(id_ in out for id_ in others) and one not in out
    assert said.splitlines()[0] == "findings: 1 row of the database cannot be read, the others are shown:"
    assert one in said and "which is impossible" in said
    assert main(["findings", "show", one, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
