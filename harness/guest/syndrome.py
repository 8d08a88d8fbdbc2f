# SPDX-License-Identifier: Apache-2.0
"""Predict ESR_EL2, FAR_EL2 and HPFAR_EL2 of a trap, from the instruction that trapped.

Source: Arm ARM D17.2.37 (ESR_EL2, ISS encodings), D17.2.41 (FAR_EL2), D17.2.64 (HPFAR_EL2).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from harness.arch import a64, exceptions, exits
from harness.arch.exceptions import State
from harness.arch.exits import DABT, EC_BY_NAME, EC_SHIFT, IL_BIT
from harness.arch.registers import MASK64
from harness.guest.execute import CONDITION_ALWAYS, WNR, Access, execute
from harness.guest.memory import Memory
from harness.trace.events import Switch

FSC_LEVEL: Final = 0x3
"""Low bits of a fault status: the level of the walk, which depends on what is mapped around the address."""
HPFAR_SHIFT: Final = 8
IPA_MASK: Final = 0xFFFF_FFFF_F000
"""HPFAR_EL2 holds bits 47:12 of the IPA at 39:4."""


class Fault(NamedTuple):
    """The expected registers: ``esr`` apart from the bits of ``esr_free``; an address is None where it is UNKNOWN."""

    esr: int
    esr_free: int = 0
    far: int | None = None
    hpfar: int | None = None


def _esr(ec: str, iss: int) -> int:
    return EC_BY_NAME[ec] << EC_SHIFT | IL_BIT | iss


def abort(ec: str, access: Touch, ipa: int, memory: Memory) -> Fault:
    """Return the stage-2 fault of an access or fetch that stage 1 translates to ``ipa``; ``memory`` has the slots."""
    # KVM maps a page as it is needed: what was read may be neither writable nor executable yet.
    free = FSC_LEVEL
    if (ec != "DABT_LOW" or access.is_store) and memory.slot(ipa) is not None:
        free |= exits.FSC_TYPE
    return Fault(_esr(ec, access.iss | exits.FSC_TRANSLATION), free, access.address, (ipa & IPA_MASK) >> HPFAR_SHIFT)


def walk_abort(ec: str, address: int, entry: int) -> Fault:
    """Return the stage-2 fault of the walk for ``address`` at the table entry ``entry``; ISV is 0.

    Source: Arm ARM AArch64.FaultSyndrome, which gives ISS[24:14] to faults that are not ``s2fs1walk`` alone.
    """
    free = FSC_LEVEL | (WNR if ec == "DABT_LOW" else 0)
    iss = exits.DABT["S1PTW"].mask | exits.FSC_TRANSLATION
    return Fault(_esr(ec, iss), free, address, (entry & IPA_MASK) >> HPFAR_SHIFT)


def fetch_fault(pc: int, memory: Memory) -> Fault:
    """Return the instruction abort of a fetch from ``pc``, which stage 2 does not map; stage 1 is off."""
    return abort("IABT_LOW", Touch(pc, False, 0), pc, memory)


class TrappedInstruction(NamedTuple):
    """An instruction that trapped: the guest's state there, its word (None: unknown) and the record of the exit."""

    state: State
    word: int | None
    exit: Switch


class Touch(NamedTuple):
    """The access of a load or store: its address, whether it writes, its instruction syndrome (ISS) and its size."""

    address: int
    is_store: bool
    iss: int
    size: int = 1


def touch(state: State, word: int) -> Touch | None:
    """Return the access that an instruction makes; None: it makes none, or a pair on two pages."""
    access = a64.decode_access(word)
    if access is not None:
        address = (state[access.rn] + access.offset) & MASK64
        return Touch(address, access.is_store, _valid_iss(access), access.size)
    plain = a64.decode_plain(word)
    if plain is None or not plain.size:
        return None
    effect = execute(state, word)
    if not isinstance(effect, Access):
        return None
    # ISV is 0: of the ISS only WnR is valid.
    return Touch(effect.address, effect.is_store, WNR if effect.is_store else 0, effect.size)


def accesses(state: State, word: int, address: int) -> bool:
    """Whether a load or store may access the byte at a virtual address; also True if the word's access is unknown."""
    made = touch(state, word)
    return made is None or (address - made.address & MASK64) < made.size


@lru_cache(maxsize=1 << 12)
def _valid_iss(access: a64.Access) -> int:
    fields = {
        "ISV": 1,
        "SAS": access.size.bit_length() - 1,
        "SSE": int(access.sign_extend),
        "SRT": access.rt,
        "SF": int(access.sixty_four),
        "WNR": int(access.is_store),
    }
    return sum(value << DABT[name].low for name, value in fields.items())


def call(word: int) -> Fault:
    """Return the syndrome of an HVC: its immediate."""
    return Fault(_esr("HVC64", word >> 5 & 0xFFFF))


def wait(is_wfe: bool) -> Fault:
    """Return the syndrome of a WFI or WFE."""
    return Fault(_esr("WFX", CONDITION_ALWAYS | int(is_wfe)))


def register_access(word: int) -> Fault:
    """Return the syndrome of an MRS, MSR or SYS."""
    op0, op1, crn, crm, op2 = a64.system_register(word)
    is_read, rt = word >> 21 & 1, word & 31
    return Fault(_esr("SYS64", op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | is_read))


def expected_syndrome(state: State, word: int | None, memory: Memory, *, is_fetch: bool) -> Fault | None:
    """Return the fault registers that the trap of instruction ``word`` (None: unknown) requires in ``state``.

    ``is_fetch``: the exit is an instruction abort.  None where the architecture requires nothing.
    """
    if is_fetch:
        return fetch_fault(state[exceptions.PC], memory)
    if word is None:
        return None
    access = touch(state, word)
    if access is None:
        return _by_word(word)
    if access.address % access.size:
        return None  # the MMU is off, all memory is Device memory: the Arm ARM has an alignment fault instead
    return abort("DABT_LOW", access, access.address, memory)


@lru_cache(maxsize=1 << 12)
def _by_word(word: int) -> Fault | None:
    """Return the syndrome of an instruction that accesses no memory: it follows from the word alone."""
    if a64.is_hvc(word):
        return call(word)
    if word in (a64.WFI, a64.WFE):
        return wait(word == a64.WFE)
    plain = a64.decode_plain(word)
    if plain is not None and plain.sysreg is not None:
        return register_access(word)
    return Fault(_esr("SMC64", word >> 5 & 0xFFFF)) if plain is not None and plain.mnemonic == "smc" else None
