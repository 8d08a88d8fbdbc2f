# SPDX-License-Identifier: Apache-2.0
"""Define the guest's memory slots in a scenario: parameters, encoding for the agent, the resulting memory map.

The host has one block of RAM; ``home`` identifies a part of it by its address in the default layout, independent of the
slot that maps it, if any.  Two slots may map the same part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from harness.layout import CODE, DATA, MMIO, VECTORS, Region

PAGE: Final = 0x1000
KINDS: Final[Mapping[str, int]] = MappingProxyType({"rw": 0, "log": 1, "ro": 2, "ro_log": 3})
"""KVM_MEM_LOG_DIRTY_PAGES is 1, KVM_MEM_READONLY is 2 (KVM API 4.35)."""
READ_ONLY: Final = 2
NUMBERS: Final = range(1, 5)
"""Slot numbers that a scenario may use; slot 0 has the guest's code and vectors."""
IPA_LIMIT: Final = 1 << 40
"""End of the guest's physical address space: KVM_CREATE_VM type 0 (KVM API 4.2)."""


class Slot(NamedTuple):
    """A memory slot: number, a key of :data:`KINDS`, guest physical address, size, and the part of RAM that it maps.

    Addresses and sizes are multiples of :data:`PAGE`; size 0 requests the deletion of the slot.
    """

    number: int
    kind: str
    base: int
    size: int
    home: int

    @property
    def end(self) -> int:
        """First guest physical address after it."""
        return self.base + self.size

    @property
    def region(self) -> Region:
        """The same as a range of guest physical addresses."""
        read_only = bool(KINDS[self.kind] & READ_ONLY)
        return Region(f"slot {self.number}", self.base, self.size, True, f"memory, {self.kind}", read_only, self.home)


DEFAULT: Final[tuple[Slot, ...]] = (Slot(1, "rw", DATA.base, DATA.size, DATA.base),)
"""The slots of a scenario without ``memory`` lines."""
_FIXED: Final[tuple[Region, ...]] = (MMIO, CODE, VECTORS)
_KIND_NAMES: Final[Mapping[int, str]] = MappingProxyType({flags: name for name, flags in KINDS.items()})


def pack(slot: Slot) -> tuple[int, int]:
    """Return a slot as the two arguments of the operations ``slot`` and ``drop_slot`` (``protocol.OPS``)."""
    return slot.base | KINDS[slot.kind] << 4 | slot.number, (slot.home - DATA.base) << 32 | slot.size


def unpack(a: int, b: int) -> Slot:
    """The inverse of :func:`pack`."""
    return Slot(a & 0xF, _KIND_NAMES[a >> 4 & 3], a & -PAGE, b & 0xFFFF_FFFF, DATA.base + (b >> 32))


def gone(number: int) -> Slot:
    """Return the request to delete a slot."""
    return Slot(number, "rw", 0, 0, DATA.base)


def collides(slot: Slot, others: Iterable[Slot], limit: int = IPA_LIMIT) -> bool:
    """Whether a slot exceeds the guest's physical address space, or overlaps another slot or the code.

    ``limit``: the first address beyond that address space.
    """
    fixed = any(slot.base < region.end and region.base < slot.end for region in (CODE, VECTORS))
    taken = any(slot.base < other.end and other.base < slot.end for other in others if other.number != slot.number)
    return fixed or taken or slot.end > limit


def changed(slots: Mapping[int, Slot], slot: Slot) -> Mapping[int, Slot]:
    """Return the slots after a request that KVM accepted."""
    rest = {number: other for number, other in slots.items() if number != slot.number}
    return rest | {slot.number: slot} if slot.size else rest


def regions(slots: Iterable[Slot]) -> tuple[Region, ...]:
    """Return the memory map of the guest."""
    return (*_FIXED, *(slot.region for slot in sorted(slots, key=lambda slot: slot.base)))
