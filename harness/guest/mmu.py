# SPDX-License-Identifier: Apache-2.0
"""Translate a guest access through stage 1 and the memory slots; return its RAM location or the resulting fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.arch import a64, exceptions, exits
from harness.arch.cpu_models import Cpu
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.guest.execute import EC_DABT, FSC_ALIGNMENT, WNR, Effect, RaiseException, Trap, Undetermined
from harness.guest.load_store import Places, parts
from harness.guest.memory import RunMemory
from harness.guest.stage1 import FSC_ADDRESS_SIZE, Mapped, Refused, Unsure, Use, is_on, translate

EC_IABT: Final = exits.EC_BY_NAME["IABT_LOW"]
CODE_CHANGED: Final = "code that the guest may have changed"
UNALIGNED_DEVICE: Final = (
    "emulator: an unaligned access to Device memory, an alignment fault that QEMU 7.2 does not have"
)


def tag_ignored(state: State, address: int) -> bool:
    """Return TCR_EL1.TBI1 or TBI0, by bit 55 of the address."""
    return bool(state[exceptions.TCR] >> (38 if address >> 55 & 1 else 37) & 1)


def exceeds_output_size(state: State, address: int, cpu: Cpu) -> bool:
    """Whether an address exceeds the output size with stage 1 off (Arm ARM AArch64.S1DisabledOutput)."""
    return (address & (1 << 56) - 1 if tag_ignored(state, address) else address) >> cpu.pa_bits != 0


def mapped(state: State, memory: RunMemory, address: int, use: Use, cpu: Cpu) -> Mapped | Effect:
    """Translate an address at stage 1, which is on; return its IPA, or the effect of the fault instead."""
    if not memory.known:
        return Undetermined("stage-1 translation is on, and its tables are not known")
    found = translate(state, memory, address, use, cpu)
    if isinstance(found, Unsure):
        return Undetermined(found.why)
    if isinstance(found, Mapped):
        return found
    if isinstance(found, Refused):
        ec, write = (EC_IABT, 0) if use is Use.FETCH else (EC_DABT, WNR if use is Use.WRITE else 0)
        return RaiseException(ec, found.status | write, address)
    return Trap(f"the walk for {address:#x}")


class DataAccess(NamedTuple):
    """A load or store of ``size`` bytes at a virtual address."""

    address: int
    size: int
    is_store: bool


def locate_access(state: State, memory: RunMemory, access: DataAccess, cpu: Cpu) -> Places | Effect:
    """Return the places of a load or store, or the effect of its fault.

    What a store may have written before it faults becomes unknown in ``memory``.

    Source: Arm ARM AArch64.CheckAlignment (SCTLR_EL1.A comes before any translation), B2.2 (an unaligned access is not
    single-copy atomic: the order of its parts is not defined).
    """
    address, size, is_store = access
    write, unaligned = WNR if is_store else 0, address % size != 0
    if unaligned and state[exceptions.SCTLR] & exceptions.SCTLR_A:
        return RaiseException(EC_DABT, FSC_ALIGNMENT | write, address)
    if not is_on(state):
        # The MMU is off: all memory is Device memory for data.
        if unaligned and (cpu.aligns_device or len(parts(address, size)) > 1):
            return Undetermined(UNALIGNED_DEVICE)
        if exceeds_output_size(state, address, cpu):
            return RaiseException(EC_DABT, FSC_ADDRESS_SIZE | write, address)
        return _inside(memory, access, address)
    pieces = [DataAccess(at, length, is_store) for at, length in parts(address, size)]
    found = [_part(state, memory, piece, unaligned, cpu) for piece in pieces]
    there = tuple(place for one in found if isinstance(one, tuple) for place in one)
    effects = [one for one in found if not isinstance(one, tuple)]
    if not effects:
        return there
    if is_store:
        for at, length in there:
            memory.store(at, length, None)
    if len(effects) > 1 and not all(isinstance(effect, Trap) for effect in effects):
        return Undetermined("an access across two pages, neither of which is there: either fault may come first")
    return effects[0]


def _part(state: State, memory: RunMemory, piece: DataAccess, unaligned: bool, cpu: Cpu) -> Places | Effect:
    """Locate the part of an access that is inside one page of the smallest granule."""
    found = mapped(state, memory, piece.address, Use.WRITE if piece.is_store else Use.READ, cpu)
    if not isinstance(found, Mapped):
        return found
    if unaligned and found.is_device and cpu.aligns_device:
        return Undetermined(UNALIGNED_DEVICE)
    return _inside(memory, piece, found.ipa)


def _inside(memory: RunMemory, access: DataAccess, ipa: int) -> Places | Effect:
    """Return the place of an access at a guest physical address, or its trap if no memory slot takes it."""
    slot = memory.slot(ipa)
    if slot is None or (access.is_store and slot.read_only):
        return Trap(f"the access to {access.address:#x}")
    return ((ipa, access.size),) if slot.home is not None or not access.is_store else Undetermined(CODE_CHANGED)


def half_stored(state: State, word: int, memory: RunMemory, cpu: Cpu) -> Mapping[int, int | None]:
    """Return the words of RAM that a store which trapped may have changed: one of its two pages may be mapped."""
    access = a64.decode_access(word)
    if access is None or not access.is_store:
        return {}
    pieces = parts(state[access.rn] + access.offset & MASK64, access.size)
    for address, size in pieces if len(pieces) > 1 and is_on(state) else ():
        found = mapped(state, memory, address, Use.WRITE, cpu)
        if isinstance(found, Mapped):
            memory.store(found.ipa, size, None)
    return memory.stored_words
