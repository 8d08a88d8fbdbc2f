# SPDX-License-Identifier: Apache-2.0
"""Prove the repaired statement of a question outside the regions of its causes, and measure each region.

*Outside*: with every region excluded by its formula, both sides are run symbolically on every start, and no field may
be able to differ.  *Exact*: inside a region, wherever the left side is defined, the two sides differ; the hypothesis
that excludes it is then the weakest one.  A region that is not exact shows a state in which the sides agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import z3

from harness.lemma.case import Case, case_of
from harness.lemma.causes import Cause
from harness.lemma.compare_levels import EQUAL, Code, Difference, Question, compare_on_case, fork
from harness.lemma.formula import Formula, negated
from harness.lemma.generate import random_case
from harness.lemma.prove import fields_of, same, unequal
from harness.lemma.register_loop import open_rounds
from harness.lemma.shrink import order, passes
from harness.lemma.symbolic import Explorer, OpenBranch, SymState, Truth, term
from harness.lemma.symbolic_starts import Start, lookup, repair_starts, start_state
from harness.minimiser import minimise
from harness.model import CODE
from harness.model.state import Undefined

MAX_WITNESSES = 6
MEASURED_BITS = (None, -1, 0, 30)
"""Of the starts with one marked register, those on which a region is measured."""
EXACT, AGREES, OPEN = "exact", "agrees", "open"
DRAWS, BUDGET = 600, 2000
"""Random states in which an agreement inside a region is looked for, and the steps to make one smaller."""


@dataclass(slots=True)
class Region:
    """The verdict on one cause's region: ``exact``, ``agrees`` (with a state) or ``open`` (with a reason).

    ``reached``: some start has a state in it that the left side is defined on.
    """

    cause: str
    verdict: str = EXACT
    state: Case = ()
    reason: str = ""
    reached: bool = False


@dataclass(slots=True)
class Repair:
    """The result for one question: counterexamples outside the regions, what stayed open, and each region."""

    question: Question
    outside: dict[str, Case] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    paths: int = 0
    checks: int = 0

    @property
    def proved(self) -> bool:
        """Return whether the repaired statement holds: no counterexample outside the regions, and nothing open."""
        return not self.outside and not self.open


class _Enough(Exception):
    """One witness settles it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is run: which ``starts`` (None: all), and the ``code`` of the levels."""

    starts: tuple[Start, ...] | None = None
    code: Code = field(default_factory=lambda: CODE)

    def starts_of(self, question: Question) -> tuple[Start, ...]:
        """Return the starts of a question."""
        return tuple(repair_starts(question)) if self.starts is None else self.starts


EVERYTHING = Scope()


def repair(question: Question, causes: Sequence[Cause], scope: Scope = EVERYTHING, *, measure: bool = True) -> Repair:
    """Prove the statement outside the causes' regions; with ``measure``, decide for each region whether it is exact."""
    result = Repair(question)
    for start in scope.starts_of(question):
        run = _Run(question, start, scope.code)
        outside = [negated(c.formula.holds(lookup(start, question))) for c in causes]
        run.explore(outside, lambda run=run: run.agree(result))  # type: ignore[misc]
        _count(result, run, f"{start.name}: ")
    for region, reason in gaps(question):
        if _is_left(question, Formula(region), causes):
            why, paths = open_rounds(question, causes, scope.starts_of(question), scope.code)
            result.open += [f"{reason}; {why}"] if why else []
            result.paths += paths
    for cause in causes if measure else ():
        result.regions.append(_region(result, cause, scope))
    return result


_SEVERAL = "two or more of x0..x30 marked at once"


def gaps(question: Question) -> tuple[tuple[str, str], ...]:
    """Return the states of a question that no start covers: a formula, and the reason."""
    if question.function == "sync_dirty_to_shadow":
        return (("not halt and registers(ctxt.dirty) >= 2", _SEVERAL),)
    if question.function == "restore_shadow_kvm_regs" and question.coupled:
        return (("not halt and ctxt.dirty != INVALID64 and ctxt.ec == TRAP and registers(ctxt.dirty) >= 2", _SEVERAL),)
    return ()


def _is_left(question: Question, region: Formula, causes: Sequence[Cause]) -> bool:
    """Return whether a state of the region is outside every cause."""
    start, solver = Start(), z3.Solver()
    for formula, wanted in ((region, True), *((c.formula, False) for c in causes)):
        holds = formula.holds(lookup(start, question))
        condition = holds.term if isinstance(holds, Truth) else z3.BoolVal(bool(holds))
        solver.add(condition if wanted else z3.Not(condition))
    return bool(solver.check() != z3.unsat)


def _region(result: Repair, cause: Cause, scope: Scope) -> Region:
    region, question = Region(cause.name), result.question
    region.state = _agreeing(question, cause.formula, scope.code)
    if region.state:
        region.verdict = AGREES
        return region
    for start in scope.starts_of(question):
        if start.dirty_bit not in MEASURED_BITS:
            continue
        run = _Run(question, start, scope.code)
        try:
            inside = cause.formula.holds(lookup(start, question))
            run.explore([inside], lambda run=run: run.differ(region))  # type: ignore[misc]
        except _Enough:
            break
        finally:
            result.paths, result.checks = result.paths + run.x.paths, result.checks + run.x.checks
        if run.reason:
            region.verdict, region.reason = OPEN, run.reason
            break
    if region.verdict == EXACT and not region.reached:
        region.verdict, region.reason = OPEN, "no symbolic start has a state in it"
    return region


def _agreeing(question: Question, inside: Formula, code: Code) -> Case:
    """Return a least drawn state inside on which the sides agree; empty if none of the drawn ones is like that."""

    def agrees(case: Case) -> bool:
        return inside.of_case(dict(case)) and compare_on_case(question, dict(case), code)[0] == EQUAL

    rng = random.Random(1)
    drawn = sorted({case_of(random_case(rng, question.function)) for _ in range(DRAWS)}, key=order)
    first = next((case for case in drawn if agrees(case)), None)
    return () if first is None else minimise(first, agrees, order, passes(question.function), BUDGET)


def _count(result: Repair, run: _Run, where: str) -> None:
    result.paths, result.checks = result.paths + run.x.paths, result.checks + run.x.checks
    if run.reason and where + run.reason not in result.open:
        result.open.append(where + run.reason)


class _Run:
    """One start of one question."""

    def __init__(self, question: Question, start: Start, code: Code) -> None:
        self._question, self._start, self._code = question, start, code
        self.x, self.reason = Explorer(), ""

    def explore(self, conditions: Sequence[Any], run: Callable[[], None]) -> None:
        """Run the part of the start on which the conditions hold; ``reason`` has why it was not all of it."""
        for condition in conditions:
            if isinstance(condition, Truth):
                self.x.solver.add(condition.term)
            elif not condition:
                return
        try:
            self.x.explore(run)
        except OpenBranch as reason:
            self.reason = str(reason)

    def _left(self) -> SymState | None:
        left, args = start_state(self._start, self._question, self.x)
        try:
            self._code[self._question.pair[0], self._question.function](left, *args)
        except Undefined:
            return None  # the left side claims nothing here
        return left

    def agree(self, result: Repair) -> None:
        """Run one path of both sides; note what can differ."""
        left = self._left()
        if left is None:
            return
        right, args = start_state(self._start, self._question, self.x)

        def violated(_: SymState, name: str) -> None:
            self._witness(f"undefined: {name}", result)

        right.on_violation = violated
        try:
            self._code[self._question.pair[1], self._question.function](right, *args)
        except Undefined:
            return
        if _names(left) != _names(right):
            self._witness("a mapping on one side", result)
            return
        pairs = [
            (name, u, v)
            for (name, a), (_, b) in zip(left.calls, right.calls, strict=True)
            for u, v in zip(a, b, strict=True)
        ]
        for name, u, v in (*pairs, *fields_of(left, right, self._question)):
            if same(u, v):
                continue
            goal = f"{name} at {fork(tuple(left.path), tuple(right.path))}"
            condition = unequal(u, v)
            if goal not in result.outside and self.x.possible(condition, goal):
                self.x.solver.push()
                self.x.solver.add(condition)
                self._witness(goal, result)
                self.x.solver.pop()

    def _witness(self, goal: str, result: Repair) -> None:
        if self.x.solver.check() != z3.sat:
            raise OpenBranch(f"the solver gave up on a witness of {goal}")
        case = self._start.case(self.x.solver.model())
        if not isinstance(compare_on_case(self._question, dict(case), self._code)[0], Difference):
            raise OpenBranch(f"a symbolic difference ({goal}) that the run does not show")
        result.outside.setdefault(goal, case)
        if len(result.outside) >= MAX_WITNESSES:
            raise OpenBranch(f"more than {MAX_WITNESSES} kinds of counterexample")

    def differ(self, region: Region) -> None:
        """Run one path of both sides; note a state in which they agree, without the result of a black box."""
        left = self._left()
        if left is None:
            return
        region.reached = True
        right, args = start_state(self._start, self._question, self.x)
        try:
            self._code[self._question.pair[1], self._question.function](right, *args)
        except Undefined:
            return
        equal = [term(0) == term(0)]
        for _, u, v in fields_of(left, right, self._question):
            if not same(u, v):
                equal.append(z3.Not(unequal(u, v)))
        if self.x.possible(z3.And(*equal), "a state that agrees"):
            self.x.solver.check(z3.And(*equal))
            case = self._start.case(self.x.solver.model())
            if compare_on_case(self._question, dict(case), self._code)[0] != EQUAL:
                raise OpenBranch("the registers agree, and what a mapping does is not run symbolically")
            region.verdict, region.state = AGREES, case
            raise _Enough


def _names(d: SymState) -> list[str]:
    return [name for name, _ in d.calls]
