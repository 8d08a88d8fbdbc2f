# SPDX-License-Identifier: Apache-2.0
"""Group the clusters that no erratum explains into problems: clusters that probably have one cause.  Pure.

The first divergence of a scenario may cause all later ones.  So a cluster belongs to the problem of the first cluster
in the simplest scenario that shows it, and clusters that share their simplest scenario are one problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

MAX_EXAMPLES = 4
"""So many scenarios of a cluster are kept, each with another leader."""


class Example(NamedTuple):
    """A scenario that shows a cluster, the id of the cluster that it shows first, and how simple it is (less: more)."""

    leader: str
    scenario: str
    simplicity: int


class Problem(NamedTuple):
    """Clusters, by id; ``id`` is the leading one, which comes first."""

    id: str
    clusters: tuple[str, ...]


def group_problems(examples: Mapping[str, Sequence[Example]]) -> tuple[Problem, ...]:
    """Return problems of clusters, in the order of the clusters; one without example is a problem by itself."""
    simplest = {id_: min(found, key=lambda one: one.simplicity) for id_, found in examples.items() if found}
    first_of: dict[str, str] = {}  # by the steps of a scenario
    above = {id_: id_ for id_ in examples}

    def top(id_: str) -> str:
        while above[id_] != id_:
            id_ = above[id_]
        return id_

    for id_, example in simplest.items():
        for other in (first_of.setdefault(_steps(example.scenario), id_), example.leader):
            if other in above:
                above[top(id_)] = top(other)
    members: dict[str, list[str]] = {}
    for id_ in examples:
        members.setdefault(top(id_), []).append(id_)

    def rank(id_: str) -> tuple[bool, int, str]:
        example = simplest.get(id_)
        return (True, 0, id_) if example is None else (example.leader != id_, example.simplicity, id_)

    return tuple(_problem(min(ids, key=rank), ids) for ids in members.values())


def group_by_erratum(items: Iterable[T], errata: Callable[[T], Iterable[str]]) -> dict[str, list[T]]:
    """Return the items of each erratum; an item may belong to several of them, or to none."""
    found: dict[str, list[T]] = {}
    for item in items:
        for name in errata(item):
            found.setdefault(name, []).append(item)
    return found


def _problem(leader: str, ids: Sequence[str]) -> Problem:
    return Problem(leader, (leader, *(id_ for id_ in ids if id_ != leader)))


def _steps(scenario: str) -> str:
    """Return a scenario's text without its sentence, which describes why it was kept."""
    return "\n".join(line for line in scenario.splitlines() if not line.startswith("about "))
