# SPDX-License-Identifier: Apache-2.0
"""Which exits a step can meet, and why some are not reached."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from fuzz.corpus.exercise_counts import read_counts
from harness.coverage.reachable_exits import MEETS, NOT_REACHED, classes_of, possible
from harness.report import step_coverage
from harness.scenario.steps import KINDS, STEP_KINDS
from tests.support.paths import CORPUS

KEPT = CORPUS / "reach.json"


def test_rows_name_steps_that_there_are() -> None:
    for row in (*MEETS, *NOT_REACHED):
        assert any(fnmatchcase(keyword, row.steps) for keyword in KINDS), row.steps
        assert row.why and row.source
    assert all(classes_of(kind) for kind in STEP_KINDS if kind.keyword in ("hvc", "ldr_simd", "msr", "forge"))


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return read_counts(KEPT)


def test_what_is_not_reached_has_a_reason_with_a_source(kept: dict[str, Any]) -> None:
    """Of the steps that were there when it was measured: `shadowfuzz corpus reach --keep` measures again."""
    reach = step_coverage.Reach.from_json(kept)
    measured = {place.step for cells in reach.cells.values() for place in cells}
    assert [line for line in step_coverage.without_reason(reach) if line.split()[0] in measured] == []


def test_each_reason_is_needed(kept: dict[str, Any]) -> None:
    reach = step_coverage.Reach.from_json(kept)
    missing = {(place, target) for place, target, _, _ in reach.missing()}
    for row in NOT_REACHED:
        patterns = row.steps, row.classes, row.targets
        assert any(all(map(fnmatchcase, (*place, target), patterns)) for place, target in missing), row


def test_possible_places_are_there_once() -> None:
    places = list(possible())
    assert len(places) == len(set(places))
