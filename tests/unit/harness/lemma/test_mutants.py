# SPDX-License-Identifier: Apache-2.0
"""Mutants of the model: a changed row is noticed, the unchanged model is not."""

from __future__ import annotations

import pytest

from harness.lemma.mutants import MODULES, UNIT_TESTS, Trial, check, mutants, sample, summary
from tests.support.paths import CORPUS, ROOT

TESTS = ROOT / "tests" / "unit" / "harness" / "model"


def trial(*detectors: str) -> Trial:
    return Trial(CORPUS / "lemmas", 5, 1, detectors, TESTS)


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
    assert any(check(m, trial("campaign")).how is not None for m in changed[:3])


def test_unit_tests_are_a_detector() -> None:
    changed = next(m for m in mutants() if m.module == "locks" and m.what == "left out: d.lock[lock] = True")
    result = check(changed, trial(UNIT_TESTS))
    assert [name for name, how in result.by if how] == [UNIT_TESTS]
    assert "failed" in (result.how or "")


def test_most_mutants_of_a_sample_are_noticed() -> None:
    assert {m.module for m in mutants()} == set(MODULES)
    results = tuple(check(mutant, trial("stored paths", "campaign")) for mutant in sample(8, seed=2))
    report = summary(results)
    assert report["rate"] >= 0.7, report["survivors"]
    assert report["detectors"]["campaign"][1] == 8
    assert set(report["missed"]) == {"stored paths", "campaign"}
    assert report["page"] == report["detectors"]["campaign"][0]
