# SPDX-License-Identifier: Apache-2.0
"""The outcomes of the generator's rows: as stored, with the values in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.lemma.compare_levels import MAIN_PAIRS, Question, questions
from harness.lemma.row_findings import changed_rows, load_outcomes, outcome, store_outcomes
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


@pytest.mark.parametrize("pair", MAIN_PAIRS, ids=":".join)
def test_the_stored_outcomes_are_current(pair: tuple[str, str]) -> None:
    assert set(load_outcomes(LEMMAS, pair)) == {q.function for q in questions((pair,))}
    assert [changed_rows(LEMMAS, q) for q in questions((pair,)) if changed_rows(LEMMAS, q)] == []


def test_an_outcome_has_the_values() -> None:
    question = Question(("spec", "kernel"), "update_exception_gp_regs")
    assert outcome(question, {"halt": 1}) == "equal"
    assert outcome(question, {"vmid": 17}) == "vacuous"
    shown = [outcome(question, {"vbar": vbar}) for vbar in (0x8000, 0x8000, 0x9000)]
    assert shown[0] == shown[1] != shown[2]


def test_what_changed_is_told(tmp_path: Path) -> None:
    pair = ("low", "body")
    assert changed_rows(tmp_path, Question(pair, "prep_abort")) == ()
    store_outcomes(tmp_path, pair)
    path = tmp_path / "rows" / "low-body.json"
    assert changed_rows(tmp_path, Question(pair, "prep_abort")) == ()
    path.write_text(path.read_text().replace('"prep_wfx": "equal ', '"prep_wfx": "vacuous '))
    (text,) = changed_rows(tmp_path, Question(pair, "prep_wfx"))
    assert text == "prep_wfx: the plain state: was vacuous, is equal"
    path.write_text(path.read_text().replace('"prep_wfx": "vacuous ', '"prep_wfx": "'))
    assert "were stored" in changed_rows(tmp_path, Question(pair, "prep_wfx"))[0]
