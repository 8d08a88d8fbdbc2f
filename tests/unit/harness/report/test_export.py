# SPDX-License-Identifier: Apache-2.0
"""Exported findings: the scenario parses back, and no text of a finding breaks the C program."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import stories, story_of
from fuzz.triage.export import export_finding
from harness.findings.finding import Finding, Tries
from harness.report import export
from harness.report.export import NOT_IN_C, c_program, reproducer, why_no_program
from harness.report.finding_data import Story
from harness.scenario.scenario import Step, parse
from harness.scenario.steps import STEP_KINDS, Actor
from tests.support.kept import SUBJECT, WHEN, filled

GCC = "aarch64-linux-gnu-gcc"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, ...]:
    """The stories of a campaign."""
    return stories(filled(tmp_path_factory.mktemp("campaign")))


def test_every_reproducer_parses_back(told: tuple[Story, ...]) -> None:
    texts = [(story, reproducer(story)) for story in told]
    assert sum(text is None for _, text in texts) == 1
    for story, text in texts:
        if text is not None:
            assert parse(text) == story.kept.scenario
            assert text.isprintable() or set(re.findall(r"[^ -~]", text)) == {"\n"}


def test_programs_are_for_registers_only(told: tuple[Story, ...]) -> None:
    for story in told:
        program = c_program(story, "x.c")
        relation = story.kept.finding.signature[0]
        assert (program is None) == (story.divergence is None or relation not in ("host", "restore"))
        assert program is not None or why_no_program(story)
        assert program is None or not re.search(r"@[A-Z]+@", program)


@pytest.mark.skipif(shutil.which(GCC) is None, reason="no cross compiler")
def test_a_program_compiles_without_a_warning(told: tuple[Story, ...], tmp_path: Path) -> None:
    story = next(story for story in told if c_program(story, "x.c"))
    finding = story.kept.finding
    hostile = replace(finding, subject=replace(finding.subject, kernel_release='6.1 */ #error "\n#error \\'))
    program = c_program(replace(story, kept=replace(story.kept, finding=hostile)), "x.c")
    assert program is not None
    (tmp_path / "x.c").write_text(program)
    argv = [GCC, "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "x", tmp_path / "x.c"]
    subprocess.run(argv, check=True)


def test_every_host_step_has_a_form_in_c_or_is_named() -> None:
    template = (Path(export.__file__).parent / "standalone.c").read_text()
    forms = map(str.strip, template.partition("enum what {")[2].partition("}")[0].split(","))
    host = {kind.keyword for kind in STEP_KINDS if kind.side is Actor.HOST}
    assert {kind.upper() for kind in host - NOT_IN_C} | {"GUEST"} == set(forms)
    assert host > NOT_IN_C


def test_a_forged_exit_has_no_c_program(tmp_path: Path) -> None:
    story = next(story for story in stories(filled(tmp_path)) if c_program(story, "x.c"))
    scenario = story.kept.scenario
    assert scenario is not None
    forged = replace(scenario, steps=(Step("forge", ("esr", 0)), *scenario.steps))
    other = replace(story, kept=replace(story.kept, scenario=forged))
    assert c_program(other, "x.c") is None and "forge" in why_no_program(other)


def test_an_alarm_is_handed_over_with_all_that_the_kernel_printed(tmp_path: Path) -> None:
    scenario, never = parse(b"shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n"), Tries(0, 0)
    finding = Finding("alarm", ("warn", "handle_smc"), SUBJECT, (), 0, never, never, WHEN, "WARN in handle_smc")
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    earlier = {"earlier-01.scn": "the last", "earlier-02.scn": "the first"}
    store.add(finding, scenario, {"console.txt": "WARNING\x1b\nCall trace:", "fresh_qemu": "2 3", **earlier})
    story = story_of(store, finding.id)
    paths = export_finding(story, tmp_path / "to")
    assert [path.name.removeprefix(finding.id) for path in paths] == [
        *("-earlier-02.scn", "-earlier-01.scn", ".scn", ".txt"),
    ]
    text = paths[-1].read_text()
    assert "WARN in handle_smc" in text and "2 of 3" in text and text.endswith("\nCall trace:\n")
    assert "\x1b" not in text and "--same-vm" in paths[2].read_text()
    assert "no register shows it" in why_no_program(story)
