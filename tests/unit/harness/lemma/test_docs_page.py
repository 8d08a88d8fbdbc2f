# SPDX-License-Identifier: Apache-2.0
"""The page of the clusters."""

from __future__ import annotations

from harness.lemma.docs_page import render
from tests.support.paths import CORPUS, ROOT

LEMMAS = CORPUS / "lemmas"


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "lemmas.md").read_text() == render(LEMMAS)
