# SPDX-License-Identifier: Apache-2.0
"""Questions and answers of cells as text: they come back as they were, and anything else is one clear error."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from fuzz.cluster.cell_job import CellResult, answer_text, cell_task, read_answer, read_question
from fuzz.triage.matrix import DIVERGES, Cell, MatrixWork, make_case
from harness.errors import InputError
from tests.support.fake_worker import SCENARIO

CASE = make_case("case", SCENARIO)
WORK = MatrixWork("kvm-nvhe@6.1", (CASE,), 3, deterministic=True)
TASK = cell_task(WORK, CASE)
CELL = Cell(WORK.target, CASE.name, CASE.key, DIVERGES, ("host.pc",), 1, 3, unchecked={"no registers": 2})
RESULT = CellResult(TASK.id, "diverges", cell=CELL)


def test_they_come_back_as_they_were() -> None:
    assert read_question(TASK.question) == WORK and TASK.target == WORK.target
    assert read_answer(TASK, answer_text(RESULT), "n") == RESULT
    cannot = CellResult(TASK.id, "no QEMU", unable=True)
    assert read_answer(TASK, answer_text(cannot), "n") == cannot


def changed(**how: Any) -> str:
    return answer_text(replace(RESULT, cell=replace(CELL, **how)))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, " " * 200_000, json.dumps({**asdict(RESULT), "again": 1})),
        *(changed(target="other"), changed(key="00"), changed(verdict="good"), changed(seen=4), changed(runs=10**6)),
        *(changed(findings=(1,)), changed(findings=("x",) * 999), changed(unchecked={"x": "y"}), changed(why=None)),
        answer_text(replace(RESULT, id="kvm-vhe case")),
        answer_text(replace(RESULT, cell=None)),
        answer_text(replace(RESULT, again=True)),
    ],
)
def test_anything_else_is_one_error(text: str) -> None:
    with pytest.raises(InputError, match="n: no answer of a node: ") as error:
        read_answer(TASK, text, "n")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, TASK.question.replace("shadowfuzz", "shadow")])
def test_a_question_is_checked(text: str) -> None:
    with pytest.raises(InputError):
        read_question(text)


def test_what_is_shown_is_one_line() -> None:
    shown = read_answer(TASK, changed(why="a\x1b\nb", findings=("x\ny",)), "n").cell
    assert shown is not None and shown.why == "a  b" and shown.findings == ("x y",)
