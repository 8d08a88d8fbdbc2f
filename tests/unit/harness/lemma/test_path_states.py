# SPDX-License-Identifier: Apache-2.0
"""Stored states, one for every path through a function."""

from __future__ import annotations

from harness.lemma.path_states import changed_outcome, load_paths
from harness.model import FUNCTIONS, LEVEL_NAMES
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


def test_every_stored_path_ends_as_it_did() -> None:
    rows = load_paths(LEMMAS / "paths.json")
    assert {row.function for row in rows} == {f.name for f in FUNCTIONS}
    assert {level for row in rows for level, _ in row.outcomes} == set(LEVEL_NAMES)
    assert [text for row in rows if (text := changed_outcome(row)) is not None] == []
