# SPDX-License-Identifier: Apache-2.0
"""Compare the levels on every row of the generator, and keep a hash of the values that differ.

A cluster's key has no values, so that a change inside a known kind of difference does not change it.  These outcomes
have them; a run compares them with the stored ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.jsonfile import reading
from harness.lemma.case import STORED
from harness.lemma.clusters import field_text
from harness.lemma.compare_levels import Difference, Pair, Question, compare_on_case, questions
from harness.lemma.generate import COLOURS, generator_rows
from harness.model.constants import ctxt_id

Outcomes = Mapping[str, tuple[str, ...]]
"""Function to the outcome of each of its rows, in the order of the generator."""


def cases_of(function: str) -> Iterator[dict[str, int]]:
    """Yield each row of a function plain, then with distinct values in the registers that steer nothing."""
    for row in generator_rows(function):
        yield row
        yield {**COLOURS, **row}


def outcome(question: Question, case: Mapping[str, int]) -> str:
    """Return ``equal``, ``vacuous``, ``inconclusive``, or eight hex digits over what differs and how."""
    difference, left, right = compare_on_case(question, case)
    if not isinstance(difference, Difference):
        return difference
    key = ctxt_id(case.get("vmid", 1), case.get("vcpuid", 0))
    shown = [(f, field_text(left, f, key), field_text(right, f, key)) for f in difference.fields]
    return hashlib.sha256(repr((difference.undefined, shown)).encode()).hexdigest()[:8]


def outcomes_of(chosen: tuple[Question, ...]) -> Outcomes:
    """Return the outcomes of these questions of one pair."""
    return {q.function: tuple(outcome(q, case) for case in cases_of(q.function)) for q in chosen}


def changed_rows(directory: Path, question: Question) -> tuple[str, ...]:
    """Return the rows of a question whose outcome is not what was stored, as text; none if nothing is stored."""
    stored = load_outcomes(directory, question.pair).get(question.function)
    if stored is None or not question.logs:
        return ()
    cases = list(cases_of(question.function))
    if len(stored) != len(cases):
        return (f"{question.function}: {len(cases)} rows, {len(stored)} were stored",)
    found = ((case, outcome(question, case), old) for case, old in zip(cases, stored, strict=True))
    return tuple(f"{question.function}: {_text(case)}: was {old}, is {new}" for case, new, old in found if new != old)


def _text(case: Mapping[str, int]) -> str:
    steering = {name: value for name, value in case.items() if COLOURS.get(name) != value}
    return ", ".join(f"{name} = {value:#x}" for name, value in steering.items()) or "the plain state"


# ---- stored, data under corpus/lemmas/rows


def outcomes_path(directory: Path, pair: Pair) -> Path:
    """Return the file of one pair."""
    return directory / "rows" / f"{pair[0]}-{pair[1]}.json"


def store_outcomes(directory: Path, pair: Pair) -> None:
    """Run every row of a pair and write what it shows, one function a line."""
    path = outcomes_path(directory, pair)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = outcomes_of(questions((pair,)))
    body = ",\n".join(f"{json.dumps(f)}: {json.dumps(' '.join(shown))}" for f, shown in found.items())
    path.write_text("{\n" + body + "\n}\n")


def load_outcomes(directory: Path, pair: Pair) -> Outcomes:
    """Read the outcomes of a pair, none if none are stored.  InputError: the file is something else."""
    path = outcomes_path(directory, pair)
    if not path.exists():
        return {}
    with reading(path, STORED) as found:
        return {function: tuple(shown.split()) for function, shown in found.items()}
