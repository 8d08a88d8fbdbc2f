# SPDX-License-Identifier: Apache-2.0
"""What ESR_EL2, FAR_EL2 and HPFAR_EL2 must say of a trap, from the instruction that trapped.

Source: Arm ARM D17.2.37 (ESR_EL2, ISS encodings), D17.2.41 (FAR_EL2), D17.2.64 (HPFAR_EL2).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from harness import a64, arch, exits
from harness.arch import State
from harness.execute import CONDITION_ALWAYS, WNR, Access, execute
from harness.exits import DABT, EC_BY_NAME, EC_SHIFT, IL_BIT
from harness.layout import REGIONS, TRAP_REGISTER
from harness.registers import MASK64

FSC_LEVEL = 0x3
"""Low bits of a fault status: the level of the walk, which depends on what is mapped around the address."""
HPFAR_SHIFT = 8
IPA_MASK = 0xFFFF_FFFF_F000
"""HPFAR_EL2 holds bits 47:12 of the IPA at 39:4."""

TRAP = a64.encode("mrs", "xzr", TRAP_REGISTER)


class Fault(NamedTuple):
    """What is owed: ``esr`` up to the bits of ``esr_free``; an address is None where the register is UNKNOWN."""

    esr: int
    esr_free: int = 0
    far: int | None = None
    hpfar: int | None = None


def _esr(ec: str, iss: int) -> int:
    return EC_BY_NAME[ec] << EC_SHIFT | IL_BIT | iss


def _abort(ec: str, iss: int, address: int, *, reads: bool) -> Fault:
    # KVM maps a page as it is needed: what was read may be neither writable nor executable yet.
    free = FSC_LEVEL
    if not reads and any(region.slot and address in region for region in REGIONS):
        free |= exits.FSC_TYPE
    return Fault(_esr(ec, iss | exits.FSC_TRANSLATION), free, address, (address & IPA_MASK) >> HPFAR_SHIFT)


def fetch_fault(pc: int) -> Fault:
    """An instruction abort: nothing is mapped at ``pc`` at stage 2, stage 1 is off."""
    return _abort("IABT_LOW", 0, pc, reads=False)


def access_fault(state: State, access: a64.Access) -> Fault | None:
    """A data abort of a load or store with a valid syndrome; None for one that may be either of two pages' fault."""
    address = (state[access.rn] + access.offset) & MASK64
    if address % access.size:
        return None
    return _abort("DABT_LOW", _valid_iss(access), address, reads=not access.is_store)


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
    """An HVC: the immediate."""
    return Fault(_esr("HVC64", word >> 5 & 0xFFFF))


def wait(is_wfe: bool) -> Fault:
    """A WFI or WFE."""
    return Fault(_esr("WFX", CONDITION_ALWAYS | int(is_wfe)))


def register_access(word: int) -> Fault:
    """An MRS, MSR or SYS."""
    op0, op1, crn, crm, op2 = a64.system_register(word)
    is_read, rt = word >> 21 & 1, word & 31
    return Fault(_esr("SYS64", op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | is_read))


def _unsyndromed(state: State, word: int) -> Fault | None:
    """A data abort of a load or store whose syndrome is not valid: only WnR says anything."""
    effect = execute(state, word)
    if not isinstance(effect, Access) or effect.address % effect.size:
        return None
    return _abort("DABT_LOW", WNR if effect.is_store else 0, effect.address, reads=not effect.is_store)


def owed(state: State, word: int | None, is_fetch: bool) -> Fault | None:
    """Return what the trap of instruction ``word`` (None: nobody knows it) owes in ``state``.

    ``is_fetch``: the exit says that it was the fetch that faulted.  None where nothing is promised here.
    """
    if is_fetch:
        return fetch_fault(state[arch.PC])
    if word is None:
        return None
    access = a64.decode_access(word)
    if access is not None:
        return access_fault(state, access)
    plain = a64.decode_plain(word)
    return _unsyndromed(state, word) if plain is not None and plain.size else _by_word(word)


@lru_cache(maxsize=1 << 12)
def _by_word(word: int) -> Fault | None:
    """What the trap of an instruction owes that accesses no memory: the word alone says it."""
    if a64.is_hvc(word):
        return call(word)
    if word in (a64.WFI, a64.WFE):
        return wait(word == a64.WFE)
    plain = a64.decode_plain(word)
    if plain is None:
        return None
    if plain.sysreg is not None:
        return register_access(word)
    return Fault(_esr("SMC64", word >> 5 & 0xFFFF)) if plain.mnemonic == "smc" else None
