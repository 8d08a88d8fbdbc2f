# SPDX-License-Identifier: Apache-2.0
"""Prove the loop of ``sync_dirty_to_shadow`` round by round, for any number of marked registers.

A run that branches on 31 bits has 2^31 paths.  Each round is run by itself on the text of both levels instead.
Before round i the state is any state of the invariant; the run skips every other round.

The invariant before round i: x0..x(i-1) have any values, the same on both sides.  Every other field is as before the
loop.  Each side that asks the oracle has taken as many values as bits are set below bit i.  The invariant holds before
round 0, and the run shows for each i that round i keeps it.  After round 30 both sides are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import z3

from harness.lemma.causes import Cause
from harness.lemma.compare_levels import Code, Question
from harness.lemma.formula import negated
from harness.lemma.prove import fields_of, same, unequal
from harness.lemma.symbolic import INPUT_BITS, WIDTH, Explorer, OpenBranch, Sym, SymState, Truth, term
from harness.lemma.symbolic_starts import Start, lookup, start_state
from harness.model.constants import GPRS, ctxt_id
from harness.model.state import Undefined

LOOP = "sync_dirty_to_shadow.dirty"
"""The label of the branch at the head of each round."""
ROUNDS = 31
PROOF_LEVELS = ("spec", "low", "body")
"""The levels that take registers from the oracle; level kernel takes them from the host's copy."""
_ORACLE = z3.Function("data", z3.BitVecSort(WIDTH), z3.BitVecSort(INPUT_BITS))


class _Failed(Exception):
    """A round does not keep the invariant; the text says what differs."""


class RoundState(SymState):
    """A state of which only round ``only`` runs; ``at`` counts the rounds."""

    __slots__ = ("at", "only", "position", "vmid")

    at: int
    only: int
    position: Any
    vmid: int

    def decide(self, label: str, condition: Any) -> bool:
        """Skip a round that is not the chosen one; before that one, set any state of the invariant."""
        if label != LOOP:
            return super().decide(label, condition)
        self.at += 1
        if self.at - 1 != self.only:
            return False
        if not self.halt:
            ctxt = self.ctxt(self.own_key)
            for name in GPRS[: self.only]:
                earlier: Any = Sym(z3.BitVec(f"round.{name}", WIDTH))
                ctxt[name] = earlier
            self.data_log[self.vmid] = self.position
        return super().decide(label, condition)

    def data(self, vmid: int, offset: int) -> int:
        """Return the oracle's value at a symbolic position."""
        position = term(self.data_log.get(vmid, 0)) + term(offset)
        return cast("int", Sym(z3.ZeroExt(WIDTH - INPUT_BITS, _ORACLE(position))))


def taken_before(dirty: Any, bit: int) -> Any:
    """Return how many bits of ``dirty`` are set below ``bit``."""
    count: Any = Sym(term(0))
    for i in range(bit):
        count = count + ((dirty >> i) & 1)
    return count


def open_rounds(question: Question, causes: Sequence[Cause], starts: Sequence[Start], code: Code) -> tuple[str, int]:
    """Return why the loop is not proved outside the causes (empty: it is proved), and the number of paths.

    ``starts`` give the ids and whether the core has panicked; no start proves nothing.
    """
    plain = {(s.vmid, s.vcpuid, s.halt) for s in starts}
    if not plain:
        return "no start", 0
    paths = 0
    for vmid, vcpuid, halt in sorted(plain):
        start = Start(vmid, vcpuid, vmid, halt, any_dirty=True)
        for bit in range(ROUNDS):
            x = Explorer()
            try:
                outside = [negated(c.formula.holds(lookup(start, question))) for c in causes]
                if any(not isinstance(holds, Truth) and not holds for holds in outside):
                    continue
                x.solver.add(*(holds.term for holds in outside if isinstance(holds, Truth)))
                x.explore(lambda x=x, bit=bit, start=start: _round(question, code, start, bit, x))  # type: ignore[misc]
            except (OpenBranch, _Failed) as reason:
                return f"round of x{bit}: {reason}", paths + x.paths
            paths += x.paths
    return "", paths


def _round(question: Question, code: Code, start: Start, bit: int, x: Explorer) -> None:
    before, _ = _state(question, start, bit, x)
    left, args = _state(question, start, bit, x)
    try:
        code[question.pair[0], question.function](left, *args)
    except Undefined:
        return  # the left side claims nothing here
    right, args = _state(question, start, bit, x)

    def violated(_: SymState, name: str) -> None:
        raise _Failed(f"{name} can fail on the right")

    right.on_violation = violated
    try:
        code[question.pair[1], question.function](right, *args)
    except Undefined as undefined:
        raise _Failed(f"undefined on the right: {undefined}") from undefined
    loop = {"data_log", *(f"ctxt.{name}" for name in GPRS[: bit + 1])}
    unchanged = (row for row in fields_of(before, left, question) if row[0] not in loop)
    for name, u, v in (*fields_of(left, right, question), *unchanged, *_positions(question, left, right, bit)):
        if not same(u, v) and x.possible(unequal(u, v), name):
            raise _Failed(f"{name} can differ")


def _positions(question: Question, left: RoundState, right: RoundState, bit: int) -> Iterator[tuple[str, Any, Any]]:
    """Yield the position of each side that has an oracle, with the one that the invariant requires after the round."""
    for side, level in ((left, question.pair[0]), (right, question.pair[1])):
        if level in PROOF_LEVELS and not side.halt and side.at:
            dirty = side.ctxt(side.own_key)["dirty"]
            yield "data_log", side.data_log[side.vmid], taken_before(dirty, bit + 1)


def _state(question: Question, start: Start, bit: int, x: Explorer) -> tuple[RoundState, tuple[Any, ...]]:
    d, args = start_state(start, question, x, RoundState)
    assert isinstance(d, RoundState)
    d.at, d.only, d.vmid = 0, bit, start.vmid
    dirty = d.ctxt(ctxt_id(start.vmid, start.vcpuid))["dirty"]
    d.position = taken_before(dirty, bit)
    if question.coupled:
        # What the host-visible registers say is the oracle: its value for a marked register is that register.
        marked, value = ((dirty >> bit) & 1).term == 1, d.host_regs[d.own_key][GPRS[bit]]  # type: ignore[attr-defined]
        x.solver.add(z3.Implies(marked, _ORACLE(term(d.position)) == z3.Extract(INPUT_BITS - 1, 0, term(value))))
    return d, args
