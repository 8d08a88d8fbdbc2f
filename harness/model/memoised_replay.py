# SPDX-License-Identifier: Apache-2.0
"""Predict a round from a recorded execution path of the model, if its conditions hold, without running the model.

This module does not duplicate any level.  A round that fits no recorded path is replayed by
:func:`harness.model.replay.predict` over symbolic numbers that keep their expression (:class:`Traced`).  Every
condition on such a number (a branch, an index, a key) is recorded with its result.  A later round with the same results
takes the same path, so its prediction is the same expressions over its own registers.  One prediction in AUDIT is also
computed by the level, and must be equal.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from harness.arch import exits
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.model.prediction import Prediction
from harness.model.replay import predict
from harness.model.state import RData
from harness.trace.environment import SCENARIO_VM, VmEnvironment
from harness.trace.events import Switch
from harness.trace.rounds import Round

PATIENCE = 16
"""So many rounds of a kind that no noted way fits are replayed for each way that is learnt: that takes as long as ten
replays, and most ways of rare rounds are never taken again."""
AUDIT = 256
MOST_WAYS = 2048
"""Maximum number of paths that are kept for a level; rounds that fit none of them are replayed."""
TRACED_LEVELS = frozenset({"spec", "low", "body"})
"""Level ``kernel`` depends on the class of an exit, which is not a condition on a number."""

_NOWHERE: State = ()
"""The registers at the exit, for a round without one."""
_DABT, _SRT = exits.EC_BY_NAME["DABT_LOW"], exits.DABT["SRT"]

Questions = dict[str, bool]
"""Conditions: an expression over a round's registers, and whether it held."""


class TracedCondition:
    """The result of a comparison of a :class:`Traced`; it is recorded when it is used as a condition."""

    __slots__ = ("_asked", "_expression", "_holds")

    def __init__(self, expression: str, holds: bool, asked: Questions) -> None:
        self._expression, self._holds, self._asked = expression, holds, asked

    def __bool__(self) -> bool:
        self._asked[self._expression] = self._holds
        return self._holds

    def __and__(self, other: TracedCondition | bool) -> bool:
        return bool(self) and bool(other)

    def __or__(self, other: TracedCondition | bool) -> bool:
        return bool(self) or bool(other)

    __rand__, __ror__ = __and__, __or__


class Traced:
    """A number with the expression that it is the value of; ``raw``: it is a register, so below 2^64."""

    __slots__ = ("asked", "expression", "raw", "value")

    def __init__(self, expression: str, value: int, asked: Questions, raw: bool = False) -> None:
        self.expression, self.value, self.asked, self.raw = expression, value, asked, raw

    def _pin(self) -> int:
        self.asked[f"{self.expression} == {self.value}"] = True
        return self.value

    def __bool__(self) -> bool:
        self.asked[f"{self.expression} != 0"] = self.value != 0
        return self.value != 0

    def __hash__(self) -> int:
        return hash(self._pin())

    def __index__(self) -> int:
        return self._pin()

    def __rlshift__(self, other: int) -> int:
        return other << self._pin()


_IMPLIED: tuple[tuple[str, Callable[[int], bool]], ...] = (
    (">=", lambda other: other <= 0),
    ("<", lambda other: other > MASK64),
    ("<=", lambda other: other >= MASK64),
)
"""Conditions that hold for every value of a register."""


def _add_operators() -> None:
    def parts(other: object) -> tuple[str, int] | None:
        if isinstance(other, Traced):
            return f"({other.expression})", other.value
        return (str(other), other) if isinstance(other, int) else None

    def arithmetic(symbol: str, function: Callable[[int, int], int], reflected: bool) -> Callable[..., object]:
        def method(self: Traced, other: object) -> object:
            right = parts(other)
            if right is None:
                return NotImplemented
            (text, value), (left, first) = right, (f"({self.expression})", self.value)
            if reflected:
                (left, first), (text, value) = (text, value), (left, first)
            return Traced(f"{left} {symbol} {text}", function(first, value), self.asked)

        return method

    def comparison(symbol: str, function: Callable[[int, int], bool]) -> Callable[..., object]:
        implied = dict(_IMPLIED).get(symbol)

        def method(self: Traced, other: object) -> object:
            right = parts(other)
            if right is None:
                return NotImplemented
            if self.raw and implied is not None and isinstance(other, int) and implied(other):
                return True
            return TracedCondition(
                f"({self.expression}) {symbol} {right[0]}", function(self.value, right[1]), self.asked
            )

        return method

    for name, symbol in (("add", "+"), ("sub", "-"), ("mul", "*"), ("floordiv", "//"), ("and_", "&"), ("or_", "|"),
                         ("xor", "^"), ("rshift", ">>"), ("lshift", "<<")):  # fmt: skip
        function, plain = getattr(operator, name), name.rstrip("_")
        setattr(Traced, f"__{plain}__", arithmetic(symbol, function, False))
        if plain != "lshift":
            setattr(Traced, f"__r{plain}__", arithmetic(symbol, function, True))
    for name, symbol in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
        setattr(Traced, f"__{name}__", comparison(symbol, getattr(operator, name)))


_add_operators()


class _Tracing(RData):
    """A state whose decisions are plain booleans, because the path of a prediction outlives the tracing."""

    __slots__ = ()

    def decide(self, label: str, condition: bool) -> bool:
        return super().decide(label, bool(condition))


@dataclass(frozen=True, slots=True)
class _RoundKey:
    """The part of a :class:`Round` that a replay depends on."""

    exit: Switch | None
    entry: Switch
    reset: bool
    action: object
    world: VmEnvironment


ReplayPath = Callable[[State, State, Switch | None], Prediction | None]
"""A path: (registers at the exit, at the entry, the exit) to a prediction, None if the round does not take it."""


def _traced(name: str, values: State, asked: Questions) -> State:
    return cast(State, tuple(Traced(f"{name}[{i}]", value, asked, raw=True) for i, value in enumerate(values)))


def _expression(value: object) -> str:
    return value.expression if isinstance(value, Traced) else str(value)


_REGISTER = re.compile(r"([en])\[(\d+)\]")


def _one_by_one(name: str, begin: int, end: int) -> str:
    return "".join(f"{name}[{i}], " for i in range(begin, end))


def _elements(values: State) -> str:
    """Return the elements of a tuple display; registers that are neighbours are slices, which are made quicker."""
    parts: list[str] = []
    name, begin, end = "", 0, 0
    for value in (*values, None):
        text = "" if value is None else _expression(value)
        register = _REGISTER.fullmatch(text)
        if name and register is not None and register[1] == name and int(register[2]) == end:
            end += 1
            continue
        if name:
            parts.append(f"*{name}[{begin}:{end}], " if end > begin + 2 else _one_by_one(name, begin, end))
        name = "" if register is None else register[1]
        if register is not None:
            begin, end = int(register[2]), int(register[2]) + 1
        elif text:
            parts.append(f"{text}, ")
    return "".join(parts)


def _learn(round_: Round, level: str) -> ReplayPath:
    """Replay a round over traced numbers and return its path.  TypeError: an operation is not supported."""
    asked: Questions = {}
    exit_, entry = round_.exit, round_.entry
    if exit_ is not None:
        fields: Any = {
            name: Traced(f"x.{name}", getattr(exit_, name), asked, raw=True) for name in ("esr", "far", "hpfar")
        }
        exit_ = exit_._replace(values=_traced("e", exit_.values, asked), **fields)
    entry = entry._replace(values=_traced("n", entry.values, asked))
    turn = cast(Round, _RoundKey(exit_, entry, round_.reset, round_.action, round_.world))
    found = predict(turn, level, _Tracing)
    state = "None" if found.state is None else f"({_elements(found.state)})"
    misfits = " or ".join(f"not ({text})" if holds else f"({text})" for text, holds in asked.items()) or "False"
    others = f"{_expression(found.spsr_0)}, U, {_expression(found.revealed)}, W"
    prediction = f"P(H, {_expression(found.dirty)}, {state}, {others})"
    names = {"P": Prediction, "H": found.helper, "U": found.undefined, "W": found.path}
    way: ReplayPath = eval(f"lambda e, n, x: None if {misfits} else {prediction}", names)
    return way


class MemoisedReplay:
    """The recorded paths of one level; ``ways`` are those of the environment of the latest round."""

    def __init__(self, level: str, patience: int = PATIENCE) -> None:
        self._level = level
        self._patience = patience
        self._regions = SCENARIO_VM.regions
        self.ways: dict[tuple[int, ...], list[ReplayPath]] = {}
        self._by_regions = {self._regions: self.ways}
        self._count = 0
        self._unfit: Counter[tuple[int, ...]] = Counter()
        self.learnt = 0

    def __call__(self, round_: Round) -> Prediction:
        """Return the result of :func:`~harness.model.replay.predict`.  RuntimeError: an audit found a different
        result."""
        if self._level not in TRACED_LEVELS:
            return predict(round_, self._level)
        if round_.world.regions is not self._regions:  # the expressions contain the environment
            self._regions = round_.world.regions
            self.ways = self._by_regions.setdefault(self._regions, {})
        self._count += 1
        exit_, entry = round_.exit, round_.entry.values
        # The inputs of a replay other than registers and fault registers; the parts of the syndrome only keep lists
        # short.
        inject, before = round_.action.inject, _NOWHERE
        key: tuple[int, ...] = (-1, inject)
        if exit_ is not None:
            esr, before = exit_.esr, exit_.values
            kind = esr >> exits.EC_SHIFT
            key = exit_.code, round_.reset, inject, kind, _SRT.get(esr) if kind == _DABT else 0
        ways = self.ways.get(key)
        if ways is None:
            ways = self.ways[key] = []
        for position, way in enumerate(ways):
            found = way(before, entry, exit_)
            if found is not None:
                if position:
                    ways[position - 1], ways[position] = way, ways[position - 1]
                if self._count % AUDIT == 0:
                    self._audit(round_, found)
                return found
        self._unfit[key] += 1
        if self.learnt < MOST_WAYS and self._unfit[key] % self._patience == 0:
            self.learnt += 1
            way = _learn(round_, self._level)
            ways.append(way)
            return self._audit(round_, way(before, entry, exit_))
        return predict(round_, self._level)

    def _audit(self, round_: Round, found: Prediction | None) -> Prediction:
        right = predict(round_, self._level)
        if found != right:
            raise RuntimeError(f"level {self._level} and its memoised prediction differ: {right} is not {found}")
        return right


@lru_cache(maxsize=8)
def memoised_replay(level: str) -> MemoisedReplay:
    """Return the memoised replay of a level; one for each process."""
    return MemoisedReplay(level)
