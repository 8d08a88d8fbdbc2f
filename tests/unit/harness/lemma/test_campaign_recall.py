# SPDX-License-Identifier: Apache-2.0
"""What short campaigns missed of the stored clusters."""

from __future__ import annotations

from pathlib import Path

from harness.lemma.campaign_recall import compare_recall, load_trials, store_trial
from harness.lemma.clusters import load, store
from harness.lemma.compare_levels import (
    questions,
)
from harness.lemma.docs_page import render
from harness.lemma.row_findings import store_outcomes
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"

STORED = [c for path in sorted(LEMMAS.glob("*-*.json")) for c in load(path)]

LOW_BODY = ("low", "body")


def test_a_trial_says_what_was_missed(tmp_path: Path) -> None:
    mine = tuple(c for c in STORED if c.question.pair == LOW_BODY)
    store(tmp_path, LOW_BODY, mine[1:])
    report = {"seconds": 60.0, "workers": 2, "comparisons": 5}
    chosen = questions((LOW_BODY,))
    trial = compare_recall(tmp_path, LOW_BODY, 4, report, mine[:-1], chosen)
    assert (trial.listed, len(trial.missed), len(trial.unlisted)) == (len(mine) - 1, 1, 1)
    assert (
        trial.text()
        .splitlines()[0]
        .endswith(f"{len(mine) - 2} of {len(mine) - 1} listed clusters found, 1 that are not listed")
    )
    for seed in (4, 3, 4):
        store_trial(tmp_path, compare_recall(tmp_path, LOW_BODY, seed, report, mine, chosen))
    assert [row["seed"] for row in load_trials(tmp_path, "low:body")] == [3, 4]
    assert "| low:body | 3 | 60 | 2 | 5 |" in render(tmp_path)


def test_a_row_that_shows_something_else_is_not_listed(tmp_path: Path) -> None:
    mine = tuple(c for c in STORED if c.question.pair == LOW_BODY)
    store(tmp_path, LOW_BODY, mine)
    store_outcomes(tmp_path, LOW_BODY)
    report = {"seconds": 1.0, "workers": 1, "comparisons": 5}
    chosen = questions((LOW_BODY,), function="prep_wfx")
    assert compare_recall(tmp_path, LOW_BODY, 1, report, (), chosen).unlisted == ()
    path = tmp_path / "rows" / "low-body.json"
    path.write_text(path.read_text().replace('"prep_wfx": "equal', '"prep_wfx": "vacuous'))
    (text,) = compare_recall(tmp_path, LOW_BODY, 1, report, (), chosen).unlisted
    assert text == "prep_wfx: the plain state: was vacuous, is equal"
