# SPDX-License-Identifier: Apache-2.0
"""Detect a changed level: by stored paths, stored clusters, hypotheses, verdicts, and by a search alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from harness.jsonfile import reading
from harness.lemma.answers import ANSWER_PAIRS, Answer, load_answers
from harness.lemma.case import STORED, case_of
from harness.lemma.causes_kernel import causes_of
from harness.lemma.clusters import cluster_of, contained, load, store_path, verify
from harness.lemma.compare_levels import EQUAL, MAIN_PAIRS, Difference, Pair, Question, compare_on_case, questions
from harness.lemma.formula import Formula
from harness.lemma.generate import random_case
from harness.lemma.path_states import changed_outcome, load_paths
from harness.lemma.repair import EXACT, Scope, repair
from harness.lemma.row_findings import cases_of, changed_rows
from harness.lemma.shrink import least_case
from harness.lemma.symbolic_starts import repair_starts

PROVED_PAIRS: tuple[Pair, ...] = (("low", "body"), ("spec", "low"))
"""The pairs whose verdicts are proved again: the code lemmas and the refinement."""
IDS: tuple[tuple[int, int], ...] = ((1, 0), (0, 0), (17, 0), (1, 8))
"""The VM and vCPU of the starts on which they are: a VM's, the host's, and one beyond each bound."""


@dataclass(frozen=True, slots=True)
class Check:
    """How to look for a change: ``directory`` of what is stored, random ``cases`` for each question, their ``seed``.

    ``used``: the functions of a level that may have changed (None: all); other questions keep their verdicts.
    """

    directory: Path
    cases: int
    seed: int
    used: frozenset[tuple[str, str]] | None = None

    def may_change(self, question: Question) -> bool:
        """Return whether one side of a question may have changed."""
        return self.used is None or any((level, question.function) in self.used for level in question.pair)


def kind_of(goal: str, branches: Iterable[str]) -> str:
    """Return a goal and the branches of both sides on which it was reached, as eight hex digits."""
    return hashlib.sha256(repr((goal, sorted(branches))).encode()).hexdigest()[:8]


def goals_path(directory: Path, pair: Pair) -> Path:
    """Return the file with every kind of difference (:func:`kind_of`) that campaigns of the pair have reached."""
    return directory / "goals" / f"{pair[0]}-{pair[1]}.json"


def load_goals(directory: Path, pair: Pair) -> set[tuple[str, str]]:
    """Return the known kinds as (function, kind).  InputError: the file is something else."""
    path = goals_path(directory, pair)
    if not path.exists():
        return set()
    with reading(path, STORED) as known:
        return {(function, kind) for function, kinds in known.items() for kind in kinds.split()}


def store_goals(directory: Path, pair: Pair, goals: set[tuple[str, str]]) -> None:
    """Write the known kinds, one function a line."""
    rows = {f: " ".join(sorted(g for name, g in goals if name == f)) for f in sorted({name for name, _ in goals})}
    path = goals_path(directory, pair)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = ",\n".join(f"{json.dumps(f)}: {json.dumps(g)}" for f, g in rows.items())
    path.write_text("{\n" + body + "\n}\n")


def by_paths(check: Check) -> str | None:
    """Return the first stored path on which a level does something else, or None."""
    for row in load_paths(check.directory / "paths.json"):
        try:
            wrong = changed_outcome(row)
        except Exception as error:  # a changed level may do anything
            wrong = f"raised {error!r}"
        if wrong is not None:
            return f"stored path: {wrong[:200]}"
    return None


def by_clusters(check: Check) -> str | None:
    """Return the first stored counterexample that shows something else, or None."""
    for pair in MAIN_PAIRS:
        for cluster in load(store_path(check.directory, pair)):
            try:
                wrong = verify(cluster)
            except Exception as error:
                wrong = f"raised {error!r}"
            if wrong is not None:
                return f"stored cluster of {':'.join(pair)} {cluster.question.function}: {wrong[:120]}"
    return None


def by_hypotheses(check: Check) -> str | None:
    """Return the first row or drawn state that a stored hypothesis does not describe any more, or None.

    Outside every region the sides must agree; inside one that was proved exact they must differ.
    """
    rng = random.Random(check.seed)
    for pair in ANSWER_PAIRS:
        for found in load_answers(check.directory, pair):
            regions = [(c.name, Formula(c.region), c.verdict == EXACT) for c in found.causes]
            for case in (*cases_of(found.question.function), *_drawn(rng, found.question.function, check.cases)):
                wrong = _not_described(found.question, case, regions)
                if wrong is not None:
                    return f"{':'.join(pair)} {found.question.function}: {wrong}"
    return None


def _not_described(
    question: Question, case: dict[str, int], regions: Sequence[tuple[str, Formula, bool]]
) -> str | None:
    try:
        verdict = compare_on_case(question, case)[0]
    except Exception as error:
        return f"raised {error!r}"
    if isinstance(verdict, Difference):
        return None if any(f.of_case(case) for _, f, _ in regions) else "a counterexample outside the hypotheses"
    if verdict == EQUAL:
        return next((f"agrees inside {name}" for name, f, exact in regions if exact and f.of_case(case)), None)
    return None


def _drawn(rng: random.Random, function: str, cases: int) -> Iterator[dict[str, int]]:
    return (random_case(rng, function) for _ in range(cases))


def by_verdicts(check: Check) -> str | None:
    """Return the first answer whose statement is proved no more, or whose hypothesis is the weakest no more, or None.

    The prover runs again on each code lemma and each refinement that a changed level may take part in.
    """
    stored = (a for pair in PROVED_PAIRS for a in load_answers(check.directory, pair) if a.question.logs)
    for found in sorted(stored, key=_effort):
        if check.may_change(found.question):
            wrong = _other_verdict(found)
            if wrong is not None:
                return f"{':'.join(found.question.pair)} {found.question.function}: {wrong}"
    return None


def _effort(found: Answer) -> tuple[bool, int]:
    return found.question.layer == "VCPUOps", found.paths


def _other_verdict(found: Answer) -> str | None:
    measure = (
        found.question.layer == "VCPUOpsAux"
    )  # for save and restore the drawn states do it, in a tenth of the time
    starts = tuple(s for s in repair_starts(found.question) if (s.vmid, s.vcpuid) in IDS)
    try:
        again = repair(found.question, causes_of(found.question), Scope(starts), measure=measure)
    except Exception as error:  # a changed level may do anything
        return f"raised {error!r}"
    if again.proved != found.proved:
        return "refuted outside its hypotheses" if again.outside else f"open: {'; '.join(again.open)}"[:200]
    verdicts = zip(found.causes, again.regions, strict=False)
    return next((f"{c.name}: {c.verdict} became {r.verdict}" for c, r in verdicts if c.verdict != r.verdict), None)


def by_campaign(check: Check) -> str | None:
    """Return what a short search from nothing reports that is not as stored, or None.

    Its rows come first, then ``cases`` drawn states for each question; a kind of difference that no run has shown is
    minimised, and counts if no stored cluster is like it.
    """
    chosen = [question for pair in MAIN_PAIRS for question in questions((pair,))]
    for question in chosen:
        try:
            rows = changed_rows(check.directory, question)
        except Exception as error:
            return f"raised {error!r}"
        if rows:
            return f"a row of {':'.join(question.pair)} {rows[0][:200]}"
    rng = random.Random(check.seed)
    known = {pair: load_goals(check.directory, pair) for pair in MAIN_PAIRS}
    keys = {pair: {c.key for c in load(store_path(check.directory, pair))} for pair in MAIN_PAIRS}
    for question in chosen:
        found = _search(question, check.cases, rng, known[question.pair], keys[question.pair])
        if found is not None:
            return f"new cluster of {':'.join(question.pair)} {question.function}: {found}"
    return None


Detector = Callable[[Check], str | None]
DETECTORS: Mapping[str, Detector] = MappingProxyType(
    {
        "stored paths": by_paths,
        "stored clusters": by_clusters,
        "hypotheses": by_hypotheses,
        "verdicts": by_verdicts,
        "campaign": by_campaign,
    }
)
"""What may notice a changed level, each by itself."""


def find_change(check: Check, names: Sequence[str] = tuple(DETECTORS)) -> str | None:
    """Return what these detectors find that is not as it was stored, or None."""
    for name in names:
        found = DETECTORS[name](check)
        if found is not None:
            return found
    return None


def _search(
    question: Question, cases: int, rng: random.Random, known: set[tuple[str, str]], keys: set[tuple[object, ...]]
) -> str | None:
    tried: set[str] = set()
    for case in _drawn(rng, question.function, cases):
        try:
            difference = compare_on_case(question, case)[0]
        except Exception as error:
            return f"raised {error!r}"
        if not isinstance(difference, Difference):
            continue
        for goal in difference.goals():
            kind = kind_of(goal, difference.branches())
            if (question.function, kind) in known or kind in tried:
                continue
            tried.add(kind)
            small = least_case(question, case_of(case), goal, budget=2000)
            cluster = cluster_of(question, small)
            if cluster is not None and cluster.key not in keys and not contained(question, small, goal):
                return goal
    return None
