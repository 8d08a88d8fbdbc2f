# SPDX-License-Identifier: Apache-2.0
"""The reasons for equivalent mutants: one for each that the stored run counts, and each of a mutant that exists."""

from __future__ import annotations

import json

from harness.lemma.equivalent_mutants import REASONS
from harness.lemma.mutants import mutants
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


def test_every_equivalent_mutant_of_the_stored_run_has_a_reason() -> None:
    report = json.loads((LEMMAS / "mutants.json").read_text())
    assert {name for name, _ in report["equivalent"]} <= set(REASONS)


def test_every_reason_is_of_a_mutant_that_exists() -> None:
    assert set(REASONS) <= {m.name for m in mutants()}
