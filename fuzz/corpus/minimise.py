# SPDX-License-Identifier: Apache-2.0
"""A smaller corpus with the same coverage: greedy, the simplest scenarios first, the same every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from typing import Any, TypeVar

from harness.coverage.kvm_code import Covered

T = TypeVar("T")


def minimise_corpus(
    items: Iterable[T], goals_of: Callable[[T], Set[Hashable]], order: Callable[[T], Any]
) -> tuple[T, ...]:
    """Return items that reach together all that ``items`` reach, in ``order``.

    The simplest come first and are kept if they bring something new; then, from the least simple on, what the others
    reach without it is dropped.  So none of those returned is superfluous, though there may be a smaller set.
    """
    kept: list[tuple[T, frozenset[Hashable]]] = []
    reached: Counter[Hashable] = Counter()
    for item in sorted(items, key=order):
        own = frozenset(goals_of(item))
        if any(goal not in reached for goal in own):
            kept.append((item, own))
            reached.update(own)
    for entry in reversed(kept[:]):
        if all(reached[goal] > 1 for goal in entry[1]):
            kept.remove(entry)
            reached.subtract(entry[1])
    return tuple(item for item, _ in kept)


def count_goals(covered: Sequence[Covered]) -> dict[str, int]:
    """Return how much scenarios reach together."""
    return {
        "kvm_edges": len(frozenset().union(*(one.edges for one in covered))),
        "model_decisions": len(frozenset().union(*(one.decisions for one in covered))),
        "features": len(frozenset().union(*(one.features for one in covered))),
    }
