# SPDX-License-Identifier: Apache-2.0
"""Compute a vCPU's registers after an exception entry, or after an instruction that KVM emulated.

Sources: Arm ARM AArch64.TakeException and D1.10 (exception entry), C5.2 (PSTATE fields); the kernel's
``__kvm_adjust_pc`` and ``enter_exception64`` for what KVM keeps pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from harness.arch import registers
from harness.arch.registers import MASK64

PC: Final = registers.INDEX["pc"]
PSTATE: Final = registers.INDEX["pstate"]
ELR: Final = registers.INDEX["elr_el1"]
SPSR: Final = registers.INDEX["spsr_el1"]
ESR: Final = registers.INDEX["esr_el1"]
FAR: Final = registers.INDEX["far_el1"]
VBAR: Final = registers.INDEX["vbar_el1"]
SCTLR: Final = registers.INDEX["sctlr_el1"]
TCR: Final = registers.INDEX["tcr_el1"]
MDSCR: Final = registers.INDEX["mdscr_el1"]

# PSTATE as SPSR_ELx holds it (Arm ARM C5.2.18).
NZCV: Final = 0xF000_0000
TCO: Final = 1 << 25
DIT: Final = 1 << 24
UAO: Final = 1 << 23
PAN: Final = 1 << 22
SS: Final = 1 << 21
IL: Final = 1 << 20
ALLINT: Final = 1 << 13
PSTATE_A: Final = 1 << 8
PSTATE_I: Final = 1 << 7
PSTATE_F: Final = 1 << 6
SSBS: Final = 1 << 12
BTYPE: Final = 3 << 10
DAIF: Final = 0x3C0
MODE: Final = 0x1F
EL0T: Final = 0x0
EL1T: Final = 0x4
EL1H: Final = 0x5
AARCH32: Final = 1 << 4
"""PSTATE.nRW: the host may set User mode in PSTATE, where the CPU has AArch32 at EL0."""
THUMB: Final = 1 << 5
AARCH32_E: Final = 1 << 9
IT: Final = 0x600_FC00
IT_BLOCK: Final = 0x600_1C00
"""AArch32: PSTATE.T and E; ITSTATE, and its bits for the rest of the IT block (Arm ARM C5.2.18, SPSR_EL1)."""
SCTLR_SPAN: Final = 1 << 23
SCTLR_DSSBS: Final = 1 << 44
SCTLR_A: Final = 2
SCTLR_M: Final = 1
SCTLR_EE: Final = 1 << 25
SCTLR_E0E: Final = 1 << 24
SCTLR_NTWI: Final = 1 << 16
SCTLR_NTWE: Final = 1 << 18
MDSCR_SS: Final = 1
OS_LOCK_HIDES: Final = 1 | 1 << 13 | 1 << 15 | 0xFFFF_FFFF << 32
"""MDSCR_EL1.SS, KDE and MDE: KVM clears them in the value that it loads while the guest's OS Lock is set
(kvm_arm_setup_debug in arch/arm64/kvm/debug.c); the value that 6.1 restores has 32 bits, the others are RES0 (Arm ARM
D17.3.20)."""


def os_locked(mdscr: int, loaded: int) -> bool:
    """Whether ``loaded`` is what KVM makes of ``mdscr`` while the OS Lock is set: bits are cleared, none is set."""
    return not (mdscr ^ loaded) & ~OS_LOCK_HIDES and not loaded & ~mdscr


VECTOR_OFFSETS: Final[Mapping[int, int]] = MappingProxyType({EL1T: 0x000, EL1H: 0x200, EL0T: 0x400})
VECTOR_AARCH32: Final = 0x600
EXCEPTION: Final = (PC, PSTATE, ELR, SPSR, ESR, FAR)
"""The registers that exception entry may change (Arm ARM AArch64.TakeException)."""
AARCH32_STATE: Final = (*range(15), PC)
"""The registers of AArch32 state at EL0, R0 to R14 and PC (Arm ARM D1.20.1)."""
IRQ_OFFSET: Final = 0x080
FIQ_OFFSET: Final = 0x100
SERROR_OFFSET: Final = 0x180

# HCR_EL2.VSE, VI, VF: a virtual SError, IRQ, FIQ is pending (Arm ARM D17.2.48), PSTATE.A, I, F mask it.
HCR_VF: Final = 1 << 6
HCR_VI: Final = 1 << 7
HCR_VSE: Final = 1 << 8
VIRTUAL_INTERRUPTS: Final[tuple[tuple[int, int, int], ...]] = (
    (HCR_VSE, PSTATE_A, SERROR_OFFSET),
    (HCR_VI, PSTATE_I, IRQ_OFFSET),
    (HCR_VF, PSTATE_F, FIQ_OFFSET),
)
"""Pending bit in HCR_EL2, mask in PSTATE, offset of the vector."""
HCR_VIRTUAL: Final = HCR_VSE | HCR_VI | HCR_VF


def unmasked(pstate: int, hcr: int) -> tuple[tuple[int, int], ...]:
    """Return the virtual interrupts that a guest takes before its next instruction: pending bit, vector offset."""
    return tuple((bit, offset) for bit, mask, offset in VIRTUAL_INTERRUPTS if hcr & bit and not pstate & mask)


State = tuple[int, ...]
"""Register values in the order of ``registers.STATE``."""


def vector(vbar: int, pstate: int) -> int:
    """Return the vector of a synchronous exception to EL1 from ``pstate`` (Arm ARM D1.10.2)."""
    return (vbar + VECTOR_OFFSETS.get(pstate & MODE, VECTOR_AARCH32)) & MASK64


def same_el(ec: int) -> int:
    """Return the class of an abort without a change of level, ``ec`` being that from a lower one (Arm ARM D17.2.37)."""
    return ec + 1


def exception_pstate(pstate: int, sctlr: int) -> int:
    """Return PSTATE after exception entry to EL1 from ``pstate`` (Arm ARM AArch64.TakeException)."""
    new = EL1H | DAIF | pstate & (NZCV | DIT | PAN)
    if not sctlr & SCTLR_SPAN:
        new |= PAN
    if sctlr & SCTLR_DSSBS:
        new |= SSBS
    return new


def take_exception(state: State, esr: int | None = None, far: int | None = None, offset: int = 0) -> State:
    """Return the state after a synchronous exception to EL1; ESR_EL1 and FAR_EL1 change only where given."""
    new = list(state)
    new[ELR], new[SPSR] = state[PC], state[PSTATE]
    new[PC] = (vector(state[VBAR], state[PSTATE]) + offset) & MASK64
    new[PSTATE] = exception_pstate(state[PSTATE], state[SCTLR])
    if esr is not None:
        new[ESR] = esr
    if far is not None:
        new[FAR] = far
    return tuple(new)


def state_after_instruction(pc: int, pstate: int, wide: bool = True) -> tuple[int, int]:
    """Return PC and PSTATE after an instruction: PC + 4, PSTATE.BTYPE and SS clear (kvm_skip_instr).

    In AArch32 state ITSTATE advances, and after a T32 instruction that is not ``wide`` (ESR_EL2.IL) PC is 2 more
    (kvm_skip_instr32; Arm ARM G1.4.2, ITSTATE).
    """
    if not pstate & AARCH32:
        return (pc + 4) & MASK64, pstate & ~(BTYPE | SS)
    length = 2 if pstate & THUMB and not wide else 4
    return (pc + length) & MASK64, _next_it(pstate) & ~SS


def _next_it(pstate: int) -> int:
    """Return PSTATE with ITSTATE as it is for the next instruction of an IT block."""
    block = pstate >> 8 & 0x1C | pstate >> 25 & 3  # IT[4:0]
    rest = block << 1 & 0x1F if block & 7 else 0
    kept = pstate & ~(IT if not rest else IT_BLOCK)
    return kept | (rest & 0x1C) << 8 | (rest & 3) << 25


def skip(state: State, wide: bool = True) -> State:
    """Return the state after the current instruction; ``wide`` as in :func:`state_after_instruction`."""
    new = list(state)
    new[PC], new[PSTATE] = state_after_instruction(state[PC], state[PSTATE], wide)
    return tuple(new)


def is_big_endian(values: Sequence[int]) -> bool:
    """Whether the guest's data accesses are big-endian: SCTLR_EL1.EE at EL1, E0E at EL0 (Arm ARM D17.2.118).

    In AArch32 state PSTATE.E decides (Arm ARM E2.8.3).
    """
    if values[PSTATE] & AARCH32:
        return bool(values[PSTATE] & AARCH32_E)
    at_el0 = values[PSTATE] & MODE == EL0T
    return bool(values[SCTLR] & (SCTLR_E0E if at_el0 else SCTLR_EE))
