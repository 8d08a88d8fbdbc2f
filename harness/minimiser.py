# SPDX-License-Identifier: Apache-2.0
"""Minimise a value that satisfies a predicate.

Guarantees: the result satisfies the predicate; it is no greater than the start in the given total order; no pass can
improve on it; the same start gives the same result.  Every candidate goes through :meth:`Minimiser.consider`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Pass(Protocol[T]):
    """One way to make a value smaller: yields candidates for the *current* best, likely successes first.

    The generator is restarted from the new best value after a success, until a whole round improves nothing.
    """

    def candidates(self, value: T) -> Iterator[T]:
        """Yield candidates for ``value``; those that are not smaller are ignored."""
        ...


class Minimiser(Generic[T]):
    """Search for the least value that satisfies ``holds``.

    ``order`` maps a value to a key of one total order.  ``tries`` counts calls of the predicate; above ``budget`` every
    further candidate is rejected.
    """

    def __init__(
        self, start: T, holds: Callable[[T], bool], order: Callable[[T], Any], budget: int | None = None
    ) -> None:
        if not holds(start):
            raise ValueError("the start does not satisfy the predicate")
        self.best, self.tries = start, 1
        self._holds, self._order, self._budget = holds, order, budget
        self._seen: set[T] = {start}

    def consider(self, value: T) -> bool:
        """Take ``value`` as the new best if it is smaller and satisfies the predicate."""
        if value in self._seen or self._order(value) >= self._order(self.best):
            return False
        if self._budget is not None and self.tries >= self._budget:
            return False
        self._seen.add(value)
        self.tries += 1
        if not self._holds(value):
            return False
        self.best = value
        return True

    def run(self, passes: tuple[Pass[T], ...]) -> T:
        """Apply the passes in turn until none of them improves anything."""
        improved = True
        while improved:
            improved = False
            for one in passes:
                while any(self.consider(candidate) for candidate in one.candidates(self.best)):
                    improved = True
        return self.best


def minimise(
    start: T,
    holds: Callable[[T], bool],
    order: Callable[[T], Any],
    passes: tuple[Pass[T], ...],
    budget: int | None = None,
) -> T:
    """Return the least value that the passes reach.  ValueError: ``start`` does not satisfy the predicate."""
    return Minimiser(start, holds, order, budget).run(passes)
