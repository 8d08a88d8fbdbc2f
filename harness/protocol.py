# SPDX-License-Identifier: Apache-2.0
"""Define the mailbox that the fuzzer and the agent share: words, operations and records, as rows.

One table serves both ends: :mod:`harness.vm.build.protocol_header` renders it as the C header that the agent and the
probe include, :mod:`harness.vm.executor` and :mod:`harness.trace.events` read it directly.  All words are little-endian
u64, all records start and end on 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from harness.layout import CONTEXTS

MAGIC: Final = 0x315A_4657_4F44_4853  # "SHDOWFZ1"
PAGE: Final = 4096
RING_MIB: Final = 64
"""Size of the mailbox when a whole program is recorded: room for 40 000 records, so that the probe rarely waits."""
WINDOWS: Final = 1 + max(context.window for context in CONTEXTS)
"""Parts of CODE; each holds the code of one vCPU."""


@dataclass(frozen=True, slots=True)
class Word:
    """One named u64 and its meaning."""

    name: str
    what: str


# The control page, in order.  "host" below is the fuzzer, outside the VM.
CONTROL: Final[tuple[Word, ...]] = (
    Word("magic", "MAGIC once the agent is ready"),
    Word("request", "host: number of the request to run; the agent polls it"),
    Word("reply", "agent: number of the last request that it finished"),
    Word("status", "agent: how the request ended (STATUS)"),
    Word("failed_op", "agent: index of the operation that failed"),
    Word("failed_errno", "agent: errno of the failure"),
    Word("op_count", "host: operations in the program"),
    Word("record", "host: how to record world switches (RECORD_TO), 0: not at all"),
    Word("head", "next free byte of the trace area; agent and probe append"),
    Word("limit", "size of the trace area in bytes"),
    Word("dropped", "records that did not fit"),
    Word("step", "the scenario step that the agent is working on"),
    Word("stop_pc", "probe: return to userspace after the guest trapped at this address or outside the code"),
    Word("irq_budget", "probe: interrupts without progress of the guest before the probe returns to userspace"),
    Word("irqs", "probe: interrupts taken since the guest last made progress"),
    Word("far_pc", "probe: the furthest instruction inside the code that trapped"),
    Word("stop_why", "probe: why it returned to userspace (STOP bits)"),
    Word("trap_pc", "probe: address of the instruction that trapped last"),
    Word("trap_elr", "probe: ELR_EL1 at that exit"),
    Word("code_pc", "probe: address of the last instruction inside the code that trapped"),
    Word("exits", "probe: world switches out of a guest since boot"),
    Word("context_size", "probe: sizeof(struct kvm_cpu_context)"),
    Word("vhe", "probe: 1 if the host kernel runs at EL2"),
    Word("tail", "host: how many bytes of the trace area it has read, when that is a ring"),
    Word("waits", "probe: how often it waited for room in the ring"),
    Word("context", "agent: the current vCPU (layout.CONTEXTS)"),
    Word("forge", "probe: what to replace at the exit of the instruction at stop_pc (FORGE bits)"),
    Word("forge_code", "forge: exit code"),
    Word("forge_esr", "forge: ESR_EL2"),
    Word("forge_far", "forge: FAR_EL2"),
    Word("forge_hpfar", "forge: HPFAR_EL2"),
    Word("later", "index of the first operation that the probe does at an exit (later)"),
    Word("later_end", "index after the last of them; equal to later: there are none"),
    Word("exit_status", "recorder: wait status of the recorded program"),
    Word("points", "host: 1 to record debug registers after each entry and exit record"),
    Word("round_budget", "host: exits of the guest without progress before the probe returns to userspace"),
    Word("rounds", "probe: exits since the guest last made progress"),
    *(Word(f"end{i}", "agent: guest address after the code in a window") for i in range(WINDOWS)),
    Word("debug", "agent: how userspace debugs the current vCPU (DEBUG marks)"),
    Word("lists", "host: 1 to record the virtual CPU interface of a vCPU with an in-kernel GIC"),
)
CONTROL_OFFSET: Final[Mapping[str, int]] = MappingProxyType({w.name: 8 * i for i, w in enumerate(CONTROL)})

PROGRAM_OFFSET: Final = PAGE
PROGRAM_SIZE: Final = 63 * PAGE
TRACE_OFFSET: Final = 64 * PAGE

OP_FORMAT: Final = struct.Struct("<IIQQ")  # operation, step, a, b
NO_STEP: Final = 0xFFFF_FFFF
"""The step number of operations and records that belong to no step: the start of the vCPUs, and the last runs."""

OPS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "begin": (1, "a=1: create new VMs; else reset vCPUs, unmap and zero RAM; b: the vCPU to start with"),
        "code": (2, "write the instruction word b to guest address a"),
        "set": (3, "KVM_SET_ONE_REG: id a, value b"),
        "run": (4, "KVM_RUN until the instruction at a has trapped; b bit 0: it is a branch out of the code"),
        "complete": (5, "write the data a for the pending MMIO read to kvm_run"),
        "reset": (6, "KVM_ARM_VCPU_INIT again"),
        "abort": (7, "KVM_SET_VCPU_EVENTS: an external data abort for the access that KVM reported to userspace"),
        "serror": (8, "KVM_SET_VCPU_EVENTS: an SError, with the syndrome a if b"),
        "irq_line": (9, "KVM_IRQ_LINE, no in-kernel GIC: line a (LINES) to level b"),
        "finish": (10, "KVM_RUN with immediate_exit: completes an MMIO access, runs nothing"),
        "forge": (11, "at the next exit of the instruction at stop_pc, replace a (FORGE) by b"),
        "vcpu": (12, "continue with the vCPU a (layout.CONTEXTS); a new one starts at its code"),
        "write": (13, "write the 64-bit word b to guest address a, in the data pages"),
        "debug": (14, "KVM_SET_GUEST_DEBUG: single step and BRK by a (DEBUG_WAYS); 0 ends all debugging"),
        "breakpoint": (15, "KVM_SET_GUEST_DEBUG: address a; b: DBGBCR (0: none), its number from bit 32 on"),
        "mp_state": (16, "KVM_SET_MP_STATE: a"),
        "watchpoint": (17, "KVM_SET_GUEST_DEBUG: address a; b: DBGWCR (0: none), its number from bit 32 on"),
        "later": (22, "the probe does the next b writes of x0..x30 after the instruction at a has trapped"),
        "slot": (
            20,
            "KVM_SET_USER_MEMORY_REGION in the current VM: a and b as harness/scenario/memory_slots.py packs them",
        ),
        "drop_slot": (21, "the same, to delete a slot"),
        "held": (23, "a record only: register a held b before the probe overwrote it; precedes any other record"),
        "gic_line": (30, "KVM_IRQ_LINE, in-kernel GIC: type and number a (GIC_LINES), level b; a PPI of this vCPU"),
    }
)

OP_SET: Final = OPS["set"][0]
OP_RESET: Final = OPS["reset"][0]
OP_ABORT: Final = OPS["abort"][0]
OP_SERROR: Final = OPS["serror"][0]
OP_IRQ_LINE: Final = OPS["irq_line"][0]
OP_FINISH: Final = OPS["finish"][0]
OP_WRITE: Final = OPS["write"][0]
OP_GIC_LINE: Final = OPS["gic_line"][0]
OP_HELD: Final = OPS["held"][0]
DEBUG_STEPS: Final = ("debug", "breakpoint", "watchpoint")
"""Steps of KVM_SET_GUEST_DEBUG, and their operations."""
OP_DEBUG, OP_BREAKPOINT, OP_WATCHPOINT = (OPS[name][0] for name in DEBUG_STEPS)
DEBUG_OPS: Final = frozenset({OP_DEBUG, OP_BREAKPOINT, OP_WATCHPOINT})
"""Operations of KVM_SET_GUEST_DEBUG."""

LINES: Final[Mapping[str, int]] = MappingProxyType({"irq": 0, "fiq": 1})
"""Interrupt lines of a vCPU without in-kernel GIC (KVM API 4.25 KVM_IRQ_LINE)."""

GIC_LINES: Final[Mapping[str, int]] = MappingProxyType({"spi": 1 << 24, "ppi": 2 << 24})
"""Types of the inputs of an in-kernel GIC, as KVM_IRQ_LINE expects them in the bits above the number (KVM API 4.25)."""

FORGE: Final[Mapping[str, int]] = MappingProxyType({"code": 1, "esr": 2, "far": 4, "hpfar": 8})
"""Fields that a forged exit replaces before KVM's handler reads them: marks in the flags of its record."""
MARK_CALL: Final = 16
"""Mark of a forged exit whose instruction was an HVC: its preferred return address is the next instruction."""

DEBUG: Final[Mapping[str, int]] = MappingProxyType({"debugged": 32, "stepped": 64})
"""Marks of an entry, exit or user record of a vCPU that userspace debugs, and of one that it steps."""
MARK_STEP_BEGINS: Final = 128
"""Mark that the host adds when it decodes an entry (harness/trace/debug_state.py): KVM had set PSTATE.SS for
userspace's single step."""
DEBUG_WAYS: Final[Mapping[str, int]] = MappingProxyType({"off": 0, "step": 1, "brk": 2, "step_brk": 3})
"""Arguments of a ``debug`` step: KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_SW_BP, both, or no debugging at all."""
BREAKPOINTS: Final = 4
"""Number of breakpoints, and of watchpoints, that a scenario may set: every CPU model of harness/arch/cpu_models.py has
at least as many."""

STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {"ok": 0, "ioctl": 1, "stuck": 2, "bad_op": 3, "runaway": 4, "absent": 5}
)
"""How a request ended; ``stuck``: KVM_RUN returns without having run the guest; ``runaway``: the guest runs, but makes
no progress (harness/vm/guest/runaway.h and the two budgets)."""

STOP: Final[Mapping[str, int]] = MappingProxyType({"reached": 1, "outside": 2, "sleep": 4, "runaway": 8})

# Values of control.record.  area: filled from its start; a record that does not fit is dropped and counted.  ring: head
# and tail only grow, the probe waits for room.
RECORD_TO: Final[Mapping[str, int]] = MappingProxyType({"area": 1, "ring": 2})

# Records of the trace area.  Every record starts with RECORD_HEADER.
RECORD_HEADER: Final = struct.Struct("<IIII")  # type, size in bytes, step, flags
RECORD_TYPES: Final[Mapping[str, int]] = MappingProxyType(
    {"entry": 1, "exit": 2, "user": 3, "host": 4, "api": 5, "debug": 6, "lists": 7}
)

# The flags of a record's header identify its VM and vCPU.  Bits 0 to 7 are for marks.
FLAGS_VCPU_SHIFT: Final = 8
FLAGS_VM_SHIFT: Final = 16

# Words after the header of entry, exit and user records; struct kvm_cpu_context follows them unchanged.
SWITCH_WORDS: Final[tuple[Word, ...]] = (
    Word("code", "exit: exception code of the world switch; user: kvm_run.exit_reason"),
    Word("error", "user: errno that KVM_RUN returns"),
    Word("esr_el2", "vcpu.arch.fault.esr_el2"),
    Word("far_el2", "vcpu.arch.fault.far_el2"),
    Word("hpfar_el2", "vcpu.arch.fault.hpfar_el2"),
    Word("hcr_el2", "vcpu.arch.hcr_el2"),
    Word("pending", "KVM's pending work (PENDING bits)"),
    Word("mmio_addr", "user: kvm_run.mmio.phys_addr; KVM_EXIT_DEBUG: debug.arch.hsr and hsr_high"),
    Word("mmio_len", "user: kvm_run.mmio.len, bit 8 set for a write"),
    Word("mmio_data", "user: kvm_run.mmio.data; KVM_EXIT_DEBUG: debug.arch.far"),
)
MMIO_WRITE: Final = 1 << 8
"""Mark of a write in the record's ``mmio_len``."""
SWITCH_SIZE: Final = RECORD_HEADER.size + 8 * len(SWITCH_WORDS)

# Normalised from vcpu.arch.iflags, whose bits differ between kernels.
PENDING: Final[Mapping[str, int]] = MappingProxyType(
    {"increment_pc": 1, "exception": 2, "sync_el1": 4, "irq_el1": 8, "fiq_el1": 16, "serror_el1": 32, "other": 64}
)

HOST_WORDS: Final[tuple[Word, ...]] = (
    Word("op", "the operation (OPS)"),
    Word("a", "its first argument"),
    Word("b", "its second argument"),
    Word("error", "0, or the errno of the ioctl's failure"),
    Word("why", "1 if it is a step of the scenario, 0 if the agent did it to continue"),
)
HOST_SIZE: Final = RECORD_HEADER.size + 8 * len(HOST_WORDS)

# Follows an entry or exit record if control.points is set (scenarios that use debugging): KVM's debug controls, and the
# guest's breakpoints and watchpoints (vcpu.arch.vcpu_debug_state).
DEBUG_REGISTERS: Final = ("dbgbvr", "dbgbcr", "dbgwvr", "dbgwcr")
DEBUG_WORDS: Final[tuple[Word, ...]] = (
    Word("mdcr_el2", "vcpu.arch.mdcr_el2"),
    *(Word(f"{name}{i}_el1", "the guest's own") for name in DEBUG_REGISTERS for i in range(BREAKPOINTS)),
)
DEBUG_NAMES: Final[tuple[str, ...]] = tuple(word.name for word in DEBUG_WORDS)
DEBUG_SIZE: Final = RECORD_HEADER.size + 8 * len(DEBUG_WORDS)

# Follows an entry, exit or user record of a vCPU with an in-kernel GICv3 (control.lists), from vgic_cpu.vgic_v3.
# The interrupt lists are those of the last entry; KVM stores the other two kinds of registers when the vCPU is put.
LIST_REGISTERS: Final = 16
ACTIVE_PRIORITIES: Final = 4
LIST_WORDS: Final[tuple[Word, ...]] = (
    Word("used_lrs", "how many list registers KVM loads, from the first on; 0 after an exit"),
    Word("ich_hcr_el2", "vgic_hcr"),
    Word("ich_vmcr_el2", "user: vgic_vmcr"),
    *(Word(f"ich_ap0r{i}_el2", "user: vgic_ap0r") for i in range(ACTIVE_PRIORITIES)),
    *(Word(f"ich_ap1r{i}_el2", "user: vgic_ap1r") for i in range(ACTIVE_PRIORITIES)),
    *(Word(f"ich_lr{i}_el2", "vgic_lr") for i in range(LIST_REGISTERS)),
)
LIST_SIZE: Final = RECORD_HEADER.size + 8 * len(LIST_WORDS)

# KVM API calls of a recorded program (harness/vm/guest/watch.h); the header's flags identify the VM, and the vCPU if
# any.
API_WORDS: Final[tuple[Word, ...]] = (
    Word("op", "the call (API)"),
    Word("a", "its first argument"),
    Word("b", "its second argument"),
    Word("c", "its third argument"),
    Word("d", "its fourth argument"),
    Word("error", "0, or the errno of the failure"),
)
API_SIZE: Final = RECORD_HEADER.size + 8 * len(API_WORDS)

API: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "set_register": (1, "KVM_SET_ONE_REG: id a, value b (its low 64 bits)"),
        "reset": (
            2,
            "a vCPU was reset: features a, by KVM_ARM_VCPU_INIT or by PSCI CPU_ON b (RESET_BY)",
        ),
        "slot": (3, "KVM_SET_USER_MEMORY_REGION: slot a, flags b, guest address c, size d (0: removed)"),
        "device": (4, "KVM emulates a device in the kernel: guest address a, size b"),
        "events": (5, "KVM_SET_VCPU_EVENTS: EVENT bits a"),
        "destroy": (6, "the VM was destroyed"),
        "irq_line": (7, "KVM_IRQ_LINE without an in-kernel interrupt controller: line a (LINES) to level b"),
        "create": (8, "KVM_CREATE_VM: type a"),
        "capability": (9, "KVM_ENABLE_CAP of a VM: capability a, its first argument b"),
        "filter": (10, "KVM_SET_DEVICE_ATTR of a VM, its SMCCC filter: action c for the b functions from a on"),
        "attribute": (11, "KVM_SET_DEVICE_ATTR of a vCPU: group a, attribute b, value c (its low 64 bits)"),
    }
)
RESET_BY: Final[Mapping[str, int]] = MappingProxyType({"unsaid": 0, "init": 1, "cpu_on": 2})
"""Why a vCPU was reset: a pending CPU_ON (vcpu.arch.reset_state), or not; older recordings do not have it."""
EVENT: Final[Mapping[str, int]] = MappingProxyType({"serror": 1, "external_abort": 2})
