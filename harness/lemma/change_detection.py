# SPDX-License-Identifier: Apache-2.0
"""Would the campaign notice that a level changed?

It runs the stored states again (one for each path of each level, and every cluster), then it searches.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from harness.jsonfile import reading
from harness.lemma.case import STORED, case_of
from harness.lemma.clusters import cluster_of, contained, load, store_path, verify
from harness.lemma.compare_levels import MAIN_PAIRS, Difference, Pair, Question, ask, questions
from harness.lemma.generate import draw
from harness.lemma.path_states import changed, load_paths
from harness.lemma.shrink import least


def goals_path(directory: Path, pair: Pair) -> Path:
    """The file with every goal that campaigns of the pair have reached."""
    return directory / "goals" / f"{pair[0]}-{pair[1]}.json"


def load_goals(directory: Path, pair: Pair) -> set[tuple[str, str]]:
    """The known goals as (function, goal).  InputError: the file is something else."""
    path = goals_path(directory, pair)
    if not path.exists():
        return set()
    with reading(path, STORED) as known:
        return {(function, goal) for function, goals in known.items() for goal in goals}


def store_goals(directory: Path, pair: Pair, goals: set[tuple[str, str]]) -> None:
    """Write the known goals, one function a line."""
    rows = {f: sorted(g for name, g in goals if name == f) for f in sorted({name for name, _ in goals})}
    path = goals_path(directory, pair)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = ",\n".join(f"{json.dumps(f)}: {json.dumps(g)}" for f, g in rows.items())
    path.write_text("{\n" + body + "\n}\n")


def notice(directory: Path, cases: int, seed: int) -> str | None:
    """What is not as it was stored, or None: ``cases`` random cases for each question of the main pairs."""
    for row in load_paths(directory / "paths.json"):
        try:
            wrong = changed(row)
        except Exception as error:  # a changed level may do anything
            wrong = f"raised {error!r}"
        if wrong is not None:
            return f"stored path: {wrong[:200]}"
    for pair in MAIN_PAIRS:
        for cluster in load(store_path(directory, pair)):
            try:
                wrong = verify(cluster)
            except Exception as error:
                wrong = f"raised {error!r}"
            if wrong is not None:
                return f"stored cluster of {':'.join(pair)} {cluster.question.function}: {wrong[:120]}"
    rng = random.Random(seed)
    for pair in MAIN_PAIRS:
        known = load_goals(directory, pair)
        keys = {c.key for c in load(store_path(directory, pair))}
        for question in questions((pair,)):
            found = _search(question, cases, rng, known, keys)
            if found is not None:
                return f"new cluster of {':'.join(pair)} {question.function}: {found}"
    return None


def _search(
    question: Question, cases: int, rng: random.Random, known: set[tuple[str, str]], keys: set[tuple[object, ...]]
) -> str | None:
    tried: set[str] = set()
    for _ in range(cases):
        case = draw(rng, question.function)
        try:
            difference = ask(question, case)[0]
        except Exception as error:
            return f"raised {error!r}"
        if not isinstance(difference, Difference):
            continue
        for goal in difference.goals():
            if (question.function, goal) in known or goal in tried:
                continue
            tried.add(goal)
            small = least(question, case_of(case), goal, budget=2000)
            cluster = cluster_of(question, small)
            if cluster is not None and cluster.key not in keys and not contained(question, small, goal):
                return goal
    return None
