# SPDX-License-Identifier: Apache-2.0
"""Group the states in which two levels differ into clusters, each with its least counterexample."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from harness.jsonfile import reading
from harness.lemma.case import SLOTS, STORED, Case, case_of
from harness.lemma.compare_levels import Difference, Pair, Question, compare_on_case
from harness.lemma.shrink import least_case, order
from harness.model import FUNCTION
from harness.model.constants import ctxt_id
from harness.model.state import BLANK, BLANK_INFO, Npt, RData

Values = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One kind of counterexample.

    ``branch`` and ``right_branch``: the branches that each side takes on the least case; ``fork``: the first one that
    the right side decides differently; ``fields``: what differs, or ``undefined``: why the right side is undefined;
    ``left`` and ``right``: the differing fields' final values as text, on each side.
    """

    question: Question
    branch: tuple[str, ...]
    right_branch: tuple[str, ...]
    fork: str
    undefined: str | None
    fields: tuple[str, ...]
    case: Case
    left: Values
    right: Values

    @property
    def branches(self) -> frozenset[str]:
        """Return the branches of both sides as one set, those of the right side marked."""
        return frozenset((*self.branch, *(f"right {label}" for label in self.right_branch)))

    @property
    def key(self) -> tuple[object, ...]:
        """Return the values by which two clusters are distinguished."""
        return self.question, self.branch, self.right_branch, self.fork, self.undefined, self.fields

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; numbers of the state are decimal, and may exceed 64 bits."""
        return {
            **self.question.to_json(),
            "branch": list(self.branch),
            "right_branch": list(self.right_branch),
            "fork": self.fork,
            "undefined": self.undefined,
            "fields": list(self.fields),
            "counterexample": dict(self.case),
            "left": dict(self.left),
            "right": dict(self.right),
        }


def cluster_of(question: Question, case: Case) -> Cluster | None:
    """Return the cluster that ``case`` belongs to, with ``case`` as its counterexample; None if the sides agree."""
    difference, left, right = compare_on_case(question, dict(case))
    if not isinstance(difference, Difference):
        return None
    key = _context_key(dict(case))
    shown = difference.fields
    return Cluster(
        question,
        difference.branch(),
        difference.right_branch(),
        difference.fork(),
        difference.undefined,
        shown,
        case,
        tuple((f, field_text(left, f, key)) for f in shown),
        tuple((f, field_text(right, f, key)) for f in shown),
    )


def _context_key(case: Mapping[str, int]) -> int:
    return ctxt_id(case.get("vmid", 1), case.get("vcpuid", 0))


Find = tuple[Question, str, Case]


def find_clusters(finds: Iterable[Find], jobs: int = 1) -> tuple[Cluster, ...]:
    """Minimise finds and put those that agree in one cluster, in a fixed order; ``jobs`` processes share the work.

    For each goal there is one least case for every least set of branches on which it shows.  One that contains a
    smaller case which shows the same, on no further branch, is part of that one.
    """
    groups: dict[tuple[Question, str], list[Find]] = {}
    for find in finds:
        groups.setdefault(find[:2], []).append(find)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            parts = list(pool.map(_of_one_goal, groups.values(), chunksize=1))
    else:
        parts = [_of_one_goal(group) for group in groups.values()]
    found: dict[tuple[object, ...], Cluster] = {}
    for cluster in (c for part in parts for c in part):
        old = found.get(cluster.key)
        if old is None or order(cluster.case) < order(old.case):
            found[cluster.key] = cluster
    return sort_clusters(found.values())


def _of_one_goal(finds: list[Find]) -> list[Cluster]:
    found: list[Cluster] = []
    seen: list[frozenset[str]] = []
    for question, goal, case in sorted(finds, key=_by_branch):
        start = _branches(question, case)
        if any(branch <= start for branch in seen):
            continue
        small = least_case(question, case, goal)
        cluster = cluster_of(question, small)
        assert cluster is not None
        seen.append(cluster.branches)
        if not contained(question, small, goal):
            found.append(cluster)
    return found


def merge(clusters: Iterable[Cluster]) -> tuple[Cluster, ...]:
    """Join the clusters of several runs: run each again, and drop those that another one on fewer branches shows."""
    found: dict[tuple[object, ...], Cluster] = {}
    for old in clusters:
        cluster = cluster_of(old.question, old.case)
        if cluster is not None and (cluster.key not in found or order(cluster.case) < order(found[cluster.key].case)):
            found[cluster.key] = cluster
    shown: dict[tuple[Question, str], list[frozenset[str]]] = {}
    for c in found.values():
        for goal in goals_of(c):
            shown.setdefault((c.question, goal), []).append(c.branches)
    return sort_clusters(
        c
        for c in found.values()
        if any(
            not contained(c.question, c.case, goal) and not any(b < c.branches for b in shown[c.question, goal])
            for goal in goals_of(c)
        )
    )


def goals_of(cluster: Cluster) -> tuple[str, ...]:
    """Return the goals that the cluster's counterexample shows."""
    difference = compare_on_case(cluster.question, dict(cluster.case))[0]
    return difference.goals() if isinstance(difference, Difference) else ()


def _branches(question: Question, case: Case) -> frozenset[str]:
    difference = compare_on_case(question, dict(case))[0]
    return difference.branches() if isinstance(difference, Difference) else frozenset()


def _by_branch(find: tuple[Question, str, Case]) -> tuple[object, ...]:
    question, goal, case = find
    branch = sorted(_branches(question, case))
    return question.pair, question.function, goal, len(branch), branch, order(case)


def sort_clusters(clusters: Iterable[Cluster]) -> tuple[Cluster, ...]:
    """Sort clusters as pages and files list them: by question, then by the least case."""
    functions = list(FUNCTION)
    return tuple(
        sorted(clusters, key=lambda c: (c.question.pair, functions.index(c.question.function), order(c.case), c.fields))
    )


def contained(question: Question, case: Case, goal: str) -> bool:
    """Return whether a part of ``case`` shows the class of the goal and takes no branch that ``case`` does not take."""
    whole = compare_on_case(question, dict(case))[0]
    assert isinstance(whole, Difference)
    wanted, branch = goal.partition(" at ")[0], whole.branches()
    for size in range(len(case)):
        for part in combinations(case, size):
            difference = compare_on_case(question, dict(part))[0]
            if (
                isinstance(difference, Difference)
                and difference.branches() <= branch
                and any(g.partition(" at ")[0] == wanted for g in difference.goals())
            ):
                return True
    return False


def field_text(d: RData, field: str, key: int) -> str:
    """Return the value of a differing field as a reader sees it."""
    name, _, rest = field.partition(".")
    if name == "ctxt":
        return hex(d.shadow_ctxts.get(key, BLANK)[rest])
    if name.startswith("ctxt["):
        return hex(d.shadow_ctxts.get(int(name[5:-1]), BLANK)[rest])
    if name == "vminfos":
        return "; ".join(f"VM {v}: {getattr(info, rest)}" for v, info in sorted(d.vminfos.items())) or str(
            getattr(BLANK_INFO, rest)
        )
    if name == "log":
        return _log_text(d, rest)
    value = getattr(d, name)
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_text(v)}" for k, v in sorted(value.items())[:4]) or "empty"
    if name == "revealed":
        return "; ".join(f"x{i} = {hex(v)}" for _, _, i, v in value) or "nothing"
    return str(value)


def _text(value: object) -> str:
    if isinstance(value, Npt):
        entries = sorted(value.pt.items())[:2]
        return ", ".join(f"gfn {g:#x} -> pfn {p:#x} level {lv} pte {e:#x}" for g, (p, lv, e) in entries) or "no entry"
    if isinstance(value, Mapping):
        return f"{sum(map(bool, value.values()))} registers set"
    return str(value)


def _log_text(d: RData, name: str) -> str:
    ids = {"flatmem": [0], "s2page": [2], "host_npt": [5], "npt": range(6, 22), "info": range(22, 64)}[name]
    return f"{sum(len(d.log.get(i, ())) for i in ids)} events"


# ---- stored clusters, data under corpus/lemmas


def store_path(directory: Path, pair: Pair) -> Path:
    """Return the file of one pair."""
    return directory / f"{pair[0]}-{pair[1]}.json"


def store(directory: Path, pair: Pair, clusters: Iterable[Cluster]) -> None:
    """Write the clusters of a pair, one a line."""
    rows = [json.dumps(c.to_json()) for c in sort_clusters(c for c in clusters if c.question.pair == pair)]
    directory.mkdir(parents=True, exist_ok=True)
    store_path(directory, pair).write_text("[\n" + ",\n".join(rows) + "\n]\n")


def load(path: Path) -> tuple[Cluster, ...]:
    """Read the clusters of a file; raises :class:`~harness.errors.InputError` if one does not parse."""
    with reading(path, STORED) as rows:
        return tuple(_from_json(row) for row in rows)


def _from_json(row: Mapping[str, Any]) -> Cluster:
    left, _, right = row["pair"].partition(":")
    question = Question((left, right), row["function"], row["logs"])
    case = {str(name): int(value) for name, value in row["counterexample"].items()}
    unknown = set(case) - set(SLOTS)
    if unknown:
        raise ValueError(f"no such slot: {sorted(unknown)}")
    return Cluster(
        question,
        tuple(row["branch"]),
        tuple(row["right_branch"]),
        row["fork"],
        row["undefined"],
        tuple(row["fields"]),
        case_of(case),
        tuple(row["left"].items()),
        tuple(row["right"].items()),
    )


def verify(cluster: Cluster) -> str | None:
    """Run both sides on the stored state; return what differs from what was stored, or None."""
    again = cluster_of(cluster.question, cluster.case)
    if again is None:
        return "the two sides agree now"
    if again != cluster:
        old, new = cluster.to_json(), again.to_json()
        return "; ".join(f"{name}: was {old[name]}, is {new[name]}" for name in old if old[name] != new[name])
    return None
