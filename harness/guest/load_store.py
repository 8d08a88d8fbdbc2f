# SPDX-License-Identifier: Apache-2.0
"""Move data between registers and RAM, for loads and stores that do not fault."""

from __future__ import annotations

from typing import Final, Literal

from harness.arch import a64, exceptions
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.guest.execute import Continue
from harness.guest.memory import RunMemory

Places = tuple[tuple[int, int], ...]
"""The places of an access: guest physical address and size of each part, each inside one memory slot."""
FROM_RAM: Final = "loaded from RAM"
PAGE: Final = 0x1000
"""The smallest granule: all its bytes are translated alike."""


def parts(address: int, size: int) -> Places:
    """Cut an access where it leaves a page: virtual address and size of each part."""
    first = PAGE - address % PAGE
    return ((address, size),) if first >= size else ((address, first), (address + first & MASK64, size - first))


def byte_order(state: State) -> Literal["big", "little"]:
    """Return the byte order of data: SCTLR_EL1.EE, at EL0 E0E (Arm ARM D17.2.118)."""
    at_el0 = state[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T
    return "big" if state[exceptions.SCTLR] & (exceptions.SCTLR_E0E if at_el0 else exceptions.SCTLR_EE) else "little"


def load(state: State, access: a64.Access, memory: RunMemory, places: Places) -> Continue:
    """Return the effect of a load; its register becomes unknown where the contents of memory are."""
    if access.rt == a64.ZERO:
        return Continue()
    data = b""
    for at, size in places:
        part = memory.load(at, size)
        if part is None:
            return Continue({}, {access.rt: (MASK64, FROM_RAM)})
        data += part
    value = int.from_bytes(data, byte_order(state))
    if access.sign_extend and value >> 8 * access.size - 1:
        value -= 1 << 8 * access.size
    return Continue({access.rt: value & (MASK64 if access.sixty_four else 0xFFFF_FFFF)})


def store(state: State, access: a64.Access, memory: RunMemory, places: Places, *, known: bool) -> Continue:
    """Store a register; ``known``: its value is known."""
    value = 0 if access.rt == a64.ZERO else state[access.rt]
    data = (value & (1 << 8 * access.size) - 1).to_bytes(access.size, byte_order(state))
    for at, size in places:
        memory.store(at, size, data[:size] if known else None)
        data = data[size:]
    return Continue()
