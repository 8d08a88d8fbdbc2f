# SPDX-License-Identifier: Apache-2.0
"""Mutants that nothing notices, and why."""

from __future__ import annotations

import json

from harness.lemma.mutants import mutants
from harness.lemma.surviving_mutants import REASONS
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


def test_every_survivor_of_the_mutation_test_is_reviewed() -> None:
    assert set(json.loads((LEMMAS / "mutants.json").read_text())["survivors"]) <= set(REASONS)


def test_every_review_is_of_a_mutant_that_there_is() -> None:
    assert set(REASONS) <= {m.name for m in mutants()}
