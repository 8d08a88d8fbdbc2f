# SPDX-License-Identifier: Apache-2.0
"""Answer a question: prove the repaired statement, find the least counterexample of each cause, and store both."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import z3

from harness.jsonfile import reading
from harness.lemma.case import STORED, Case, case_of
from harness.lemma.causes import Cause
from harness.lemma.causes_kernel import causes_of
from harness.lemma.clusters import Cluster, cluster_of
from harness.lemma.compare_levels import Difference, Pair, Question, compare_on_case
from harness.lemma.formula import negated
from harness.lemma.generate import random_case
from harness.lemma.repair import Region, Repair, repair
from harness.lemma.shrink import order, passes
from harness.lemma.symbolic import Explorer, Truth
from harness.lemma.symbolic_starts import lookup, repair_starts
from harness.minimiser import minimise
from harness.model import FUNCTION

ANSWER_PAIRS: tuple[Pair, ...] = (
    *(("low", "body"), ("spec", "low"), ("spec", "kernel")),
    *(("low", "kernel"), ("body", "kernel")),
)
"""The pairs that are answered: the code lemmas, the refinement, and each level of the proof against the deployed C."""
DRAWS, BUDGET, SEEDS = 600, 2000, 2


@dataclass(frozen=True, slots=True)
class CauseAnswer:
    """One cause of an answer: its region, the verdict on it, and its least counterexample."""

    name: str
    region: str
    verdict: str
    state: Case
    reason: str
    case: Case
    right_branch: tuple[str, ...]
    undefined: str | None
    left: tuple[tuple[str, str], ...]
    right: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for one question; ``outside``: counterexamples outside the regions; ``open``: what is not decided."""

    question: Question
    causes: tuple[CauseAnswer, ...]
    outside: tuple[Case, ...]
    open: tuple[str, ...]
    paths: int
    checks: int

    @property
    def proved(self) -> bool:
        """Return whether the statement, repaired or as it stands, is proved."""
        return not self.outside and not self.open

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            **self.question.to_json(),
            "true": self.proved and not self.causes,
            "repaired": "proved" if self.proved else "open" if not self.outside else "refuted",
            "causes": [_shown_json(c) for c in self.causes],
            "outside": [dict(case) for case in self.outside],
            "open": list(self.open),
            "paths": self.paths,
            "checks": self.checks,
        }


def _shown_json(c: CauseAnswer) -> dict[str, Any]:
    return {
        "name": c.name,
        "region": c.region,
        "verdict": c.verdict,
        "agrees": dict(c.state),
        "reason": c.reason,
        "counterexample": dict(c.case),
        "right_branch": list(c.right_branch),
        "undefined": c.undefined,
        "left": dict(c.left),
        "right": dict(c.right),
    }


def answer(question: Question, known: Sequence[Cluster] = ()) -> Answer:
    """Prove the repaired statement, measure each region and minimise its counterexample; ``known`` are its clusters."""
    causes = causes_of(question)
    shown: Repair = repair(question, causes)
    rows = tuple(
        _shown(question, cause, region, causes, known) for cause, region in zip(causes, shown.regions, strict=True)
    )
    outside = tuple(dict.fromkeys(shown.outside.values()))
    return Answer(question, rows, outside, tuple(shown.open), shown.paths, shown.checks)


def _shown(
    question: Question, cause: Cause, region: Region, causes: Sequence[Cause], known: Sequence[Cluster]
) -> CauseAnswer:
    case = least_in(question, cause, causes, [c.case for c in known])
    cluster = None if case is None else cluster_of(question, case)
    state = (cause.name, cause.region, region.verdict, region.state, region.reason)
    if case is None or cluster is None:
        return CauseAnswer(*state, (), (), None, (), ())
    difference = compare_on_case(question, dict(case))[0]
    assert isinstance(difference, Difference)
    return CauseAnswer(*state, case, difference.right_branch(), cluster.undefined, cluster.left, cluster.right)


def least_in(question: Question, cause: Cause, causes: Sequence[Cause], known: Sequence[Case]) -> Case | None:
    """Return the least counterexample found in a cause's region, in as few other regions as possible, or None."""
    others = [c.formula for c in causes if c is not cause]

    def rank(case: Case) -> int | None:
        """Return in how many other regions a counterexample of this region lies; None if the case is none."""
        if not cause.formula.of_case(dict(case)) or not isinstance(
            compare_on_case(question, dict(case))[0], Difference
        ):
            return None
        return sum(f.of_case(dict(case)) for f in others)

    ranked = [
        (n, order(case), case) for case in _seeds(question, cause, causes, known) if (n := rank(case)) is not None
    ]
    best: Case | None = None
    for n, _, seed in sorted(ranked)[:SEEDS]:
        if n > min(ranked)[0]:
            break

        def shows(case: Case, limit: int = n) -> bool:
            found = rank(case)
            return found is not None and found <= limit

        small = minimise(seed, shows, order, passes(question.function), BUDGET)
        if best is None or order(small) < order(best):
            best = small
    return best


def _seeds(question: Question, cause: Cause, causes: Sequence[Cause], known: Sequence[Case]) -> Iterator[Case]:
    """Yield cases that may lie in the region: known and drawn ones, and the solver's models of its formula."""
    yield from known
    rng = random.Random(1)
    yield from (case_of(random_case(rng, question.function)) for _ in range(DRAWS))
    for start in repair_starts(question):
        found = lookup(start, question)
        solver = Explorer().solver
        for alone in (False, True):
            solver.push()
            wanted = [cause.formula.holds(found)]
            if alone:
                wanted += [negated(c.formula.holds(found)) for c in causes if c is not cause]
            for condition in wanted:
                solver.add(condition.term if isinstance(condition, Truth) else z3.BoolVal(bool(condition)))
            if solver.check() == z3.sat:
                yield start.case(solver.model())
            solver.pop()


# ---- stored answers, data under corpus/lemmas/answers


def answers_path(directory: Path, pair: Pair) -> Path:
    """Return the file of one pair."""
    return directory / "answers" / f"{pair[0]}-{pair[1]}.json"


def store_answers(directory: Path, pair: Pair, answers: Sequence[Answer]) -> None:
    """Write the answers of a pair, one a line; those of other questions stay."""
    path = answers_path(directory, pair)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {(a.question.function, a.question.logs): a for a in load_answers(directory, pair)}
    kept |= {(a.question.function, a.question.logs): a for a in answers}
    names = list(FUNCTION)
    rows = sorted(kept.values(), key=lambda a: (names.index(a.question.function), not a.question.logs))
    path.write_text("[\n" + ",\n".join(json.dumps(a.to_json()) for a in rows) + "\n]\n")


def load_answers(directory: Path, pair: Pair) -> tuple[Answer, ...]:
    """Read the answers of a pair, none if none are stored.  InputError: the file is something else."""
    path = answers_path(directory, pair)
    if not path.exists():
        return ()
    with reading(path, STORED) as rows:
        return tuple(_answer(row) for row in rows)


def _answer(row: Mapping[str, Any]) -> Answer:
    left, _, right = row["pair"].partition(":")
    return Answer(
        Question((left, right), row["function"], row["logs"]),
        tuple(
            CauseAnswer(
                *(c["name"], c["region"], c["verdict"], case_of(c["agrees"]), c["reason"]),
                *(case_of(c["counterexample"]), tuple(c["right_branch"]), c["undefined"]),
                *(tuple(c["left"].items()), tuple(c["right"].items())),
            )
            for c in row["causes"]
        ),
        tuple(case_of(case) for case in row["outside"]),
        tuple(row["open"]),
        row["paths"],
        row["checks"],
    )
