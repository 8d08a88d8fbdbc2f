# SPDX-License-Identifier: Apache-2.0
"""Mutants of the model: a changed row is noticed, and an equivalent one is proved to be one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.lemma.mutants import MODULES, UNIT_TESTS, Result, Trial, mutants, sample, summary, try_mutant
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
    assert any(try_mutant(m, trial("campaign")).how is not None for m in changed[:3])


def test_unit_tests_are_a_detector() -> None:
    changed = next(m for m in mutants() if m.module == "locks" and m.what == "left out: d.lock[lock] = True")
    result = try_mutant(changed, trial(UNIT_TESTS))
    assert [name for name, how in result.by if how] == [UNIT_TESTS]
    assert "failed" in (result.how or "")


def test_most_mutants_of_a_sample_are_noticed() -> None:
    assert {m.module for m in mutants()} == set(MODULES)
    results = tuple(try_mutant(mutant, trial("stored paths", "campaign")) for mutant in sample(8, seed=2))
    report = summary(results)
    assert report["rate"] >= 0.7, report["survivors"]
    assert report["detectors"]["campaign"][1] == 8
    assert [len(row) for row in report["rows"]] == [3] * 8
    assert report["answers"] == report["detectors"]["campaign"][0]
    assert report["page"] == report["killed"]


def test_an_equivalent_mutant_is_proved_and_does_not_count() -> None:
    same = next(m for m in mutants() if m.name == "low.py:199: 3 becomes 4")
    other = next(m for m in mutants() if m.name == "kernel.py:130: Add becomes Sub")
    asked = replace(trial("stored clusters"), prove=True)
    results = tuple(try_mutant(m, asked) for m in (same, other))
    assert [r.equivalent for r in results] == [True, False]
    report = summary(results)
    assert [name for name, _ in report["equivalent"]] == [same.name]
    assert (report["detectors"]["stored clusters"], report["survivors"]) == ([0, 1], [other.name])
    assert report["rows"][1][2].startswith("kernel reset_sys_regs")


def test_what_a_stored_path_shows_is_not_called_equivalent() -> None:
    by = (("unit tests", "a table"), ("stored paths", None))
    result = Result(mutants()[0], by, 0.0, ("", 1))
    assert result.equivalent
    assert not replace(result, by=(("stored paths", "another digest"),)).equivalent
    assert not replace(result, proof=("the prover was stopped", 0)).equivalent
    assert not replace(result, proof=None).equivalent
