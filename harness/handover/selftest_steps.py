# SPDX-License-Identifier: Apache-2.0
"""Translate each step of a scenario to C statements of a KVM selftest, and the parts that they use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from harness import protocol
from harness.arch import debug_registers, exceptions
from harness.arch.registers import BY_NAME, Group
from harness.handover.shown import NumberedStep
from harness.layout import CODE, CONTEXTS, PROTECTED_MACHINE
from harness.scenario.memory_slots import Slot
from harness.scenario.scenario import format_step, slot_of
from harness.scenario.steps import BREAKS_AT, MP_STATES, WATCHES

_NO_STEP: Mapping[str, str] = MappingProxyType(
    {"forge": "it replaces fields of an exit before KVM's handlers read them, which needs a kernel module"}
)
_PROTECTED = "userspace cannot read a protected VM's registers, nor write its code while it runs"
AARCH32 = "the guest would run in AArch32 state, in which the program cannot control it"
_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "rw": "0",
        "log": "KVM_MEM_LOG_DIRTY_PAGES",
        "ro": "KVM_MEM_READONLY",
        "ro_log": "KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES",
    }
)


def why_not_expressible(done: NumberedStep) -> str | None:
    """Return why a userspace program cannot do a step, None if it can."""
    if CONTEXTS[done.context].machine == PROTECTED_MACHINE:
        return _PROTECTED
    step = done.step
    if step.kind == "set" and step.args[0] == "pstate" and int(step.args[1]) & exceptions.AARCH32:
        return AARCH32
    return _NO_STEP.get(step.kind)


def register_id(name: str) -> str:
    """Return the id of a register for KVM_GET_ONE_REG as C, with the macros of the kernel's selftests."""
    row = BY_NAME[name]
    if row.group is Group.GPR:
        return f"ARM64_CORE_REG(regs.regs[{row.core}])"
    core = _CORE.get(name)
    return f"ARM64_CORE_REG({core})" if core else f"KVM_ARM64_SYS_REG(SYS_{name.upper()})"


_CORE: Mapping[str, str] = MappingProxyType(
    {
        "sp_el0": "regs.sp",
        "pc": "regs.pc",
        "pstate": "regs.pstate",
        "sp_el1": "sp_el1",
        "elr_el1": "elr_el1",
        "spsr_el1": "spsr[KVM_SPSR_EL1]",
    }
)
"""Members of struct kvm_regs (arch/arm64/include/uapi/asm/kvm.h)."""


class Code(NamedTuple):
    """Statements, and the parts of ``selftest.c.in`` that they call."""

    lines: tuple[str, ...]
    parts: frozenset[str] = frozenset()


def code_of(done: NumberedStep, vcpu: str, *, once: bool = False) -> Code:
    """Return the statements of a step; ``once``: for a guest step, a single KVM_RUN with any result."""
    comment = f"/* {format_step(done.step)} */"
    if done.word is not None:
        run, parts = ("run_once", {"one_run"}) if once else ("run_insn", set[str]())
        return Code((f"{run}({vcpu}, {done.address:#x}, {done.word:#010x}); {comment}",), frozenset(parts))
    lines, part = _host(done, vcpu)
    return Code(lines, frozenset({part} if part else ()))


def home(address: int) -> str:
    """Return the host's address of a part of the guest's memory, by its address in the default layout."""
    return f"ram + {address - CODE.base:#x}"


def slot_arguments(slot: Slot, vm: str) -> str:
    """Return the arguments of vm_set_user_memory_region for a memory slot."""
    return f"{vm}, {slot.number}, {_FLAGS[slot.kind]}, {slot.base:#x}, {slot.size:#x}, {home(slot.home)}"


def _host(done: NumberedStep, vcpu: str) -> tuple[tuple[str, ...], str]:
    """Return the statements of a host step, and the part that they call (empty: none)."""
    vm = f"{vcpu}->vm"
    match done.step.kind, done.step.args:
        case "set", (str(name), int(value)):
            return (f"vcpu_set_reg({vcpu}, {register_id(name)}, {value:#x});",), ""
        case "complete", (int(value),):
            return (f"complete_read({vcpu}, {value:#x});",), "complete"
        case "write", (int(address), int(value)):
            return (f"*(uint64_t *)({home(address)}) = {value:#x}; /* at {address:#x} */",), ""
        case "reset", ():
            return (f"init_vcpu({vcpu});",), ""
        case "finish", ():
            return (f"vcpu_run_complete_io({vcpu});",), ""
        case "abort", ():
            return (f"inject_abort({vcpu});",), "abort"
        case "serror", (int(value),):
            return (f"inject_serror({vcpu}, {value:#x});",), "serror"
        case "irq_line", (str(name), int(level)):
            number = CONTEXTS[done.context].vcpu << 16 | protocol.LINES[name]
            return (f"kvm_irq_line({vm}, KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT | {number:#x}, {level});",), ""
        case "gic_line", (str(name), int(number), int(level)):
            kind, owner = ("SPI", 0) if name == "spi" else ("PPI", CONTEXTS[done.context].vcpu << 16)
            line = f"KVM_ARM_IRQ_TYPE_{kind} << KVM_ARM_IRQ_TYPE_SHIFT | {owner | number:#x}"
            return (f"kvm_irq_line({vm}, {line}, {level});",), ""
        case "mp_state", (str(name),):
            return (f"set_mp_state({vcpu}, {MP_STATES[name]}); /* {name} */",), "mp_state"
        case (("slot" | "drop_slot"), _):
            return (f"vm_set_user_memory_region({slot_arguments(slot_of(done.step), vm)});",), ""
        case _:
            return tuple(_debug(done, vcpu)), "debugging"


_DEBUG_FLAGS: Mapping[int, str] = MappingProxyType({1: "KVM_GUESTDBG_SINGLESTEP", 2: "KVM_GUESTDBG_USE_SW_BP"})


def _debug(done: NumberedStep, vcpu: str) -> Iterator[str]:
    """Yield the statements of a step of KVM_SET_GUEST_DEBUG; earlier settings are kept."""
    arch = "debug.arch"
    match done.step.kind, done.step.args:
        case "debug", ("off",):
            yield "memset(&debug, 0, sizeof(debug));"
            yield f"set_debug({vcpu}, &debug, 0);"
        case "debug", (str(way),):
            bits = protocol.DEBUG_WAYS[way]
            flags = [name for bit, name in _DEBUG_FLAGS.items() if bits & bit]
            yield f"set_debug({vcpu}, &debug, {' | '.join(flags)});"
        case "breakpoint", (int(number), int(address), str(levels)):
            yield f"{arch}.dbg_bvr[{number}] = {address:#x};"
            yield f"{arch}.dbg_bcr[{number}] = {debug_registers.breakpoint_control(BREAKS_AT[levels]):#x};"
            yield f"set_debug({vcpu}, &debug, debug.control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP));"
        case "watchpoint", (int(number), int(address), int(length), str(accesses)):
            yield f"{arch}.dbg_wvr[{number}] = {address:#x};"
            yield f"{arch}.dbg_wcr[{number}] = {debug_registers.watchpoint_control(length, WATCHES[accesses]):#x};"
            yield f"set_debug({vcpu}, &debug, debug.control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP));"
        case kind, _:
            raise AssertionError(f"no such step: {kind}")
