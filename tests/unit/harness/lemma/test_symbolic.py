# SPDX-License-Identifier: Apache-2.0
"""Symbolic numbers and the explorer of paths."""

from __future__ import annotations

import pytest
import z3

from harness.lemma.symbolic import WIDTH, Explorer, Sym, Truth, choose
from harness.model.body import signed_bit


def test_symbolic_numbers_agree_with_plain_ones() -> None:
    x, solver = Sym(z3.BitVec("x", WIDTH)), z3.Solver()
    for value in (0, 1, 5, 30, 31):
        pairs = (
            (signed_bit(x), signed_bit(value)),  # type: ignore[arg-type]
            ((x // 16) * 4096, (value // 16) * 4096),
            (x + 4 - 1, value + 4 - 1),
            ((x & 6) | 1, (value & 6) | 1),
            (x >> 2, value >> 2),
            (3 + x, 3 + value),
            (choose(x == 5, 1, 2), 1 if value == 5 else 2),
        )
        for symbolic, plain in pairs:
            assert solver.check(x.term == value, symbolic.term != plain) == z3.unsat
        for truth, plain in ((x < 5, value < 5), (x >= 30, value >= 30), ((x > 1) & (x <= 30), 1 < value <= 30)):
            assert solver.check(x.term == value, truth.term != z3.BoolVal(plain)) == z3.unsat


def test_a_branch_around_the_hook_fails_loudly() -> None:
    with pytest.raises(TypeError, match="symbolic"):
        bool(Truth(z3.Bool("b")))


def test_the_explorer_visits_every_feasible_path() -> None:
    explorer, seen = Explorer(), []

    def run() -> None:
        x = z3.BitVec("x", WIDTH)
        a = explorer.branch(z3.ULT(x, 5), "a")
        b = explorer.branch(z3.ULT(x, 3), "b")
        seen.append((a, b))

    explorer.explore(run)
    assert sorted(seen) == [(False, False), (True, False), (True, True)]
