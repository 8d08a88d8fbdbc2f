# SPDX-License-Identifier: Apache-2.0
"""What notices a changed level: nothing while it is unchanged, each detector when what it knows is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.lemma.change_detection import DETECTORS, Check, find_change, kind_of, load_goals, store_goals
from harness.lemma.compare_levels import Question
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


# the verdicts are proved again by test_repair and test_causes, each with a part of the questions
@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "verdicts"])
def test_the_unchanged_model_is_not_noticed(name: str) -> None:
    assert find_change(Check(LEMMAS, 10, 1), (name,)) is None


HELPERS = frozenset((level, f) for level in ("low", "body") for f in ("prep_abort", "sync_dirty_to_shadow"))


def test_the_verdicts_of_the_unchanged_model_are_as_stored() -> None:
    assert find_change(Check(LEMMAS, 0, 1, HELPERS), ("verdicts",)) is None


def test_another_verdict_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(LEMMAS / "answers", tmp_path / "answers")
    path = tmp_path / "answers" / "low-body.json"
    text = path.read_text()
    path.write_text(text.replace('"verdict": "exact"', '"verdict": "agrees"', 1))
    check = Check(tmp_path, 0, 1, frozenset({("body", "prep_abort")}))
    assert find_change(check, ("verdicts",)) == (
        "low:body prep_abort: MMIO abort outside MMIO space: agrees became exact"
    )
    path.write_text(text)
    assert not Check(tmp_path, 0, 1, frozenset()).may_change(Question(("low", "body"), "prep_abort"))


def test_a_narrower_hypothesis_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(LEMMAS / "answers", tmp_path / "answers")
    path = tmp_path / "answers" / "low-body.json"
    for old, new, says in (("< 4096", "< 4095", "outside the hypotheses"), ("< 4096", "< 8192", "agrees inside")):
        text = (LEMMAS / "answers" / "low-body.json").read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        assert says in (find_change(Check(tmp_path, 60, 1), ("hypotheses",)) or "")


def test_a_row_with_another_outcome_is_noticed(tmp_path: Path) -> None:
    for name in ("rows", "goals"):
        shutil.copytree(LEMMAS / name, tmp_path / name)
    path = tmp_path / "rows" / "low-body.json"
    rows = json.loads(path.read_text())
    rows["prep_abort"] = "vacuous " + rows["prep_abort"].partition(" ")[2]
    path.write_text(json.dumps(rows))
    assert "low:body prep_abort" in (find_change(Check(tmp_path, 1, 1), ("campaign",)) or "")


def test_kinds_are_stored_by_function(tmp_path: Path) -> None:
    pair, kinds = ("low", "body"), {("prep_wfx", kind_of("x at ", ("a", "b"))), ("prep_wfx", kind_of("x at ", ("b",)))}
    assert kind_of("x", ("b", "a")) == kind_of("x", ("a", "b"))
    store_goals(tmp_path, pair, kinds)
    assert load_goals(tmp_path, pair) == kinds
