# SPDX-License-Identifier: Apache-2.0
"""Mutants of the model: a changed row is noticed, the unchanged model is not."""

from __future__ import annotations

import pytest

from harness.lemma.change_detection import notice
from harness.lemma.mutants import MODULES, check, mutants, sample, summary
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


def test_the_unchanged_model_is_not_noticed() -> None:
    assert notice(LEMMAS, 20, 1) is None


@pytest.mark.parametrize(
    "module,what",
    (
        ("constants", "32 becomes 33"),  # among others, the bit of DIRTY_PC_FLAG
        ("spec", "left out: ctxt['far_el2'] = 0"),
        ("kernel", "BitAnd becomes BitOr"),
    ),
)
def test_a_changed_row_is_noticed(module: str, what: str) -> None:
    changed = [m for m in mutants() if m.module == module and m.what == what]
    assert any(check(m, LEMMAS, 20, 1).how is not None for m in changed[:3])


def test_most_mutants_of_a_sample_are_noticed() -> None:
    assert {m.module for m in mutants()} == set(MODULES)
    results = tuple(check(mutant, LEMMAS, 20, 1) for mutant in sample(16, seed=2))
    report = summary(results)
    assert report["rate"] >= 0.6, report["survivors"]
    assert report["slowest_kill_s"] < 60
