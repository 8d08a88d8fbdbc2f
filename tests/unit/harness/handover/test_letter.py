# SPDX-License-Identifier: Apache-2.0
"""Letters: sources that a reader can open, measured releases, and a finding without an erratum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.store.kept_findings import kept_rows, stories
from harness.findings.release_history import SHOWS, SHOWS_NOT, ReleaseResult
from harness.handover.letter import TARGETS, of_erratum, of_story, outside_sources, subject_of
from harness.handover.words import mode_of, without_targets
from harness.vm.config import list_configs
from tests.support.kept import filled

ROWS = kept_rows()
NAMED = {row.id: row for row in ROWS}


def test_sources_are_not_the_projects_own_pages() -> None:
    for row in ROWS:
        sources, measured = outside_sources(row.source, NAMED)
        assert sources, row.id
        assert not [text for text in (*sources, *measured) if "docs/" in text or text.startswith("as ")], row.id
    assert outside_sources("as mmio-load-loses-sign; X", NAMED)[0][0] == "Arm ARM C6.2 LDRSB"


def test_releases_name_first_and_last_bad_and_the_good_ones() -> None:
    row = NAMED["mmio-load-loses-sign"]
    text = "\n".join(of_erratum(row, ROWS, None, ()).releases)
    assert "first bad 6.1.164, the oldest tried; last bad 7.1.13" in text
    assert "good: 7.3 (nVHE), 7.3 (protected mode)" in text
    assert "not from 7.2 on" in text


def test_a_bisection_is_in_the_letter(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = stories(filled(tmp_path_factory.mktemp("campaign")))
    story = next(story for story in found if story.divergence is not None)
    asked = (ReleaseResult("kvm-nvhe", "6.1.164-1", SHOWS, 2, 2), ReleaseResult("kvm-nvhe", "7.2.6-1", SHOWS_NOT, 0, 2))
    new = replace(story, like=(), kept=replace(story.kept, history=asked))
    letter = of_story(new, ROWS, None, ())
    assert any("6.1.164-1 shows it" in line for line in letter.releases)
    assert any("7.2.6-1 does not show it" in line for line in letter.releases)
    assert any(line.startswith("This violates a ") for line in letter.why)
    assert any(line.startswith("Required: ") for line in letter.why)
    assert "not tested" in of_story(replace(story, like=()), ROWS, None, ()).releases[-1]


def test_a_finding_with_an_erratum_has_the_letter_of_the_erratum(tmp_path_factory: pytest.TempPathFactory) -> None:
    story = stories(filled(tmp_path_factory.mktemp("campaign")))[0]
    letter = of_story(replace(story, like=("mmio-load-loses-sign",)), ROWS, None, ())
    assert letter.wrong == (NAMED["mmio-load-loses-sign"].summary,)
    assert letter.subject == "MMIO load loses sign" == subject_of("mmio-load-loses-sign")


def test_targets_are_releases_and_modes() -> None:
    assert without_targets("on kvm-nvhe and kvm-7.3-protected") == "on 6.1 (nVHE) and 7.3 (protected mode)"
    assert without_targets("kvm-protected@7.2.13-1") == "7.2.13 (protected mode)"
    assert mode_of("kvm-6.12-nvhe@6.12.43") == "nVHE" and mode_of("mine") == "mine"


def test_a_letter_names_every_target() -> None:
    assert sorted(TARGETS) == sorted(list_configs())
