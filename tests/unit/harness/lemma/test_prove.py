# SPDX-License-Identifier: Apache-2.0
"""The symbolic run: it proves what is equal, and finds by itself what is not."""

from __future__ import annotations

import pytest
import z3

from harness.lemma.clusters import load
from harness.lemma.compare_levels import Question
from harness.lemma.prove import prove
from harness.lemma.symbolic import WIDTH, Explorer, Sym, Truth, choose
from harness.model.body import signed_bit
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


def clusters(question: Question) -> tuple[object, ...]:
    path = LEMMAS / f"{question.pair[0]}-{question.pair[1]}.json"
    return tuple(c for c in load(path) if c.question == question)


@pytest.mark.parametrize("function", ("prep_wfx", "prep_hvc", "update_exception_gp_regs", "reset_gp_regs"))
def test_proved_helpers(function: str) -> None:
    # those whose code lemma the proof has; post_handle_shadow_s2pt_fault is one of them too
    proof = prove(Question(("low", "body"), function), ())
    assert (proof.new, proof.open) == ({}, [])
    assert proof.verdict().startswith("proved equal")


def test_an_unknown_counterexample_is_found() -> None:
    question = Question(("low", "body"), "sync_dirty_to_shadow")
    proof = prove(question, ())
    assert {c.key for c in proof.new.values()} <= {c.key for c in clusters(question)}  # type: ignore[attr-defined]
    assert proof.new
    assert proof.verdict().startswith("refuted by")


@pytest.mark.parametrize("pair", (("low", "body"), ("spec", "low")))
@pytest.mark.parametrize("function", ("sync_dirty_to_shadow", "update_exception_gp_regs", "reset_gp_regs"))
def test_nothing_outside_the_stored_clusters(pair: tuple[str, str], function: str) -> None:
    question = Question(pair, function)
    proof = prove(question, clusters(question))  # type: ignore[arg-type]
    assert (list(proof.new), proof.open) == ([], [])


def test_a_gap_is_named() -> None:
    proof = prove(Question(("spec", "kernel"), "post_handle_shadow_s2pt_fault"), ())
    assert proof.open
    assert "open:" in proof.verdict()


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
