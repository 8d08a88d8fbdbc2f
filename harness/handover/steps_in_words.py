# SPDX-License-Identifier: Apache-2.0
"""Describe the steps of a scenario as KVM API calls and assembly, for a reader who does not know scenarios."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from harness.layout import CONTEXTS, GIC_MACHINE, NISV_MACHINE, PROTECTED_MACHINE
from harness.scenario.scenario import Scenario, Step, format_step
from harness.scenario.steps import KINDS, Actor

_MACHINES: Mapping[int, str] = MappingProxyType(
    {PROTECTED_MACHINE: "the protected VM", GIC_MACHINE: "the VM with a GICv3", NISV_MACHINE: "the second VM"}
)
_LINES: Mapping[str, str] = MappingProxyType({"spi": "SPI", "ppi": "PPI"})


def _vcpu(name: str) -> str:
    machine = next(context.machine for context in CONTEXTS if context.name == name)
    return f"continues with vCPU {name.rpartition('.')[2]} of {_MACHINES.get(machine, 'the first VM')}"


_WORDS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "set": lambda name, value: f"KVM_SET_ONE_REG {name} = {value:#x}",
        "complete": lambda value: f"completes the MMIO read with {value:#x}",
        "write": lambda address, value: f"writes {value:#x} to memory at {address:#x}",
        "reset": lambda: "KVM_ARM_VCPU_INIT",
        "finish": lambda: "KVM_RUN with immediate_exit",
        "abort": lambda: "KVM_SET_VCPU_EVENTS: external data abort",
        "serror": lambda value: f"KVM_SET_VCPU_EVENTS: SError{f', syndrome {value:#x}' if value else ''}",
        "irq_line": lambda name, level: f"KVM_IRQ_LINE: {name.upper()} of the vCPU to {level}",
        "gic_line": lambda name, number, level: f"KVM_IRQ_LINE: {_LINES[name]} {number} to {level}",
        "mp_state": lambda name: f"KVM_SET_MP_STATE: {name}",
        "slot": lambda number, kind, base, size, home: f"memory slot {number}, {kind}: {base:#x}, {size:#x} bytes",
        "drop_slot": lambda number: f"deletes memory slot {number}",
        "debug": lambda way: f"KVM_SET_GUEST_DEBUG: {way.replace('_', ' and ')}",
        "breakpoint": lambda number, address, levels: (
            f"KVM_SET_GUEST_DEBUG: breakpoint {number}, {address:#x}, {levels}"
        ),
        "watchpoint": lambda number, address, length, accesses: (
            f"KVM_SET_GUEST_DEBUG: watchpoint {number}, {address:#x}, {length} bytes, {accesses}"
        ),
        "vcpu": _vcpu,
        "forge": lambda field, value: f"(a module replaces {field} of the exit by {value:#x})",
    }
)


def step_in_words(step: Step) -> str:
    """Return a step as assembly, or as userspace's action, in at most 58 characters."""
    if KINDS[step.kind].side is Actor.GUEST:
        return format_step(step)
    arguments: tuple[Any, ...] = step.args
    return _WORDS[step.kind](*arguments)


def registers_in_words(scenario: Scenario) -> Iterator[str]:
    """Yield the initial state of a guest: registers, words of memory, memory slots."""
    yield from (f"{name} = {value:#x}" for name, value in scenario.registers)
    yield from (f"memory at {address:#x}: {value:#x}" for address, value in scenario.boot)
    for slot in scenario.slots:
        yield f"memory slot {slot.number}, {slot.kind}: {slot.base:#x}, {slot.size:#x} bytes"
