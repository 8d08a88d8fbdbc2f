# SPDX-License-Identifier: Apache-2.0
"""Compile a scenario to the operations of the guest agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from harness import protocol
from harness.arch import debug_registers
from harness.arch.registers import BY_NAME
from harness.scenario import memory_slots
from harness.scenario.scenario import Scenario, Step, slot_of, slot_step
from harness.scenario.steps import BREAKS_AT, MP_STATES, WATCHES


def shaping(scenario: Scenario) -> Iterator[Step]:
    """Yield the host steps that give a new VM the memory slots of a scenario."""
    if scenario.slots:
        yield from (Step("drop_slot", (slot.number,)) for slot in memory_slots.DEFAULT)
        yield from map(slot_step, scenario.slots)


_ARGUMENTS: Final[Mapping[str, Callable[..., tuple[int, int]]]] = MappingProxyType(
    {
        "set": lambda name, value: (BY_NAME[name].one_reg, value),
        "complete": lambda value: (value, 0),
        "serror": lambda value: (value, int(value != 0)),
        "irq_line": lambda name, value: (protocol.LINES[name], value),
        "gic_line": lambda name, number, level: (protocol.GIC_LINES[name] | number, level),
        "mp_state": lambda name: (MP_STATES[name], 0),
        "write": lambda address, value: (address, value),
        "slot": lambda *args: memory_slots.pack(slot_of(Step("slot", args))),
        "drop_slot": lambda *args: memory_slots.pack(slot_of(Step("drop_slot", args))),
        "debug": lambda name: (protocol.DEBUG_WAYS[name], 0),
        "breakpoint": lambda number, address, name: (
            address,
            number << 32 | debug_registers.breakpoint_control(BREAKS_AT[name]),
        ),
        "watchpoint": lambda number, address, length, name: (
            address,
            number << 32 | debug_registers.watchpoint_control(length, WATCHES[name]),
        ),
        "forge": lambda name, value: (protocol.FORGE[name], value),
    }
)
"""From the operands of a host step to the arguments of its operation (``protocol.OPS``); both 0 for any other step."""


def host_arguments(step: Step) -> tuple[int, int]:
    """Return the arguments of a host step's operation; the exported C program uses them as well."""
    arguments = _ARGUMENTS.get(step.kind)
    return (0, 0) if arguments is None else arguments(*step.args)
