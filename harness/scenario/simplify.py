# SPDX-License-Identifier: Apache-2.0
"""Order scenarios by simplicity, and simplify them: one class for each pass.

Pure: the predicate decides whether a candidate still shows the finding (:mod:`harness.minimiser`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import TypeVar

from harness.arch.a64 import FORM, NUMBER, V_NAMES, W_NAMES, X_NAMES
from harness.arch.registers import INDEX
from harness.layout import DATA
from harness.minimiser import Pass
from harness.scenario import memory_slots
from harness.scenario.scenario import Scenario, Step, format_step, slot_step
from harness.scenario.steps import INITIAL_NAMES, KINDS, STEP_KINDS, Actor, Arg

T = TypeVar("T")
Order = tuple[int, int, int, int, int, str]

_RANK: Mapping[str, int] = {kind.keyword: i for i, kind in enumerate(STEP_KINDS)}
_NAME_RANK: Mapping[str, int] = (
    {name: 120 + i for i, name in enumerate(sorted({n for k in STEP_KINDS for o in k.operands for n in o.names}))}
    | dict(INDEX)
    | {"rw": 0}  # the default kind of memory slot
    | {name: 40 * i + j for i, names in enumerate((X_NAMES, W_NAMES, V_NAMES)) for j, name in enumerate(names)}
)
PAIRS_BELOW = 14
"""Up to this number of steps all pairs are tried, for steps that only work together."""


def weight(value: int) -> int:
    """Return the complexity of a number: set bits plus width; 0 for 0."""
    return value.bit_count() + value.bit_length()


def order(scenario: Scenario) -> Order:
    """Return the sort key: number of steps and registers, kinds of steps, weight of numbers, register names, text."""
    given = (f"{n} {v:#x}" for n, v in scenario.registers)
    text = "\n".join([*given, *map(format_step, scenario.steps), repr((scenario.slots, scenario.boot))])
    return (*_measures(scenario), text)


def _measures(scenario: Scenario) -> tuple[int, int, int, int, int]:
    """Return an :func:`order` without the text."""
    numbers = [value for _, value in scenario.registers]
    numbers += [number for word in scenario.boot for number in word]
    names = [name for name, _ in scenario.registers]
    for step in (*scenario.steps, *map(slot_step, scenario.slots)):
        for arg in step.args:
            if isinstance(arg, int):
                numbers.append(arg)
            else:
                names.append(arg)
    return (
        len(scenario.steps),
        len(scenario.registers) + len(scenario.slots) + len(scenario.boot),
        sum(_RANK[step.kind] for step in scenario.steps),
        sum(map(weight, numbers)),
        sum(_NAME_RANK[name] for name in names),
    )


def simplicity(scenario: Scenario) -> int:
    """Return one number of at most 62 bits that sorts scenarios (almost) as :func:`order`."""
    steps, registers, kinds, numbers, _ = _measures(scenario)
    parts = ((steps, 10), (registers, 8), (kinds, 16), (numbers, 20))
    total = 0
    for part, width in parts:
        total = total << width | min(part, (1 << width) - 1)
    return total


def _smaller_numbers(value: int) -> Iterator[int]:
    """Yield numbers with a lower weight than ``value``, the lowest first."""
    tries = [0, 1]
    tries += [1 << bit for bit in range(value.bit_length())]
    tries += [value >> 32, value >> 16, value >> 8, value & 0xFFFF_FFFF, value & 0xFFFF, value & 0xFF]
    tries += [value & ~(1 << bit) for bit in reversed(range(value.bit_length()))]
    for other in dict.fromkeys(tries):
        if weight(other) < weight(value):
            yield other


class DropSteps:
    """Remove steps: halves, quarters and so on down to single ones, from the end; then any two."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with fewer steps."""
        steps = value.steps
        size = len(steps)
        while size:
            for start in range(len(steps) - size, -1, -size):
                yield replace(value, steps=steps[:start] + steps[start + size :])
            size //= 2
        if len(steps) <= PAIRS_BELOW:
            for i, j in combinations(range(len(steps)), 2):
                yield replace(value, steps=tuple(s for k, s in enumerate(steps) if k not in (i, j)))


class StartWith:
    """Give a register its value before the start instead of by a host step."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with one host write less."""
        for i, step in enumerate(value.steps):
            if step.kind == "set" and step.args[0] in INITIAL_NAMES:
                name, number = step.args
                assert isinstance(name, str) and isinstance(number, int)
                registers = dict(value.registers) | {name: number}
                rest = value.steps[:i] + value.steps[i + 1 :]
                yield replace(value, registers=tuple(registers.items()), steps=rest)


class DropRegisters:
    """Leave initial registers at their reset values: all, halves, single ones."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with fewer registers."""
        yield from (replace(value, registers=kept) for kept in _shorter(value.registers))


class DropShape:
    """Start with the default memory slots and empty memory: all, halves, single ones; or with a simpler slot."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with fewer or simpler lines about the VM's initial state."""
        yield from (replace(value, slots=kept) for kept in _shorter(value.slots))
        yield from (replace(value, boot=kept) for kept in _shorter(value.boot))
        for i, slot in enumerate(value.slots):
            for other in (*(slot._replace(kind=kind) for kind in memory_slots.KINDS), slot._replace(home=DATA.base)):
                yield replace(value, slots=(*value.slots[:i], other, *value.slots[i + 1 :]))
        for i, (address, word) in enumerate(value.boot):
            for number in _smaller_numbers(word):
                yield replace(value, boot=(*value.boot[:i], (address, number), *value.boot[i + 1 :]))


def _shorter(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """Yield the items without all, without a half, and so on down to without each one."""
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        size //= 2


class SimplerSteps:
    """Replace a step by one of an earlier row of the step table, with the operands that they share."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with one simpler step."""
        for i, step in enumerate(value.steps):
            for kind in STEP_KINDS[: _RANK[step.kind]]:
                if kind.side is KINDS[step.kind].side:
                    for other in _as(step, kind.keyword):
                        yield _with_step(value, i, other)


def _as(step: Step, keyword: str) -> Iterator[Step]:
    """Yield steps of another kind with the operands of ``step`` that fit, and defaults for the others."""
    kind = KINDS[keyword]
    if kind.forms and KINDS[step.kind].forms:
        target, base, offset = step.args
        assert isinstance(target, str) and isinstance(offset, int)
        for name in dict.fromkeys((target, X_NAMES[NUMBER[target]], W_NAMES[NUMBER[target]])):
            form = FORM.get((keyword, name[0]))
            if form is not None:
                yield Step(keyword, (name, base, 0 if offset % form.size or offset > form.max_offset else offset))
    elif not kind.forms and all(not operand.names for operand in kind.operands):
        yield Step(keyword, tuple(operand.least for operand in kind.operands))
    elif kind.keyword == "br" and KINDS[step.kind].forms:
        yield Step(keyword, (step.args[1],))


def _with_step(scenario: Scenario, index: int, step: Step) -> Scenario:
    # Expectations are dropped: a simpler scenario must only show the signature that it is simplified for.
    return replace(scenario, steps=(*scenario.steps[:index], step, *scenario.steps[index + 1 :]), expects=())


class SmallerOperands:
    """Reduce the weight of one number of one step."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with a lower number in one step."""
        for i, step in enumerate(value.steps):
            for j, arg in enumerate(step.args):
                if isinstance(arg, int):
                    unit, least = _unit(step, j), KINDS[step.kind].operands[j].least
                    for number in _smaller_numbers(arg):
                        if number >= least and not number % unit:
                            yield _with_step(value, i, Step(step.kind, (*step.args[:j], number, *step.args[j + 1 :])))


def _unit(step: Step, index: int) -> int:
    kind, target = KINDS[step.kind], step.args[0]
    return FORM[step.kind, target[0]].size if kind.forms and isinstance(target, str) else kind.operands[index].unit


class SmallerRegisters:
    """Reduce the weight of the value of one initial register."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with a lower value of one register."""
        for i, (name, old) in enumerate(value.registers):
            for number in _smaller_numbers(old):
                registers = (*value.registers[:i], (name, number), *value.registers[i + 1 :])
                yield replace(value, registers=registers)


class LowerNames:
    """Rename a general-purpose register to a lower one, everywhere or in one operand; W targets to X."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield scenarios with a lower register name."""
        used = sorted({NUMBER[name] for name in _names(value) if name in NUMBER} - {31})
        for old in used:
            for new in range(old):
                yield _rename(value, old, new)
        for i, step in enumerate(value.steps):
            for j, arg in enumerate(step.args):
                if isinstance(arg, str) and arg in NUMBER:
                    for other in _lower_names(step, arg):
                        yield _with_step(value, i, Step(step.kind, (*step.args[:j], other, *step.args[j + 1 :])))


def _names(scenario: Scenario) -> Iterator[str]:
    yield from (name for name, _ in scenario.registers)
    yield from (arg for step in scenario.steps for arg in step.args if isinstance(arg, str))


def _lower_names(step: Step, name: str) -> Iterator[str]:
    number = NUMBER[name]
    if name[0] == "w" and (step.kind, "x") in FORM:
        offset = step.args[2]
        if isinstance(offset, int) and not offset % FORM[step.kind, "x"].size:
            yield X_NAMES[number]
    names = W_NAMES if name[0] == "w" else X_NAMES
    yield from names[: min(number, 8)]


def _rename(scenario: Scenario, old: int, new: int) -> Scenario:
    def renamed(arg: Arg) -> Arg:
        if not isinstance(arg, str) or NUMBER.get(arg) != old:
            return arg
        return (W_NAMES if arg[0] == "w" else X_NAMES)[new]

    # A scenario must not give a register twice: the existing one is kept.
    registers: dict[str, int] = {}
    for name, number in scenario.registers:
        registers.setdefault(str(renamed(name)), number)
    steps = tuple(Step(step.kind, tuple(map(renamed, step.args))) for step in scenario.steps)
    return replace(scenario, registers=tuple(registers.items()), steps=steps, expects=())


class SortRegisters:
    """Sort the initial registers, and consecutive host writes, in the order of the register table."""

    def candidates(self, value: Scenario) -> Iterator[Scenario]:
        """Yield the scenario in canonical order, if that differs."""
        yield replace(value, registers=tuple(sorted(value.registers, key=lambda item: INDEX[item[0]])))
        for i, (one, two) in enumerate(zip(value.steps, value.steps[1:], strict=False)):
            if KINDS[one.kind].side is KINDS[two.kind].side is Actor.HOST:
                yield replace(value, steps=(*value.steps[:i], two, one, *value.steps[i + 2 :]))


PASSES: tuple[Pass[Scenario], ...] = (
    DropSteps(),
    StartWith(),
    DropRegisters(),
    DropShape(),
    SimplerSteps(),
    SmallerOperands(),
    SmallerRegisters(),
    LowerNames(),
    SortRegisters(),
)
"""The passes, in the order in which they are tried."""
