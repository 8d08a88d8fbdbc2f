# SPDX-License-Identifier: Apache-2.0
"""Mails: every kept finding and every campaign's finding has a well-formed one; one is compared as a whole.

``UPDATE_GOLDEN=1 pytest tests/unit/harness/handover`` rewrites the golden files; read the diff before a commit.
"""

from __future__ import annotations

import os
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.store.kept_findings import kept_rows, stories
from fuzz.triage.handover import kept_handover, mail, story_handover
from harness.findings.regressions import Regression
from harness.handover.letter import Command, Letter
from harness.handover.mail import COLUMNS, LIST, NOTHING, SECTIONS, mail_text
from tests.support.kept import filled
from tests.support.paths import GOLDEN, ROOT

ROWS = kept_rows()
OF_OURS = re.compile(
    r"\b(clusters?|signatures?|helper|level spec|kvm-(nvhe|vhe|protected)|docs/|kernels\.md)\b|host\.\w"
)
"""Words of this project, which a maintainer of KVM does not know."""


def bodies(text: str) -> dict[str, list[str]]:
    """Return the lines of each section of a mail, by its title."""
    lines = text.splitlines()
    found: dict[str, list[str]] = {}
    for line, under in zip(lines, [*lines[1:], ""], strict=True):
        if line and under == "-" * len(line):
            found[line] = []
        elif found and not (line and set(line) == {"-"}):
            found[list(found)[-1]].append(line)
    return found


def commands(lines: list[str]) -> list[str]:
    """Return the commands of a section, as a shell reads them."""
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.strip() for line in joined.split("\n") if line.startswith(" ")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_mail_of_every_kept_finding_is_well_formed(row: Regression) -> None:
    handover = kept_handover(row.id)
    assert handover is not None
    text = mail(handover, "")
    head, _, rest = text.partition("\n\n")
    assert head.startswith(f"To: {LIST}\nSubject: [BUG] KVM: arm64: ") and rest
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert text.replace("\n", "").isprintable()
    found = bodies(text)
    assert tuple(found) == SECTIONS
    for title, lines in found.items():
        assert any(lines) and NOTHING not in lines, title
    prose = [line for title, lines in found.items() if title != "How to see it" for line in lines]
    assert not [line for line in prose if OF_OURS.search(line)]
    assert "equired" in "\n".join(found["Required and observed"]) and "observed" in "\n".join(
        found["Required and observed"]
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_its_commands_name_existing_files(row: Regression) -> None:
    handover = kept_handover(row.id)
    assert handover is not None
    lines = commands(bodies(mail(handover, ""))["How to see it"])
    assert any(line.startswith("shadowfuzz ") for line in lines)
    for line in lines:
        for word in shlex.split(line):
            if word.startswith("corpus/"):
                assert (ROOT / word).is_file(), word


def test_a_campaigns_findings_have_mails_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = stories(filled(tmp_path_factory.mktemp("campaign")))
    assert {story.kept.finding.kind for story in found} >= {"divergence", "crash"}
    for story in found:
        text = mail(story_handover(story), "out/campaign")
        assert tuple(bodies(text)) == SECTIONS
        assert max(map(len, text.splitlines())) <= COLUMNS
        assert text.replace("\n", "").isprintable()


def test_a_mail_as_a_whole() -> None:
    handover = kept_handover("mmio-load-loses-sign")
    assert handover is not None
    golden, text = GOLDEN / "handover" / "mmio-load-loses-sign.mail.txt", mail(handover, "")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


WORDS = st.lists(st.from_regex(r"[a-z0-9./=:@%+-]{1,60}", fullmatch=True), min_size=1, max_size=12)


@given(WORDS)
def test_a_command_is_the_same_for_a_shell(words: list[str]) -> None:
    letter = Letter("s", ("w",), ("y",), ("r",), ("x",), ("v",), (Command("to see", (" ".join(words),)),))
    text = mail_text(letter)
    (line,) = commands(bodies(text)["How to see it"])
    assert shlex.split(line) == words
    assert max(map(len, text.splitlines())) <= COLUMNS


@given(st.text(max_size=400))
def test_hostile_text_stays_in_its_section(text: str) -> None:
    rows = (text,)
    found = mail_text(Letter(text, rows, rows, rows, rows, rows, (Command(text, ("true",)),)))
    assert max(map(len, found.splitlines())) <= COLUMNS
    assert found.replace("\n", "").isprintable() and [t for t in bodies(found) if t in SECTIONS] == list(SECTIONS)
