# SPDX-License-Identifier: Apache-2.0
"""Questions and answers of cells as text: they come back as they were, and anything else is one clear error."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from fuzz.cluster.cell_job import CellResult, answer_text, cell_tasks, read_answer, read_question
from fuzz.triage.matrix import DIVERGES, Cell, MatrixWork, make_case
from harness.errors import InputError
from tests.support.fake_worker import SCENARIO

CASE, OTHER = make_case("case", SCENARIO), make_case("other", SCENARIO)
WORK = MatrixWork("kvm-nvhe@6.1", (CASE, OTHER), 3, deterministic=True)
(TASK,) = cell_tasks(WORK)
CELL = Cell(WORK.target, CASE.name, CASE.key, DIVERGES, ("host.pc",), 1, 3, unchecked={"no registers": 2})
REST = replace(CELL, scenario="other", key=OTHER.key)
RESULT = CellResult(TASK.id, "done", cells=(CELL, REST))


def test_they_come_back_as_they_were() -> None:
    assert read_question(TASK.question) == WORK and TASK.target == WORK.target
    assert read_answer(TASK, answer_text(RESULT), "n") == RESULT
    cannot = CellResult(TASK.id, "no QEMU", unable=True)
    assert read_answer(TASK, answer_text(cannot), "n") == cannot


def test_a_task_has_as_many_runs_as_take_longer_than_to_ask_for_them() -> None:
    cases = tuple(replace(CASE, name=f"case {number}") for number in range(100))
    for repeat, size in ((1, 16), (5, 3), (100, 1)):
        tasks = list(cell_tasks(MatrixWork("kvm-vhe", cases, repeat)))
        some = [read_question(task.question).cases for task in tasks]
        assert tuple(case for each in some for case in each) == cases
        assert {len(each) for each in some[:-1]} == {size} and len({task.id for task in tasks}) == len(tasks)
        for task, each in zip(tasks, some, strict=True):
            pieces = [read_question(piece.question).cases for piece in task.pieces]
            assert pieces == ([(case,) for case in each] if len(each) > 1 else [])


def changed(**how: Any) -> str:
    return answer_text(replace(RESULT, cells=(CELL, replace(REST, **how))))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, " " * 2_000_000, json.dumps({**asdict(RESULT), "again": 1})),
        *(changed(target="other"), changed(key="00"), changed(verdict="good"), changed(seen=4), changed(runs=10**6)),
        *(changed(findings=(1,)), changed(findings=("x",) * 999), changed(unchecked={"x": "y"}), changed(why=None)),
        answer_text(replace(RESULT, id="kvm-vhe case")),
        answer_text(replace(RESULT, cells=())),
        answer_text(replace(RESULT, cells=(CELL,))),
        answer_text(replace(RESULT, cells=(REST, CELL))),
        answer_text(replace(RESULT, again=True)),
    ],
)
def test_anything_else_is_one_error(text: str) -> None:
    with pytest.raises(InputError, match="n: no answer of a node: ") as error:
        read_answer(TASK, text, "n")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{}", "[" * 100_000, TASK.question.replace("hvc", "hv"), TASK.question.replace('"cases"', '"case"')]
)
def test_a_question_is_checked(text: str) -> None:
    with pytest.raises(InputError):
        read_question(text)


def test_what_is_shown_is_one_line() -> None:
    _, shown = read_answer(TASK, changed(why="a\x1b\nb", findings=("x\ny",)), "n").cells
    assert shown.why == "a  b" and shown.findings == ("x y",)
