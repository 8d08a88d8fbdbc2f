# SPDX-License-Identifier: Apache-2.0
"""Run both sides symbolically, and show that they agree outside the known clusters.

On every path of the left side and every path of the right side under it, z3 shows each field equal or gives a state in
which it differs.  That state is run on the levels and minimised, and must belong to a known cluster.
:attr:`Proof.scope` has what this covers: this Python rendering, these widths, these oracle lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import z3

from harness.lemma.case import Case
from harness.lemma.clusters import Cluster, cluster_of, contained, goals_of
from harness.lemma.compare_levels import Difference, Question, branches_of, compare_on_case, field_class, fork
from harness.lemma.shrink import least_case
from harness.lemma.symbolic import Explorer, OpenBranch, Sym, SymState, term
from harness.lemma.symbolic_starts import Start, start_state, starts
from harness.model import CODE
from harness.model.constants import KERNEL_ONLY
from harness.model.state import Undefined

SCOPE = (
    "this Python rendering; numbers below 2^66 as 80-bit vectors; oracles of six free values and three core values; "
    "at most two boot images; one floating point register for all; the ids and lock states of the starts; stage-2 "
    "mapping and, within restore_shadow_kvm_regs, the register loop as black boxes that both sides share"
)


@dataclass(slots=True)
class Proof:
    """What the symbolic run of one question showed."""

    question: Question
    known: int
    by_proof: int = 0
    paths: int = 0
    checks: int = 0
    starts: int = 0
    explained: dict[str, list[frozenset[str]]] = field(default_factory=dict)
    new: dict[tuple[object, ...], Cluster] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    scope: str = SCOPE

    def verdict(self) -> str:
        """Return one line: proved, refuted (and proved outside the clusters), or open."""
        numbers = f"{self.starts} starts, {self.paths} paths, {self.checks} solver calls"
        if self.new:
            head = f"refuted by {len(self.new)} counterexamples that no listed cluster covers"
        elif self.known:
            head = f"refuted ({self.known} clusters)" + ("" if self.open else ", proved equal outside them")
        else:
            head = "no counterexample" if self.open else "proved equal"
        tail = f"; open: {'; '.join(self.open)}" if self.open else ""
        return f"{head} ({numbers}){tail}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        q = self.question
        return {
            "pair": ":".join(q.pair),
            "layer": q.layer,
            "function": q.function,
            "verdict": self.verdict(),
            "proved": not self.open and not self.new and not self.known,
            "clusters_by_proof": self.by_proof,
            "proved_outside_clusters": not self.open and not self.new,
            "open": self.open,
            "new": [c.to_json() for c in self.new.values()],
            "paths": self.paths,
            "checks": self.checks,
            "scope": self.scope,
        }


class _Run:
    """One start of one question."""

    def __init__(self, proof: Proof, start: Start, known: set[tuple[object, ...]]) -> None:
        self._proof, self._question, self._start, self._known = proof, proof.question, start, known
        self._x = Explorer()

    def explore(self) -> None:
        proof = self._proof
        try:
            self._x.explore(self._both)
        except OpenBranch as reason:
            self._open(f"{self._start.name}: {reason}")
        proof.paths, proof.checks = proof.paths + self._x.paths, proof.checks + self._x.checks

    def _open(self, reason: str) -> None:
        if reason not in self._proof.open:
            self._proof.open.append(reason)

    def _both(self) -> None:
        pair, function = self._question.pair, self._question.function
        left, args = start_state(self._start, self._question, self._x)
        try:
            CODE[pair[0], function](left, *args)
        except Undefined:
            return  # the left side claims nothing here
        right, args = start_state(self._start, self._question, self._x)

        def violated(d: SymState, name: str) -> None:
            goal = f"undefined {name} at {fork(tuple(left.path), tuple(d.path))}"
            if not self._is_explained(goal, left, d):
                self._witness(goal)

        right.on_violation = violated
        try:
            CODE[pair[1], function](right, *args)
        except Undefined:
            return
        self._compare(left, right)

    def _compare(self, left: SymState, right: SymState) -> None:
        at = fork(tuple(left.path), tuple(right.path))
        if [name for name, _ in left.calls] != [name for name, _ in right.calls]:
            self._witness(None)
            return
        for (name, a), (_, b) in zip(left.calls, right.calls, strict=True):
            for u, v in zip(a, b, strict=True):
                if self._can_differ(u, v, name):
                    self._x.solver.push()
                    self._x.solver.add(term(u) != term(v))
                    self._witness(None)
                    self._x.solver.pop()
        groups: dict[str, list[Any]] = {}
        for name, u, v in fields_of(left, right, self._question):
            if not same(u, v):
                groups.setdefault(field_class(name), []).append(unequal(u, v))
        for name, conditions in groups.items():
            goal = f"{name} at {at}"
            if self._is_explained(goal, left, right):
                continue
            differ = z3.Or(*conditions)
            if self._x.possible(differ, goal):
                self._x.solver.push()
                self._x.solver.add(differ)
                self._witness(goal)
                self._x.solver.pop()

    def _is_explained(self, goal: str, left: SymState, right: SymState) -> bool:
        """Return whether a cluster shows this goal on branches that these paths take, too."""
        branch = branches_of(left.path, right.path)
        return any(known <= branch for known in self._proof.explained.get(goal, ()))

    def _can_differ(self, u: Any, v: Any, where: str) -> bool:
        return not same(u, v) and self._x.possible(unequal(u, v), where)

    def _witness(self, goal: str | None) -> None:
        """Take a state from the solver, run it for real, and put it in a cluster."""
        proof, question = self._proof, self._question
        if self._x.solver.check() != z3.sat:
            self._open(f"{self._start.name}: the solver gave up on a witness")
            return
        case = self._start.case(self._x.solver.model())
        difference = compare_on_case(question, dict(case))[0]
        if not isinstance(difference, Difference) or (goal is not None and goal not in difference.goals()):
            self._open(f"{self._start.name}: a symbolic difference ({goal or 'black box'}) that the run does not show")
            return
        branch = difference.branches()
        for shown in difference.goals():
            if not any(known <= branch for known in proof.explained.get(shown, ())):
                self._place(case, shown)

    def _place(self, case: Case, goal: str) -> None:
        small = least_case(self._question, case, goal)
        cluster = cluster_of(self._question, small)
        assert cluster is not None
        self._proof.explained.setdefault(goal, []).append(cluster.branches)
        if contained(self._question, small, goal):
            return
        if cluster.key not in self._known:
            self._proof.new[cluster.key] = cluster


def prove(question: Question, known: tuple[Cluster, ...]) -> Proof:
    """Explore every start of the question; ``known`` are its clusters."""
    proof = Proof(question, len(known))
    keys = {c.key for c in known}
    for cluster in known:
        for goal in goals_of(cluster):
            proof.explained.setdefault(goal, []).append(cluster.branches)
    for start in starts(question):
        if start.open is not None:
            proof.open.append(start.open)
            continue
        proof.starts += 1
        _Run(proof, start, keys).explore()
    return proof


def same(u: Any, v: Any) -> bool:
    """Return whether two values are equal whatever the state, as far as simplification sees."""
    if isinstance(u, Sym) and isinstance(v, Sym):
        return bool(u.term.eq(v.term) or z3.is_true(z3.simplify(u.term == v.term)))
    if isinstance(u, Sym) or isinstance(v, Sym):
        return bool(z3.is_true(z3.simplify(term(u) == term(v))))
    return bool(u == v)


def unequal(u: Any, v: Any) -> Any:
    """Return the solver's condition that two values differ."""
    if isinstance(u, Sym) or isinstance(v, Sym):
        return term(u) != term(v)
    return z3.BoolVal(u != v)


def fields_of(a: SymState, b: SymState, question: Question) -> Iterator[tuple[str, Any, Any]]:
    """Yield every field that either side can touch, by the names that :func:`~harness.lemma.compare_levels.differing`
    gives."""
    key = a.own_key
    for k in sorted({*a.shadow_ctxts, *b.shadow_ctxts}):
        left, right = a.ctxt(k), b.ctxt(k)
        for name, value in left.items():
            if value is not right[name] and not (question.coupled and name in KERNEL_ONLY):
                yield (f"ctxt.{name}" if k == key else f"ctxt[{k}].{name}"), value, right[name]
    yield "halt", a.halt, b.halt
    if len(a.revealed) != len(b.revealed):
        yield "revealed", len(a.revealed), len(b.revealed)
    else:
        for (*where, u), (*there, v) in zip(a.revealed, b.revealed, strict=True):
            yield "revealed", where, there
            yield "revealed", u, v
    for vmid in sorted({*a.vminfos, *b.vminfos}):
        for name in ("vm_state", "powered_on"):
            yield f"vminfos.{name}", getattr(a.info(vmid), name), getattr(b.info(vmid), name)
    if not question.coupled:
        yield "tstate", a.tstate, b.tstate
        yield "lock", {k for k, v in a.lock.items() if v}, {k for k, v in b.lock.items() if v}
        for name in ("data_log", "core_data_log"):
            left, right = getattr(a, name), getattr(b, name)
            for vmid in sorted({*left, *right}):
                yield name, left.get(vmid, 0), right.get(vmid, 0)
        if question.logs:
            yield "log.info", {k: v for k, v in a.log.items() if k >= 22}, {k: v for k, v in b.log.items() if k >= 22}
