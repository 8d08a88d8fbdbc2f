# SPDX-License-Identifier: Apache-2.0
"""A cell of a matrix as a question to a node, and what it answers, as values and as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fuzz.campaign.worker_job import fields_of
from fuzz.cluster.task_head import Task
from fuzz.cluster.triage_job import Result, one_line
from fuzz.triage.matrix import VERDICTS, Case, Cell, MatrixWork, make_case
from harness.errors import InputError
from harness.scenario.scenario import format_scenario, parse

MAX_ANSWER = 100_000
MAX_RUNS = 100
"""The most runs of a cell that a command takes."""
MAX_NAMES = 200
"""So many findings, and reasons of what was not checked, a cell has at most."""


@dataclass(frozen=True, slots=True)
class CellResult(Result):
    """What came of a task; ``cell``: that of the matrix, None if the node could not run it."""

    cell: Cell | None = None


def cell_task(work: MatrixWork, case: Case) -> Task:
    """Return the task to run one case of a machine's work."""
    question = {
        **{"target": work.target, "name": case.name, "text": format_scenario(case.scenario)},
        **{"repeat": work.repeat, "deterministic": work.deterministic},
    }
    return Task(f"{work.target} {case.name}", work.target, json.dumps(question))


def read_question(text: str) -> MatrixWork:
    """Read the question of a task: the work of one machine, with one case.  InputError: it is none."""
    try:
        row = fields_of(json.loads(text), _QUESTION)
        case = make_case(row["name"], parse(row["text"], "scenario of a cell"))
    except (ValueError, RecursionError) as error:
        raise InputError("task of a matrix", None, f"not what cell_task writes: {str(error)[:200]}") from error
    return MatrixWork(row["target"], (case,), row["repeat"], row["deterministic"])


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
        if (row["cell"] is None) != (row["again"] or row["unable"]):
            raise ValueError("expected either a cell or why there is none")
        cell = None if row["cell"] is None else _cell(row["cell"], task)
    except (ValueError, RecursionError) as error:
        raise InputError(node, None, f"no answer of a node: {str(error)[:200]}") from error
    return CellResult(task.id, one_line(row["words"]), row["again"], row["unable"], cell)


def _cell(row: object, task: Task) -> Cell:
    """Return the cell of a task.  ValueError: it is none, or another one."""
    found = fields_of(row, _CELL)
    work = read_question(task.question)
    (case,) = work.cases
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
    **{"target": (str,), "name": (str,), "text": (str,), "repeat": (int,), "deterministic": (bool,)}
}
_ANSWER: Mapping[str, tuple[type, ...]] = {
    **{"id": (str,), "words": (str,), "again": (bool,), "unable": (bool,), "cell": (dict, type(None))}
}
_CELL: Mapping[str, tuple[type, ...]] = {
    **{"target": (str,), "scenario": (str,), "key": (str,), "verdict": (str,), "findings": (list,)},
    **{"seen": (int,), "runs": (int,), "why": (str,), "unchecked": (dict,)},
}
