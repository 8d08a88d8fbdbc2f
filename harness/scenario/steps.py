# SPDX-License-Identifier: Apache-2.0
"""Define the steps of scenarios, as rows: actions of guest and host between two world switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from harness import protocol
from harness.arch import sysregs
from harness.arch.a64 import ACCESS_FORMS, ACCESS_MNEMONICS, PLAIN_BY_NAME, X_NAMES, AccessForm, Field
from harness.arch.registers import MASK64, SETTABLE
from harness.layout import CODE, CONTEXT_NAMES, DATA
from harness.scenario import memory_slots

Arg = int | str


class Actor(Enum):
    """The side that does a step."""

    GUEST = "guest"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Operand:
    """The valid values of one operand: one of ``names``, or (no names) a number from ``least`` to ``limit``.

    Numbers are multiples of ``unit``.
    """

    name: str
    what: str
    names: frozenset[str] = frozenset()
    limit: int = MASK64
    unit: int = 1
    least: int = 0


@dataclass(frozen=True, slots=True)
class StepKind:
    """A row of :data:`STEP_KINDS`; ``forms`` are the encodings of a load or store (empty for any other step)."""

    keyword: str
    side: Actor
    operands: tuple[Operand, ...]
    summary: str
    source: str
    forms: tuple[AccessForm, ...] = ()

    @property
    def syntax(self) -> str:
        """The syntax of the step, with operands in capitals."""
        names = [o.name.upper() for o in self.operands]
        if self.forms:
            return f"{self.keyword} {names[0]}, [{names[1]}, {names[2]}]"
        return " ".join([self.keyword, (", " if self.side is Actor.GUEST else " ").join(names)]).strip()


BASE_NAMES: tuple[str, ...] = X_NAMES[:31]
SET_NAMES: tuple[str, ...] = tuple(r.name for r in SETTABLE)
INITIAL_NAMES: tuple[str, ...] = tuple(name for name in SET_NAMES if name != "pc")
"""Registers that ``reg`` may name: code always starts at ``CODE.base``."""

MP_STATES: Mapping[str, int] = MappingProxyType({"runnable": 0, "stopped": 5})
"""KVM_MP_STATE_* (include/uapi/linux/kvm.h)."""

BREAKS_AT: Mapping[str, int] = MappingProxyType({"off": 0, "el1": 0b01, "el0": 0b10, "any": 0b11})
"""DBGBCR<n>_EL1.PMC (Arm ARM D17.3.2); none: the breakpoint is removed."""
WATCHES: Mapping[str, int] = MappingProxyType({"off": 0, "load": 0b01, "store": 0b10, "any": 0b11})
"""DBGWCR<n>_EL1.LSC (Arm ARM D17.3.11); none: the watchpoint is removed."""
_SET_DEBUG = "KVM API 4.87 KVM_SET_GUEST_DEBUG"
_NUMBER = Operand("number", f"a number from 0 to {protocol.BREAKPOINTS - 1}", limit=protocol.BREAKPOINTS - 1)

_BASE = Operand("base", "one of x0..x30", frozenset(BASE_NAMES))
_SETTABLE = Operand("register", "a register that the host can set", frozenset(SET_NAMES))
INITIAL = Operand(
    "register",
    f"a register that can be initialised (pc cannot: code starts at {CODE.base:#x})",
    frozenset(INITIAL_NAMES),
)
VALUE = Operand("value", "a number of at most 64 bits")


_SLOT = Operand(
    "slot",
    f"a slot from {memory_slots.NUMBERS[0]} to {memory_slots.NUMBERS[-1]}",
    limit=memory_slots.NUMBERS[-1],
    least=1,
)


def _pages(name: str, what: str, least: int, limit: int) -> Operand:
    text = f"{what}, a multiple of {memory_slots.PAGE:#x} from {least:#x} to {limit:#x}"
    return Operand(name, text, limit=limit, unit=memory_slots.PAGE, least=least)


SLOT_OPERANDS: tuple[Operand, ...] = (
    _SLOT,
    Operand("kind", f"one of {', '.join(memory_slots.KINDS)}", frozenset(memory_slots.KINDS)),
    _pages("base", "a guest physical address", DATA.base, memory_slots.IPA_LIMIT - memory_slots.PAGE),
    _pages("size", "a size", memory_slots.PAGE, DATA.size),
    _pages("home", "the memory to map, by its address in the default layout", DATA.base, DATA.end - memory_slots.PAGE),
)
"""Operands of the step ``slot``, and of a line ``memory`` with an initial slot."""
WORD_ADDRESS = Operand(
    "address",
    f"a multiple of 8 from {DATA.base:#x} to {DATA.end - 8:#x}",
    limit=DATA.end - 8,
    unit=8,
    least=DATA.base,
)


def _access(mnemonic: str) -> StepKind:
    forms = tuple(f for f in ACCESS_FORMS if f.mnemonic == mnemonic)
    widths = " or ".join(f"{f.targets[0]}..{f.targets[30]}, {f.targets[31]}" for f in forms)
    # The two forms of str and ldr have different sizes; the smaller one limits the offset.
    unit, limit = min(f.size for f in forms), max(f.max_offset for f in forms)
    operands = (
        Operand("target", f"one of {widths}", frozenset(name for f in forms for name in f.targets)),
        _BASE,
        Operand("offset", f"a multiple of {unit} from 0 to {limit:#x}", limit=limit, unit=unit),
    )
    verb = "Store" if forms[0].is_store else "Load"
    sizes = " or ".join(dict.fromkeys(f"{f.size * 8}" for f in forms))
    signed = ", sign-extended" if forms[0].sign_extend else ""
    summary = f"{verb} {sizes} bits{signed}, at base plus offset."
    return StepKind(mnemonic, Actor.GUEST, operands, summary, f"Arm ARM {forms[0].source}", forms)


def _operand_of(field: Field) -> Operand:
    if names := field.names:
        last = f", {names[31]}" if len(names) > 31 else ""
        return Operand(field.name, f"one of {names[0]}..{names[30]}{last}", frozenset(names))
    unit = f", a multiple of {field.unit}" if field.unit > 1 else ""
    return Operand(field.name, f"a number from 0 to {field.limit:#x}{unit}", limit=field.limit, unit=field.unit)


def _plain(mnemonic: str, summary: str) -> StepKind:
    row = PLAIN_BY_NAME[mnemonic]
    operands = [_operand_of(field) for field in row.fields]
    if row.sysreg is not None:
        names = frozenset(sysregs.WRITABLE if row.sysreg == 0 else sysregs.READABLE)
        operands.insert(row.sysreg, Operand("sysreg", "a system register of harness/arch/sysregs.py", names))
    return StepKind(mnemonic, Actor.GUEST, tuple(operands), summary, f"Arm ARM {row.source}")


STEP_KINDS: tuple[StepKind, ...] = (
    _plain("hvc", "Call the hypervisor: PSCI and SMCCC take the function from x0 and the arguments from x1 to x3."),
    _plain("wfi", "Wait for interrupt."),
    _plain("wfe", "Wait for event."),
    *(_access(mnemonic) for mnemonic in ACCESS_MNEMONICS),
    _plain("br", "Jump to the address in a register; outside memory slots the fetch is an instruction abort."),
    _plain("smc", "Call the secure monitor: KVM traps it, and handles it as a hypervisor call or rejects it."),
    _plain("mrs", "Read a system register."),
    _plain("msr", "Write a system register, or execute the system instruction with that encoding."),
    _plain("brk", "Execute a breakpoint: an exception to EL1, or an exit to userspace if that debugs the guest."),
    _plain("udf", "Execute an undefined instruction: an exception to EL1."),
    _plain("eret", "Return from an exception, to ELR_EL1 with SPSR_EL1."),
    _plain("mov", "Copy a register."),
    _plain("movz", "Set a register to a 16-bit number."),
    _plain("movk", "Set the low 16 bits of a register."),
    _plain("ldp", "Load a pair, at base plus offset; no syndrome."),
    _plain("stp", "Store a pair, at base plus offset; no syndrome."),
    _plain("ldr_post", "Load at base, then add the offset to it (post-index); no syndrome."),
    _plain("str_pre", "Add the offset to base, then store there (pre-index); no syndrome."),
    _plain("ldxr", "Load exclusive; no syndrome."),
    _plain("stxr", "Store exclusive, status to a register; no syndrome."),
    _plain("ldr_simd", "Load a q register; no syndrome."),
    _plain("str_simd", "Store a q register; no syndrome."),
    _plain("fmov_to", "Copy a general register to the low half of a vector register."),
    _plain("fmov_from", "Copy the low half of a vector register to a general register."),
    StepKind(
        "set",
        Actor.HOST,
        (_SETTABLE, VALUE),
        "Write a register of the vCPU.",
        "KVM API 4.68 KVM_SET_ONE_REG",
    ),
    StepKind(
        "complete",
        Actor.HOST,
        (VALUE,),
        "Complete the pending MMIO read with the low bytes of this value (without such a step: with 0).",
        "KVM API 5 KVM_EXIT_MMIO",
    ),
    StepKind(
        "write",
        Actor.HOST,
        (WORD_ADDRESS, VALUE),
        "Write a 64-bit word to the guest's RAM, for example a translation table entry; RAM is zero at the start.",
        "KVM API 4.35 KVM_SET_USER_MEMORY_REGION: userspace_addr",
    ),
    StepKind("reset", Actor.HOST, (), "Reset the vCPU.", "KVM API 4.82 KVM_ARM_VCPU_INIT"),
    StepKind(
        "finish",
        Actor.HOST,
        (),
        "Call KVM_RUN with immediate_exit: KVM completes a pending access, the guest does not run.",
        "KVM API 5 immediate_exit",
    ),
    StepKind(
        "abort",
        Actor.HOST,
        (),
        "Inject an external data abort instead of the pending access (no access pending: do nothing).",
        "KVM API 4.32 KVM_SET_VCPU_EVENTS",
    ),
    StepKind(
        "serror",
        Actor.HOST,
        (Operand("syndrome", "an ISS of 25 bits; 0: no syndrome is given", limit=0x1FF_FFFF),),
        "Inject a virtual SError; only CPUs with the RAS extension accept a syndrome.",
        "KVM API 4.32 KVM_SET_VCPU_EVENTS",
    ),
    StepKind(
        "irq_line",
        Actor.HOST,
        (
            Operand("line", f"one of {', '.join(protocol.LINES)}", frozenset(protocol.LINES)),
            Operand("level", "0 or 1", limit=1),
        ),
        "Raise or lower an interrupt line of a vCPU whose VM has no in-kernel GIC.",
        "KVM API 4.25 KVM_IRQ_LINE",
    ),
    StepKind(
        "gic_line",
        Actor.HOST,
        (
            Operand("type", f"one of {', '.join(protocol.GIC_LINES)}", frozenset(protocol.GIC_LINES)),
            Operand("number", "an INTID from 0 to 1023", limit=1023),
            Operand("level", "0 or 1", limit=1),
        ),
        "Raise or lower an input of the in-kernel GIC of the VM of 2.0 and 2.1; a PPI is private to the vCPU.",
        "KVM API 4.25 KVM_IRQ_LINE",
    ),
    StepKind(
        "debug",
        Actor.HOST,
        (Operand("way", f"one of {', '.join(protocol.DEBUG_WAYS)}", frozenset(protocol.DEBUG_WAYS)),),
        "Debug the guest from userspace: step every instruction, stop at BRK, both, or end all debugging.",
        _SET_DEBUG,
    ),
    StepKind(
        "breakpoint",
        Actor.HOST,
        (
            _NUMBER,
            Operand(
                "address",
                f"a multiple of 4 from {CODE.base:#x} to {CODE.end - 4:#x}",
                limit=CODE.end - 4,
                unit=4,
                least=CODE.base,
            ),
            Operand("levels", f"one of {', '.join(BREAKS_AT)}", frozenset(BREAKS_AT)),
        ),
        "Set a hardware breakpoint of userspace on an instruction at EL0, EL1 or both, or remove it.",
        _SET_DEBUG,
    ),
    StepKind(
        "watchpoint",
        Actor.HOST,
        (
            _NUMBER,
            Operand(
                "address",
                f"a multiple of 8 from {DATA.base:#x} to {DATA.end - 8:#x}",
                limit=DATA.end - 8,
                unit=8,
                least=DATA.base,
            ),
            Operand("bytes", "a number from 1 to 8", limit=8, least=1),
            Operand("accesses", f"one of {', '.join(WATCHES)}", frozenset(WATCHES)),
        ),
        "Set a hardware watchpoint of userspace on the first bytes of a word of RAM, or remove it.",
        _SET_DEBUG,
    ),
    StepKind(
        "mp_state",
        Actor.HOST,
        (Operand("state", f"one of {', '.join(MP_STATES)}", frozenset(MP_STATES)),),
        "Stop the vCPU or let it run; the agent makes a stopped one runnable when a guest step is next.",
        "KVM API 4.39 KVM_SET_MP_STATE",
    ),
    StepKind(
        "slot",
        Actor.HOST,
        SLOT_OPERANDS,
        "Add a memory slot, move it, or change its kind: rw, ro (read-only), log, ro_log (with a dirty log).",
        "KVM API 4.35 KVM_SET_USER_MEMORY_REGION",
    ),
    StepKind(
        "drop_slot",
        Actor.HOST,
        (_SLOT,),
        "Delete a memory slot; slot 1 exists unless `memory` lines say otherwise.",
        "KVM API 4.35 KVM_SET_USER_MEMORY_REGION, memory_size 0",
    ),
    StepKind(
        "vcpu",
        Actor.HOST,
        (Operand("vcpu", f"one of {', '.join(CONTEXT_NAMES)}", frozenset(CONTEXT_NAMES)),),
        "Continue with another vCPU, VM.vCPU; a new one starts at its own code, with reset values.",
        "docs/spec/differential.md section 5, interleaving",
    ),
    StepKind(
        "forge",
        Actor.HOST,
        (Operand("field", f"one of {', '.join(protocol.FORGE)}", frozenset(protocol.FORGE)), VALUE),
        "Replace exit code, ESR_EL2, FAR_EL2 or HPFAR_EL2 at the exit of the guest step before, for KVM's handlers.",
        "docs/spec/differential.md section 5",
    ),
)
KINDS: Mapping[str, StepKind] = MappingProxyType({k.keyword: k for k in STEP_KINDS})
LEAVES = frozenset({"br", "eret"})
"""Steps that branch out of the code without a trap of their own."""
