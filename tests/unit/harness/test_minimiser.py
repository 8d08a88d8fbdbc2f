# SPDX-License-Identifier: Apache-2.0
"""The generic minimiser of a value and a predicate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.minimiser import Minimiser, minimise


class Halve:
    def candidates(self, value: int) -> Iterator[int]:
        yield value // 2


class Decrement:
    def candidates(self, value: int) -> Iterator[int]:
        yield value - 1


PASSES = (Halve(), Decrement())


def test_the_result_is_least() -> None:
    assert minimise(1000, lambda v: v >= 37, lambda v: v, PASSES) == 37


def test_the_start_must_hold() -> None:
    with pytest.raises(ValueError, match="start"):
        minimise(1, lambda v: v > 1, lambda v: v, PASSES)


def test_the_order_is_obeyed() -> None:
    assert minimise(10, lambda v: True, lambda v: -v, PASSES) == 10


def test_a_value_is_tried_once_and_the_budget_holds() -> None:
    tried: list[int] = []

    def holds(value: int) -> bool:
        tried.append(value)
        return value >= 37

    m = Minimiser(1000, holds, lambda v: v)
    assert m.run(PASSES) == 37
    assert len(tried) == len(set(tried)) == m.tries
    short = Minimiser(1000, lambda v: v >= 37, lambda v: v, budget=3)
    assert short.run(PASSES) > 37
    assert short.tries == 3
