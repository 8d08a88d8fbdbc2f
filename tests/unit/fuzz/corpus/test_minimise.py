# SPDX-License-Identifier: Apache-2.0
"""A minimised corpus has the same coverage and no redundant scenario."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fuzz.corpus.minimise import minimise_corpus


@given(st.lists(st.frozensets(st.integers(0, 12), max_size=6), max_size=12), st.randoms(use_true_random=False))
def test_a_minimised_corpus_has_the_same_coverage_without_redundancy(
    goals: list[frozenset[int]], rng: random.Random
) -> None:
    items = list(enumerate(goals))
    kept = minimise_corpus(items, lambda item: item[1], lambda item: item[0])
    reached = frozenset[int]().union(*goals)
    assert frozenset[int]().union(*(own for _, own in kept)) == reached
    for item in kept:
        assert frozenset[int]().union(*(own for other, own in kept if other != item[0])) != reached
    shuffled = items[:]
    rng.shuffle(shuffled)
    assert minimise_corpus(shuffled, lambda item: item[1], lambda item: item[0]) == kept


def test_the_simplest_is_kept() -> None:
    kept = minimise_corpus([("b", {1, 2}), ("a", {1, 2})], lambda item: item[1], lambda item: item[0])
    assert [name for name, _ in kept] == ["a"]
