# SPDX-License-Identifier: Apache-2.0
"""The page of the levels: current, and with a row for each stored path."""

from __future__ import annotations

import json
from pathlib import Path

from harness.lemma.levels_page import render_levels
from tests.support.paths import CORPUS, ROOT

LEMMAS = CORPUS / "lemmas"


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "lemma-levels.md").read_text() == render_levels(LEMMAS)


def test_a_row_shows_each_level_once(tmp_path: Path) -> None:
    rows = json.loads((LEMMAS / "paths.json").read_text())
    mine = [r for r in rows if r[0] == "prep_wfx" and r[2] in ({}, {"ctxt.dirty": 4})]
    (tmp_path / "paths.json").write_text(json.dumps(mine))
    page = render_levels(tmp_path)
    assert "| the plain state | `ctxt.dirty` 0x100000000 | as spec | as spec | as spec |" in page
    assert "| `ctxt.dirty` = 0x4 | `ctxt.dirty` 0x100000000 | as spec | as spec | `ctxt.dirty` 0x100000004 |" in page
