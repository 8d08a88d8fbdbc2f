# SPDX-License-Identifier: Apache-2.0
"""Compile a scenario to the operations of the guest agent."""

from __future__ import annotations

from collections.abc import Iterator

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


def host_arguments(step: Step) -> tuple[int, int]:
    """Return the arguments of a host step's operation (``protocol.OPS``); the exported C program uses them as well."""
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
        case (("slot" | "drop_slot"), _):
            return memory_slots.pack(slot_of(step))
        case "debug", (str(name),):
            return protocol.DEBUG_WAYS[name], 0
        case "breakpoint", (int(number), int(address), str(name)):
            return address, number << 32 | debug_registers.breakpoint_control(BREAKS_AT[name])
        case "watchpoint", (int(number), int(address), int(length), str(name)):
            return address, number << 32 | debug_registers.watchpoint_control(length, WATCHES[name])
        case "forge", (str(name), int(value)):
            return protocol.FORGE[name], value
    return 0, 0
