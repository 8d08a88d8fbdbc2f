# SPDX-License-Identifier: Apache-2.0
"""Where the guest steps of a scenario are, and what its host steps tell the agent.

Each vCPU has a window of CODE, its instructions back to back in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from harness import protocol
from harness.arch import a64, debug_registers
from harness.arch.a64 import TRAP
from harness.arch.registers import BY_NAME
from harness.layout import ALONE, CODE, CONTEXTS, PAIR, PROTECTED_MACHINE, PROTECTED_NAMES, WINDOW_SIZE
from harness.layout import PROTECTED_TRAP_REGISTER as PROTECTED_TRAP
from harness.scenario import memory_slots
from harness.scenario.scenario import Scenario, Step, instruction, slot_step
from harness.scenario.steps import BREAKS_AT, MP_STATES, WATCHES

FILL: tuple[int, int] = (TRAP, a64.ISB)
"""What CODE behind a scenario and VECTORS hold, word by word in turn.

The barrier is for speed: an emulator translates up to the next one, and a page of traps alone is long.
"""
PROTECTED_FILL: tuple[int, int] = (a64.encode("mrs", "xzr", PROTECTED_TRAP), a64.ISB)
"""The same in a protected VM."""


class Code(dict[int, int]):
    """A guest's code, address to instruction word; ``fill`` is what everything else in CODE and VECTORS holds.

    ``protected``: as a protected VM has it, which may store there.
    """

    def __init__(self, words: Mapping[int, int], protected: bool = False) -> None:
        super().__init__(words)
        self.protected = protected
        self.fill = PROTECTED_FILL if protected else FILL


@dataclass(frozen=True, slots=True)
class Placed:
    """A guest step: its index in the scenario, the vCPU that runs it (number in ``layout.CONTEXTS``), where it is."""

    step: int
    context: int
    address: int
    word: int


def first_context(scenario: Scenario) -> int:
    """Return the vCPU that a scenario starts with: alone in its VM, unless the scenario names the other of a pair."""
    other = CONTEXTS[PAIR + 1].name
    return PAIR if Step("vcpu", (other,)) in scenario.steps else ALONE


def context_named(first: int, name: str) -> int:
    """Return the number of the vCPU that a ``vcpu`` step names in a scenario that starts with the vCPU ``first``."""
    if name == CONTEXTS[first].name:
        return first
    return next(i for i, context in enumerate(CONTEXTS) if context.name == name)


def base_of(context: int) -> int:
    """Return where the code of a vCPU starts."""
    return CODE.base + CONTEXTS[context].window * WINDOW_SIZE


@lru_cache(maxsize=64)
def placed(scenario: Scenario) -> tuple[Placed, ...]:
    """Return the guest steps in the order of the scenario."""
    context = first = first_context(scenario)
    used: dict[int, int] = {}
    steps: list[Placed] = []
    for index, step in enumerate(scenario.steps):
        if step.kind == "vcpu":
            context = context_named(first, str(step.args[0]))
        word = instruction(step)
        if word is not None:
            slot = used.get(context, 0)
            used[context] = slot + 1
            steps.append(Placed(index, context, base_of(context) + 4 * slot, word))
    return tuple(steps)


def ends(scenario: Scenario) -> Mapping[int, int]:
    """Return, for each vCPU that a scenario uses, the address behind its last instruction; the first one comes last."""
    first = first_context(scenario)
    found = {context_named(first, str(s.args[0])): 0 for s in scenario.steps if s.kind == "vcpu"} | {first: 0}
    found = {context: base_of(context) for context in found}
    for step in placed(scenario):
        found[step.context] = step.address + 4
    return found


def needs_protected(scenario: Scenario) -> bool:
    """Whether a scenario has a protected VM, which few targets have: on others it ends with status ``absent``."""
    return any(Step("vcpu", (name,)) in scenario.steps for name in PROTECTED_NAMES)


@lru_cache(maxsize=64)
def code_of(scenario: Scenario, protected: bool = False) -> Code:
    """Return the guest's code, with the trap behind each vCPU's last step; ``protected``: that of the protected VM."""
    there = frozenset(i for i, c in enumerate(CONTEXTS) if (c.machine == PROTECTED_MACHINE) == protected)
    words = {step.address: step.word for step in placed(scenario) if step.context in there}
    for context, end in ends(scenario).items():
        if context in there:
            words |= {end + 4 * i: word for i, word in enumerate(PROTECTED_FILL if protected else FILL)}
    return Code(words, protected)


def codes_of(scenario: Scenario) -> Mapping[bool, Code]:
    """Return the code of each RAM that a scenario uses: a protected VM (True) has its own, all others share theirs."""
    kinds = (False, True) if needs_protected(scenario) else (False,)
    return {protected: code_of(scenario, protected) for protected in kinds}


def shaping(scenario: Scenario) -> Iterator[Step]:
    """Yield the host steps that give a new VM the memory slots of a scenario."""
    if scenario.slots:
        yield from (Step("drop_slot", (slot.number,)) for slot in memory_slots.DEFAULT)
        yield from map(slot_step, scenario.slots)


def host_arguments(step: Step) -> tuple[int, int]:
    """Return the arguments of a host step's operation (``protocol.OPS``), also those of the C program that shows it."""
    match step.kind, step.args:
        case "set", (str(name), int(value)):
            return BY_NAME[name].one_reg, value
        case "complete", (int(value),):
            return value, 0
        case "serror", (int(value),):
            return value, int(value != 0)
        case "irq_line", (str(name), int(value)):
            return protocol.LINES[name], value
        case "gic_line", (str(name), int(number), int(level)):
            return protocol.GIC_LINES[name] | number, level
        case "mp_state", (str(name),):
            return MP_STATES[name], 0
        case "write", (int(address), int(value)):
            return address, value
        case "slot", (int(number), str(kind), int(base), int(size), int(home)):
            return memory_slots.pack(memory_slots.Slot(number, kind, base, size, home))
        case "drop_slot", (int(number),):
            return memory_slots.pack(memory_slots.gone(number))
        case "debug", (str(name),):
            return protocol.DEBUG_WAYS[name], 0
        case "breakpoint", (int(number), int(address), str(name)):
            return address, number << 32 | debug_registers.breakpoint_control(BREAKS_AT[name])
        case "watchpoint", (int(number), int(address), int(length), str(name)):
            return address, number << 32 | debug_registers.watchpoint_control(length, WATCHES[name])
        case "forge", (str(name), int(value)):
            return protocol.FORGE[name], value
    return 0, 0
