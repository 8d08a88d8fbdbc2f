# SPDX-License-Identifier: Apache-2.0
"""Mutate scenarios into valid scenarios; the result is a function of the random number generator passed in.

Scenarios are kept long (MIN_STEPS..MAX_LENGTH), because the cost of a run before its first exit does not depend on the
number of exits.  ``custom_mutator`` and ``custom_crossover`` are the same mutations for libFuzzer, on scenario text.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fuzz.generate import memory_slots
from fuzz.generate.idioms import IDIOMS
from fuzz.generate.stage1_tables import repair_stage1
from fuzz.generate.steps import EVERYWHERE, operands
from fuzz.generate.values import BOUNDARIES, Weights, bits, register_value
from harness.arch.a64 import FORM
from harness.arch.registers import MASK64
from harness.errors import InputError
from harness.layout import MAX_STEPS
from harness.scenario.memory_slots import Slot
from harness.scenario.scenario import Scenario, Step, format_scenario, parse
from harness.scenario.steps import INITIAL_NAMES, KINDS, Actor, Arg

ABOUT = "Made by the mutator."
MIN_STEPS, MAX_LENGTH = 60, 200
assert MAX_LENGTH <= MAX_STEPS

Steps = list[Step]
Registers = dict[str, int]
Move = Callable[[Random, Steps, Registers], None]

# Sorted, because the order of a set differs from process to process.
_NAMES: dict[tuple[str, int], tuple[str, ...]] = {
    (kind.keyword, i): tuple(sorted(operand.names))
    for kind in KINDS.values()
    for i, operand in enumerate(kind.operands)
    if operand.names
} | {("vcpu", 0): EVERYWHERE}


def _at(rng: Random, items: Steps) -> int:
    return int(rng.random() * len(items))


def _span(rng: Random, steps: Steps, most: int) -> tuple[int, int]:
    start = _at(rng, steps)
    return start, min(len(steps), start + 1 + int(rng.random() * most))


def insert_idiom(rng: Random, steps: Steps, _: Registers) -> None:
    """Insert an idiom, or a single step, at a random position."""
    at = int(rng.random() * (len(steps) + 1))
    steps[at:at] = IDIOMS.pick(rng)(rng, steps)


def delete(rng: Random, steps: Steps, _: Registers) -> None:
    """Delete up to four consecutive steps."""
    start, end = _span(rng, steps, 4)
    del steps[start:end]


def duplicate(rng: Random, steps: Steps, _: Registers) -> None:
    """Copy up to eight consecutive steps to a random position."""
    start, end = _span(rng, steps, 8)
    at = int(rng.random() * (len(steps) + 1))
    steps[at:at] = steps[start:end]


def swap(rng: Random, steps: Steps, _: Registers) -> None:
    """Exchange two steps."""
    a, b = _at(rng, steps), _at(rng, steps)
    steps[a], steps[b] = steps[b], steps[a]


def replace(rng: Random, steps: Steps, _: Registers) -> None:
    """Replace a step by an idiom."""
    at = _at(rng, steps)
    steps[at : at + 1] = IDIOMS.pick(rng)(rng, steps)


def new_operands(rng: Random, steps: Steps, _: Registers) -> None:
    """Give a step new operands of the same kind."""
    at = _at(rng, steps)
    steps[at] = operands(rng, steps[at].kind)


def _nudged(rng: Random, value: int, unit: int, limit: int) -> int:
    """Return ``value`` with a bit flipped or one ``unit`` away, or a new number; a multiple of ``unit`` in 0..limit."""
    match rng.getrandbits(2):
        case 0:
            value ^= 1 << int(rng.random() * max(1, limit.bit_length()))
        case 1:
            value += unit if rng.random() < 0.5 else -unit
        case 2:
            value = BOUNDARIES[int(rng.random() * len(BOUNDARIES))]
        case _:
            value = bits(rng)
    value %= limit + unit
    return value - value % unit


def change_operand(rng: Random, steps: Steps, _: Registers) -> None:
    """Change one operand of a step; a load or store may change its width with its target."""
    at = _at(rng, steps)
    step = steps[at]
    if not step.args:
        return
    kind = KINDS[step.kind]
    args: list[Arg] = list(step.args)
    which = int(rng.random() * len(args))
    old = args[which]
    if isinstance(old, str):
        names = _NAMES[step.kind, which]
        args[which] = names[int(rng.random() * len(names))]
    elif step.kind == "set" and rng.random() < 0.5:
        args[which] = register_value(rng, str(args[0]))
    else:
        spec = kind.operands[which]
        args[which] = spec.least + _nudged(rng, old - spec.least, spec.unit, spec.limit - spec.least)
    if kind.forms:
        form, offset = FORM[step.kind, str(args[0])[0]], args[2]
        assert isinstance(offset, int)
        args[2] = min(offset, form.max_offset) // form.size * form.size
    steps[at] = Step(step.kind, tuple(args))


def change_register(rng: Random, _: Steps, registers: Registers) -> None:
    """Change the initial value of a register, or initialise one more register."""
    if registers and rng.random() < 0.6:
        name = tuple(registers)[int(rng.random() * len(registers))]
    else:
        name = INITIAL_NAMES[int(rng.random() * len(INITIAL_NAMES))]
    if name in registers and rng.random() < 0.3:
        registers[name] = _nudged(rng, registers[name], 1, MASK64)
    else:
        registers[name] = register_value(rng, name)


def drop_register(rng: Random, _: Steps, registers: Registers) -> None:
    """Leave a register at its reset value."""
    if registers:
        del registers[tuple(registers)[int(rng.random() * len(registers))]]


MOVES: Weights[Move] = Weights(
    (insert_idiom, 30.0),
    (delete, 14.0),
    (duplicate, 6.0),
    (swap, 6.0),
    (replace, 12.0),
    (new_operands, 10.0),
    (change_operand, 20.0),
    (change_register, 8.0),
    (drop_register, 2.0),
)
MOVE_COUNTS: Weights[int] = Weights((1, 40.0), (2, 25.0), (3, 15.0), (5, 12.0), (9, 8.0))


RESHAPED = 0.04
"""Probability of other initial memory slots, or other initial words of memory."""


def _memory(rng: Random, like: Scenario | None) -> tuple[tuple[Slot, ...], tuple[tuple[int, int], ...]]:
    """Return the initial slots and words of a scenario: those of ``like`` or, sometimes, new ones."""
    slots, boot = (like.slots, like.boot) if like is not None else ((), ())
    if rng.random() < RESHAPED:
        slots = memory_slots.unusual_slots(rng) if rng.random() < 0.8 else ()
    if rng.random() < RESHAPED:
        boot = memory_slots.initial_words(rng) if rng.random() < 0.8 else ()
    return slots, boot


def _build(
    rng: Random, steps: Steps, registers: Registers, like: Scenario | None = None, length: int = MIN_STEPS
) -> Scenario:
    """Make a scenario of at least ``length`` and at most MAX_LENGTH steps that begins with a guest step.

    Its initial memory is usually that of ``like``.
    """
    first = next((i for i, step in enumerate(steps) if KINDS[step.kind].side is Actor.GUEST), None)
    # A host step takes place at an exit; the first exit follows the first guest step.
    steps = [Step("hvc", (0,))] if first is None else steps[first:]
    while len(steps) < length:
        steps += IDIOMS.pick(rng)(rng, steps)
    if len(steps) > MAX_LENGTH:
        start = 1 + int(rng.random() * MAX_LENGTH)
        del steps[start : start + len(steps) - MAX_LENGTH]
        del steps[MAX_LENGTH:]
    repair_stage1(rng, steps)
    return Scenario(ABOUT, tuple(registers.items()), tuple(steps), *_memory(rng, like))


def generate(rng: Random) -> Scenario:
    """Return a new scenario."""
    registers = {INITIAL_NAMES[int(rng.random() * len(INITIAL_NAMES))]: 0 for _ in range(rng.getrandbits(4))}
    length = MIN_STEPS + int(rng.random() * (MAX_LENGTH - MIN_STEPS))
    return _build(rng, [], {name: register_value(rng, name) for name in registers}, None, length)


def mutate(scenario: Scenario, rng: Random) -> Scenario:
    """Return a scenario after some random MOVES."""
    steps, registers = list(scenario.steps), dict(scenario.registers)
    for _ in range(MOVE_COUNTS.pick(rng)):
        (MOVES.pick(rng) if steps else insert_idiom)(rng, steps, registers)
    return _build(rng, steps, registers, scenario)


def crossover(a: Scenario, b: Scenario, rng: Random) -> Scenario:
    """Return ``a`` with some consecutive steps replaced by steps of ``b``, and registers of both."""
    steps = list(a.steps)
    start, end = sorted((int(rng.random() * (len(steps) + 1)), int(rng.random() * (len(steps) + 1))))
    low, high = sorted((int(rng.random() * (len(b.steps) + 1)), int(rng.random() * (len(b.steps) + 1))))
    steps[start:end] = b.steps[low:high]
    registers = dict(a.registers)
    registers.update((name, value) for name, value in b.registers if rng.random() < 0.5)
    return _build(rng, steps, registers, a)


def _fit(scenario: Scenario, max_size: int) -> bytes:
    """Return the text, with steps (then registers) dropped from the end until it is at most ``max_size`` bytes."""
    text = format_scenario(scenario)
    # All text is ASCII except possibly the description, which is ABOUT here.
    if len(text) > max_size:
        lines = text.splitlines(keepends=True)
        size = len(text)
        while lines and size > max_size:
            size -= len(lines.pop())
        text = "".join(lines)
    return text.encode()


def _read(data: bytes, rng: Random) -> Scenario:
    try:
        return parse(data)
    except InputError:
        return generate(rng)


def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
    """Mutate scenario text to at most ``max_size`` bytes; if it is no scenario, generate one."""
    rng = Random(seed)
    return _fit(mutate(_read(data, rng), rng), max_size)


def custom_crossover(a: bytes, b: bytes, max_size: int, seed: int) -> bytes:
    """Cross the texts of two scenarios into one of at most ``max_size`` bytes."""
    rng = Random(seed)
    return _fit(crossover(_read(a, rng), _read(b, rng), rng), max_size)
