# SPDX-License-Identifier: Apache-2.0
"""Cells of a matrix as a question to a node, and what it answers, as values and as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fuzz.campaign.worker_job import fields_of
from fuzz.cluster.task_head import Task
from fuzz.cluster.triage_job import Result, one_line
from fuzz.triage.matrix import VERDICTS, Case, Cell, MatrixWork, make_case
from harness.errors import InputError
from harness.scenario.scenario import format_scenario, parse

MAX_ANSWER = 1_000_000
RUNS = 16
"""So many runs of a target are one task: a cell takes less than a question and its answer."""
MAX_RUNS = 100
"""The most runs of a cell that a command takes."""
MAX_NAMES = 200
"""So many findings, and reasons of what was not checked, a cell has at most."""


@dataclass(frozen=True, slots=True)
class CellResult(Result):
    """What came of a task; ``cells``: those of the matrix, none if the node could not run its target."""

    cells: tuple[Cell, ...] = ()


def cell_tasks(work: MatrixWork) -> Iterator[Task]:
    """Yield the tasks of a machine's work, each with some of its cases; if a node is lost, each case is one."""
    for some in batched(work.cases, max(1, RUNS // work.repeat)):
        singles = tuple(_task(work, [case]) for case in some)
        yield replace(_task(work, some), pieces=singles) if len(singles) > 1 else singles[0]


def batched(cases: Sequence[Case], size: int) -> Iterator[Sequence[Case]]:
    """Yield cases in their order, at most ``size`` at once."""
    for first in range(0, len(cases), size):
        yield cases[first : first + size]


def _task(work: MatrixWork, cases: Sequence[Case]) -> Task:
    question = {
        **{"target": work.target, "repeat": work.repeat, "deterministic": work.deterministic},
        "cases": {case.name: format_scenario(case.scenario) for case in cases},
    }
    return Task(task_id(work.target, cases), work.target, json.dumps(question))


def task_id(target: str, cases: Sequence[Case]) -> str:
    """Return the name of the task to run cases on a target."""
    return f"{target} {cases[0].name}" + (f" and {len(cases) - 1} more" if len(cases) > 1 else "")


def read_question(text: str) -> MatrixWork:
    """Read the question of a task: the work of one machine.  InputError: it is none."""
    try:
        row = fields_of(json.loads(text), _QUESTION)
        cases = tuple(make_case(name, parse(body, "scenario of a cell")) for name, body in row["cases"].items())
        if not cases:
            raise ValueError("no case")
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise InputError("task of a matrix", None, f"not what cell_tasks writes: {str(error)[:200]}") from error
    return MatrixWork(row["target"], cases, row["repeat"], row["deterministic"])


def answer_text(result: CellResult) -> str:
    """Return an answer as text that :func:`read_answer` reads."""
    return json.dumps(asdict(result))


def read_answer(task: Task, text: str, node: str) -> CellResult:
    """Read what a node answers to a task.  InputError: it is no answer, or one about another cell."""
    try:
        if len(text) > MAX_ANSWER:
            raise ValueError(f"{len(text)} characters, expected at most {MAX_ANSWER}")
        row = fields_of(json.loads(text), _ANSWER)
        if row["id"] != task.id:
            raise ValueError(f"about {row['id'][:80]!r}, asked was {task.id}")
        if bool(row["cells"]) == (row["again"] or row["unable"]):
            raise ValueError("expected either cells or why there are none")
        cells = _cells(row["cells"], read_question(task.question)) if row["cells"] else ()
    except (ValueError, RecursionError) as error:
        raise InputError(node, None, f"no answer of a node: {str(error)[:200]}") from error
    return CellResult(task.id, one_line(row["words"]), row["again"], row["unable"], cells)


def _cells(rows: Sequence[object], work: MatrixWork) -> tuple[Cell, ...]:
    """Return the cells of a task.  ValueError: they are none, or others."""
    if len(rows) != len(work.cases):
        raise ValueError(f"{len(rows)} cells, asked were {len(work.cases)}")
    return tuple(_cell(row, work, case) for row, case in zip(rows, work.cases, strict=True))


def _cell(row: object, work: MatrixWork, case: Case) -> Cell:
    found = fields_of(row, _CELL)
    if (found["target"], found["scenario"], found["key"]) != (work.target, case.name, case.key):
        raise ValueError("a cell of another target or scenario")
    if found["verdict"] not in VERDICTS:
        raise ValueError(f"verdict is {found['verdict'][:40]!r}, expected one of {', '.join(VERDICTS)}")
    if not 0 <= found["seen"] <= found["runs"] <= MAX_RUNS:
        raise ValueError(f"{found['seen']} of {found['runs']} runs")
    names, unchecked = found["findings"], found["unchecked"]
    if len(names) > MAX_NAMES or len(unchecked) > MAX_NAMES:
        raise ValueError(f"more than {MAX_NAMES} findings, or reasons of what was not checked")
    if not all(type(name) is str for name in names) or not all(type(n) is int for n in unchecked.values()):
        raise ValueError("expected findings as text, and counts of what was not checked")
    plain: dict[str, Any] = {name: found[name] for name in ("verdict", "seen", "runs")}
    return Cell(
        **{**plain, "target": work.target, "scenario": case.name, "key": case.key},
        findings=tuple(map(one_line, names)),
        why=one_line(found["why"]),
        unchecked={one_line(reason): count for reason, count in unchecked.items()},
    )


_QUESTION: Mapping[str, tuple[type, ...]] = {
    **{"target": (str,), "cases": (dict,), "repeat": (int,), "deterministic": (bool,)}
}
_ANSWER: Mapping[str, tuple[type, ...]] = {
    **{"id": (str,), "words": (str,), "again": (bool,), "unable": (bool,), "cells": (list,)}
}
_CELL: Mapping[str, tuple[type, ...]] = {
    **{"target": (str,), "scenario": (str,), "key": (str,), "verdict": (str,), "findings": (list,)},
    **{"seen": (int,), "runs": (int,), "why": (str,), "unchecked": (dict,)},
}
