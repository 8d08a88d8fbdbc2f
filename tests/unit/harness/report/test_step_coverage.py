# SPDX-License-Identifier: Apache-2.0
"""The page about the coverage of steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz.corpus.exercise_counts import read_counts
from harness.errors import InputError
from harness.report import step_coverage
from harness.scenario.steps import KINDS, STEP_KINDS
from tests.support.paths import CORPUS

KEPT = CORPUS / "reach.json"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return read_counts(KEPT)


def test_a_step_without_a_row_must_be_reached(kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    new = replace(KINDS["hvc"], keyword="new")
    monkeypatch.setattr(step_coverage, "STEP_KINDS", (*STEP_KINDS, new))
    reach = step_coverage.Reach.from_json(kept)
    assert any(line.startswith("new at any") for line in step_coverage.without_reason(reach))
    assert "`new`" in step_coverage.page(reach)


def test_a_place_that_is_lost_is_shown(kept: dict[str, Any]) -> None:
    document = json.loads(json.dumps(kept))
    one = document["targets"]["kvm-vhe"]
    one["places"] = [row for row in one["places"] if (row["step"], row["exit"]) != ("smc", "SMC64")]
    reach = step_coverage.Reach.from_json(document)
    before = step_coverage.without_reason(step_coverage.Reach.from_json(kept))
    assert [line for line in step_coverage.without_reason(reach) if line not in before] == ["smc at SMC64 on kvm-vhe"]
    assert "not reached on kvm-vhe" in step_coverage.page(reach)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "targets": {"a": {"places": [{}]}}}', '{"format": 7}'])
def test_a_file_that_is_something_else_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reach.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not what `shadowfuzz corpus reach --keep` writes"):
        read_counts(path)
