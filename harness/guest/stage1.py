# SPDX-License-Identifier: Apache-2.0
"""Translate addresses at stage 1 of EL1&0, through the tables that a scenario wrote; all granules of the CPU.

Source: Arm ARM D8.2 (translation process, table walk), D8.3 (descriptors), D8.4 (permissions), D8.15 (order and levels
of faults), D17.2.139 (TCR_EL1), D17.2.144 (TTBR0_EL1).

An emulator's TLB holds nothing from before the entry: KVM changes HCR_EL2.VM (or the VMID) at every world switch, and
QEMU then flushes all of EL1's and EL0's translations (target/arm/helper.c, hcr_write and vttbr_write).  What changes
after the entry, the TLB may or may not have seen; a caller of :func:`translate` must take care of that.
"""

from __future__ import annotations

from enum import Enum
from operator import itemgetter
from typing import Final, NamedTuple

from harness.arch import exceptions
from harness.arch.cpu_models import Cpu
from harness.arch.exceptions import State
from harness.arch.exits import FSC_ACCESS, FSC_PERMISSION, FSC_TRANSLATION
from harness.arch.registers import INDEX
from harness.guest.memory import Memory

FSC_ADDRESS_SIZE: Final = 0x00
TTBR0: Final = INDEX["ttbr0_el1"]
TTBR1: Final = INDEX["ttbr1_el1"]
MAIR: Final = INDEX["mair_el1"]
CONTROLS: Final[tuple[int, ...]] = (exceptions.SCTLR, exceptions.TCR, TTBR0, TTBR1, MAIR)
"""The registers that decide a translation."""
_CONTROLS: Final = itemgetter(*CONTROLS)

_GRANULES: Final[tuple[tuple[int | None, ...], ...]] = ((12, 16, 14, None), (None, 14, 12, 16))
"""Bits of address inside a page, by TCR_EL1.TG0 and by TG1; None: reserved."""
_BLOCKS: Final = {12: (1, 2), 14: (2,), 16: (2,)}
"""Levels that may have blocks, by granule (Arm ARM D8.3.1, without 52-bit addresses)."""
_SMALLEST: Final = 16
_LARGEST: Final = 39
"""TxSZ without FEAT_LVA and FEAT_TTST."""
_OUTPUT_BITS: Final = (32, 36, 40, 42, 44, 48, 48)
"""By TCR_EL1.IPS; 52 bits need another granule, or descriptors of another format."""
_TCR_KNOWN: Final = 0x77_FFFF_FFBF
"""T0SZ .. TBI1 without the RES0 bits 6 and 35; above are options of later architectures."""
_ADDRESS: Final = 0xFFFF_FFFF_F000
_BASE: Final = 0xFFFF_FFFF_FFFE
_VALID: Final = 1 << 0
_TABLE: Final = 1 << 1
_AP_EL0: Final = 1 << 6
_AP_READ_ONLY: Final = 1 << 7
_AF: Final = 1 << 10
_ODD: Final = 1 << 52 | 7 << 48
"""Contiguous, GP, and bits that are RES0 or address bits."""
_PXN: Final = 1 << 53
_UXN: Final = 1 << 54
_TABLE_PXN: Final = 1 << 59
_TABLE_UXN: Final = 1 << 60
_TABLE_NO_EL0: Final = 1 << 61
_TABLE_READ_ONLY: Final = 1 << 62
_WXN: Final = 1 << 19
_EPAN: Final = 1 << 57


class Use(Enum):
    """The kind of access that an address is translated for."""

    FETCH = "fetch"
    READ = "read"
    WRITE = "write"


class Mapped(NamedTuple):
    """The address is at ``ipa``; ``tables`` are the addresses of the table entries that were read.

    ``is_device``: its memory type is Device memory.
    """

    ipa: int
    tables: tuple[int, ...]
    is_device: bool = False


class Refused(NamedTuple):
    """A stage-1 fault, which EL1 takes: ``status`` is its fault status code, level included."""

    status: int
    tables: tuple[int, ...] = ()


class Outside(NamedTuple):
    """The last of ``tables``, an entry of ``level``, is in no memory slot: the walk faults at stage 2."""

    tables: tuple[int, ...]
    level: int


class Unsure(NamedTuple):
    """The translation is not determined; ``why`` has the reason."""

    why: str


Result = Mapped | Refused | Outside | Unsure


def is_on(state: State) -> bool:
    """Whether EL1 and EL0 addresses are translated at stage 1."""
    return bool(state[exceptions.SCTLR] & exceptions.SCTLR_M)


def controls(state: State) -> tuple[int, ...]:
    """Return the registers that decide a translation."""
    found: tuple[int, ...] = _CONTROLS(state)
    return found


def first_table(state: State, address: int) -> tuple[int, int | None]:
    """Return where the first table of a walk for a virtual address begins, and the bits of address inside a page.

    The latter are None for a reserved granule (Arm ARM D17.2.144 TTBR0_EL1, D17.2.139 TCR_EL1).
    """
    upper = address >> 55 & 1
    granule = _GRANULES[upper][state[exceptions.TCR] >> (30 if upper else 14) & 3]
    return state[TTBR1 if upper else TTBR0] & _BASE, granule


def translate(state: State, memory: Memory, address: int, use: Use, cpu: Cpu) -> Result:
    """Translate a virtual address at the Exception level of ``state``; the access must be inside one page."""
    tcr = state[exceptions.TCR]
    upper = address >> 55 & 1
    size = tcr >> (16 if upper else 0) & 0x3F
    granule = _GRANULES[upper][tcr >> (30 if upper else 14) & 3]
    if tcr & ~_TCR_KNOWN or state[exceptions.SCTLR] & _EPAN:
        return Unsure("translation with options of later architectures")
    if tcr >> (23 if upper else 7) & 1:
        return Refused(FSC_TRANSLATION)  # EPDx: no walk
    if granule not in cpu.granules:
        return Unsure("a granule that the CPU does not have")
    if not _SMALLEST <= size <= _LARGEST:
        return Unsure("TxSZ out of range is CONSTRAINED UNPREDICTABLE")
    if tcr >> 32 & 7 == 7 or (tcr >> 32 & 7 == 6 and granule == 16):
        return Unsure("a reserved output size, or one of 52 bits")
    bits = 64 - size
    same = (1 << 56) - (1 << bits) if upper else 0
    if tcr >> (38 if upper else 37) & 1:
        if address >> 56 != (0xFF if upper else 0):
            return Unsure("a tagged address")
    elif address >> 56 != (0xFF if upper else 0):
        return Refused(FSC_TRANSLATION)
    if address & (1 << 56) - (1 << bits) != same:
        return Refused(FSC_TRANSLATION)
    table = state[TTBR1 if upper else TTBR0] & _BASE
    return _walk(state, memory, _Lookup(address & (1 << bits) - 1, use, table, bits, granule), cpu)


class _Lookup(NamedTuple):
    """A table walk to make: the input address, its use, the base of the first table, and the geometry of the tables.

    ``bits`` is the size of the input address, ``granule`` the bits of address inside a page.
    """

    address: int
    use: Use
    table: int
    bits: int
    granule: int


def _walk(state: State, memory: Memory, lookup: _Lookup, cpu: Cpu) -> Result:
    """Walk the tables from the initial lookup level to a block, a page or a fault."""
    address, use, table, bits, granule = lookup
    stride = granule - 3
    limit = min(cpu.pa_bits, _OUTPUT_BITS[state[exceptions.TCR] >> 32 & 7])
    level = 4 - -(-(bits - granule) // stride)
    shift = granule + stride * (3 - level)
    if table & (1 << bits - shift + 3) - 1:
        return Unsure("a table that is not aligned to its size")
    if table >> limit:
        return Refused(FSC_ADDRESS_SIZE)
    tables: tuple[int, ...] = ()
    inherited = 0
    while True:
        at = table + 8 * (address >> shift)
        tables = (*tables, at)
        slot = memory.slot(at)
        if slot is None or slot.home is None:
            return Unsure("tables outside the data pages") if slot is not None else Outside(tables, level)
        entry = memory.read(at)
        if entry is None:
            return Unsure("tables that the guest may have changed")
        if state[exceptions.SCTLR] & exceptions.SCTLR_EE:
            entry = int.from_bytes(entry.to_bytes(8, "little"), "big")
        is_leaf = level == 3 or not entry & _TABLE
        if not entry & _VALID or (level == 3 and not entry & _TABLE):
            return Refused(FSC_TRANSLATION | level, tables)
        if level < 3 and is_leaf and level not in _BLOCKS[granule]:
            return Unsure("emulator: QEMU 7.2 takes a block at any level, also where it is reserved")
        output = entry & _ADDRESS
        address &= (1 << shift) - 1
        if output & (1 << (shift if is_leaf else granule)) - 1 or entry & (_ODD if is_leaf else 7 << 48):
            return Unsure("a descriptor with bits that are RES0, or the Contiguous bit")
        if output >> limit:
            return Refused(FSC_ADDRESS_SIZE | level, tables)
        if is_leaf:
            status = _leaf_status(state, entry, inherited, use, cpu)
            if isinstance(status, Unsure):
                return status
            if status is not None:
                return Refused(status | level, tables)
            return Mapped(output | address, tables, _is_device(state, entry))
        inherited |= entry
        table, level, shift = output, level + 1, shift - stride


def _is_device(state: State, entry: int) -> bool:
    """Whether MAIR_EL1 gives a block or page Device memory type (Arm ARM D17.2.100)."""
    return not state[MAIR] >> 8 * (entry >> 2 & 7) & 0xF0


def _leaf_status(state: State, entry: int, inherited: int, use: Use, cpu: Cpu) -> int | Unsure | None:
    """Return the fault status of a block or page entry, without the level; None: no fault."""
    if not entry & _AF:
        return FSC_ACCESS
    if use is Use.FETCH and _is_device(state, entry):
        return Unsure("a fetch from Device memory is CONSTRAINED UNPREDICTABLE")
    return None if _permitted(state, entry, inherited, use, cpu) else FSC_PERMISSION


def _permitted(state: State, entry: int, inherited: int, use: Use, cpu: Cpu) -> bool:
    pstate = state[exceptions.PSTATE] & ~cpu.mask(exceptions.PSTATE)[0]
    at_el0 = pstate & exceptions.MODE == exceptions.EL0T
    for_el0 = bool(entry & _AP_EL0 and not inherited & _TABLE_NO_EL0)
    writable = not (entry & _AP_READ_ONLY or inherited & _TABLE_READ_ONLY)
    if use is Use.FETCH:
        wxn = bool(state[exceptions.SCTLR] & _WXN)
        if at_el0:
            return not (entry & _UXN or inherited & _TABLE_UXN or (wxn and for_el0 and writable))
        # What EL0 may write to, EL1 may not execute (D8.4.5).
        return not (entry & _PXN or inherited & _TABLE_PXN or (writable and (for_el0 or wxn)))
    if at_el0:
        return for_el0 and (writable or use is Use.READ)
    return (writable or use is Use.READ) and not (pstate & exceptions.PAN and for_el0)
