# SPDX-License-Identifier: Apache-2.0
"""Symbolic values and states on which the functions of a level run without a change.

A number is a bit-vector of 80 bits that stands for an unbounded one: inputs stay below 2^66, and no expression of the
model leaves 80 bits.  A branch asks the solver which outcomes are possible and takes one; a run of its own explores the
other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import z3

from harness.model.state import RData, Undefined

WIDTH = 80
INPUT_BITS = 66


def term(value: Any) -> Any:
    """Return the z3 term of a number."""
    return value.term if isinstance(value, Sym) else z3.BitVecVal(value, WIDTH)


class Truth:
    """A symbolic condition.  It has no plain truth value: a branch that avoids the hook raises ``TypeError``."""

    __slots__ = ("term",)

    def __init__(self, condition: Any) -> None:
        self.term = condition

    def __and__(self, other: Any) -> Truth:
        return Truth(z3.And(self.term, _condition(other)))

    def __or__(self, other: Any) -> Truth:
        return Truth(z3.Or(self.term, _condition(other)))

    __rand__, __ror__ = __and__, __or__

    def __bool__(self) -> bool:
        raise TypeError("a symbolic condition was used as a plain one")


def _condition(value: Any) -> Any:
    return value.term if isinstance(value, Truth) else z3.BoolVal(bool(value))


class Sym:
    """An unsigned number with the operators that the levels use; a subclass keeps its type."""

    __slots__ = ("term",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, t: Any) -> None:
        self.term = t

    def __add__(self, other: Any) -> Sym:
        return type(self)(self.term + term(other))

    def __sub__(self, other: Any) -> Sym:
        return type(self)(self.term - term(other))

    def __mul__(self, other: Any) -> Sym:
        return type(self)(self.term * term(other))

    def __and__(self, other: Any) -> Sym:
        return type(self)(self.term & term(other))

    def __or__(self, other: Any) -> Sym:
        return type(self)(self.term | term(other))

    def __floordiv__(self, other: int) -> Sym:
        if other & (other - 1):
            return type(self)(z3.UDiv(self.term, term(other)))
        return type(self)(z3.LShR(self.term, term(other.bit_length() - 1)))

    def __rshift__(self, other: Any) -> Sym:
        return type(self)(z3.LShR(self.term, term(other)))

    def __lshift__(self, other: Any) -> Sym:
        return type(self)(self.term << term(other))

    def __rlshift__(self, other: Any) -> Sym:
        return type(self)(term(other) << self.term)

    __radd__, __rmul__, __rand__, __ror__ = __add__, __mul__, __and__, __or__

    def __lt__(self, other: Any) -> Truth:
        return Truth(z3.ULT(self.term, term(other)))

    def __le__(self, other: Any) -> Truth:
        return Truth(z3.ULE(self.term, term(other)))

    def __gt__(self, other: Any) -> Truth:
        return Truth(z3.UGT(self.term, term(other)))

    def __ge__(self, other: Any) -> Truth:
        return Truth(z3.UGE(self.term, term(other)))

    def __eq__(self, other: object) -> Any:
        return Truth(self.term == term(other))

    def __ne__(self, other: object) -> Any:
        return Truth(self.term != term(other))


def choose(condition: Any, a: Any, b: Any) -> Sym:
    """Return ``a`` if the condition holds, else ``b``."""
    return Sym(z3.If(_condition(condition), term(a), term(b)))


class Infeasible(Exception):
    """The path that was asked for does not exist."""


class OpenBranch(Exception):
    """The solver did not decide, or there are too many paths; the text says where."""


class Explorer:
    """Depth-first over the paths of a run: ``run`` is repeated, each time with other outcomes of its branches."""

    def __init__(self, limit: int = 4000, timeout_ms: int = 60_000) -> None:
        self.solver = z3.Solver()
        self.solver.set("timeout", timeout_ms)
        self.paths = self.checks = 0
        self._limit = limit
        self._prefix: tuple[bool, ...] = ()
        self._taken: list[bool] = []
        self._todo: list[tuple[bool, ...]] = []

    def explore(self, run: Callable[[], None]) -> None:
        """Run every feasible path; raise :class:`OpenBranch` beyond the limit."""
        self._todo = [()]
        while self._todo:
            self.paths += 1
            if self.paths > self._limit:
                raise OpenBranch(f"more than {self._limit} paths")
            self._prefix, self._taken = self._todo.pop(), []
            self.solver.push()
            try:
                run()
            except Infeasible:
                pass
            finally:
                self.solver.pop()

    def possible(self, condition: Any, where: str) -> bool:
        """Return whether the condition can hold on this path; raise :class:`OpenBranch` if the solver gives up."""
        self.checks += 1
        result = self.solver.check(condition)
        if result == z3.unknown:
            raise OpenBranch(f"the solver gave up at {where}")
        return bool(result == z3.sat)

    def branch(self, condition: Any, where: str) -> bool:
        """Take one outcome of a branch and leave the other for later."""
        at = len(self._taken)
        if at < len(self._prefix):
            taken = self._prefix[at]
        else:
            taken = self.possible(condition, where)
            if taken and self.possible(z3.Not(condition), where):
                self._todo.append((*self._taken, False))
        self._taken.append(taken)
        self.solver.add(condition if taken else z3.Not(condition))
        return taken

    def assume(self, condition: Any, where: str) -> None:
        """Continue where the condition holds; raise :class:`Infeasible` if it cannot."""
        if not self.possible(condition, where):
            raise Infeasible(where)
        self.solver.add(condition)


class SymState(RData):
    """A working state whose numbers may be symbolic; ``halt``, ids, lock states and oracle positions are plain.

    ``on_violation`` is called when a precondition can fail on this path; the run continues where it holds.
    ``boxes`` are functions taken as black boxes: a call is noted in ``calls`` with its arguments.
    """

    __slots__ = ("boxes", "calls", "on_violation", "own_key", "x")

    x: Explorer
    boxes: dict[str, Callable[[SymState, tuple[Any, ...]], None]]
    calls: list[tuple[str, tuple[Any, ...]]]
    on_violation: Callable[[SymState, str], None] | None
    own_key: int

    def decide(self, label: str, condition: Any) -> bool:
        """Branch on a symbolic condition through the explorer."""
        if isinstance(condition, Truth):
            simple = z3.simplify(condition.term)
            condition = z3.is_true(simple)
            if not (z3.is_true(simple) or z3.is_false(simple)):
                condition = self.x.branch(simple, label)
        self.path.append((label, bool(condition)))
        return bool(condition)

    def rely(self, name: str, condition: Any) -> None:
        """Assume a precondition; if ``on_violation`` is set, call it first where the precondition can fail."""
        if not isinstance(condition, Truth):
            if not condition:
                if self.on_violation is not None:
                    self.on_violation(self, name)
                raise Undefined(name)
            return
        simple = z3.simplify(condition.term)
        if z3.is_true(simple):
            return
        if self.on_violation is not None and self.x.possible(z3.Not(simple), name):
            self.x.solver.push()
            self.x.solver.add(z3.Not(simple))
            self.on_violation(self, name)
            self.x.solver.pop()
        self.x.assume(simple, name)

    def pick(self, label: str, value: Any, limit: int) -> int:
        """Run one path for each possible index."""
        if isinstance(value, Sym):
            for i in range(limit - 1):
                if self.x.branch(value.term == i, label):
                    return i
            return limit - 1
        return int(value)

    def shared(self, function: Callable[..., None], *args: Any) -> None:
        """Note the call of a black box; run any other function."""
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        box = self.boxes.get(name)
        if box is None:
            function(self, *args)
        else:
            self.calls.append((name, args))
            box(self, args)


class BranchingState(SymState):
    """A symbolic state whose preconditions are branches: where one fails, the function is undefined."""

    __slots__ = ()

    def rely(self, name: str, condition: Any) -> None:
        """Branch on a precondition; raise :class:`Undefined` where it fails."""
        if isinstance(condition, Truth):
            simple = z3.simplify(condition.term)
            condition = z3.is_true(simple)
            if not (z3.is_true(simple) or z3.is_false(simple)):
                condition = self.x.branch(simple, name)
        if not condition:
            raise Undefined(name)
