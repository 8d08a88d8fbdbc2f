# SPDX-License-Identifier: Apache-2.0
"""What a cluster means, in words."""

from __future__ import annotations

from harness.lemma.cluster_meaning import MEANINGS, meaning
from harness.lemma.clusters import load
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"

STORED = [c for path in sorted(LEMMAS.glob("*-*.json")) for c in load(path)]


def test_every_cluster_has_words_and_every_row_is_used() -> None:
    assert all(meaning(c) for c in STORED)
    used = {next((m for m in MEANINGS if m.fits(c)), None) for c in STORED}
    assert [m.word for m in MEANINGS if m not in used] == []
