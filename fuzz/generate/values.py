# SPDX-License-Identifier: Apache-2.0
"""Draw values for registers: addresses, PSTATEs, function ids and boundary values.

Weights are rows of :class:`Weights` tables; every result is a function of the ``rng`` that is passed in.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping
from itertools import accumulate
from random import Random
from types import MappingProxyType
from typing import Generic, TypeVar

from harness.arch.exits import SMCCC_FUNCTIONS
from harness.arch.registers import MASK64
from harness.layout import CODE, DATA, HOLE, MMIO, VECTORS, Region

T = TypeVar("T")
Maker = Callable[[Random], int]


class Weights(Generic[T]):
    """A table of rows (item, weight) for weighted random draws."""

    def __init__(self, *rows: tuple[T, float]) -> None:
        self.items = tuple(item for item, _ in rows)
        self._cumulative = tuple(accumulate(weight for _, weight in rows))

    def pick(self, rng: Random) -> T:
        """Draw one item."""
        return self.items[bisect(self._cumulative, rng.random() * self._cumulative[-1], 0, len(self.items) - 1)]


BOUNDARIES: tuple[int, ...] = tuple(
    sorted({(1 << bit) + delta & MASK64 for bit in (0, 7, 8, 15, 16, 31, 32, 63, 64) for delta in (-1, 0, 1)})
)

# Addresses outside a 40-bit IPA space, or not canonical; stage 1 or stage 2 must reject these.
BEYOND = Region("beyond", 0x1_0000_0000, MASK64 - 0xFFFF_FFFF, False, "above every region of the layout")

# Stores to CODE would change later steps, so these two regions have small weights.
DATA_REGIONS = Weights((MMIO, 60.0), (HOLE, 15.0), (DATA, 20.0), (VECTORS, 2.0), (CODE, 1.0), (BEYOND, 2.0))
FETCH_REGIONS = Weights((MMIO, 50.0), (HOLE, 40.0), (BEYOND, 10.0))
PC_REGIONS = Weights((MMIO, 30.0), (HOLE, 30.0), (VECTORS, 20.0), (DATA, 15.0), (BEYOND, 5.0))

FUNCTIONS = Weights(*((f.fid, 0.2 if f.sleeps else 1.0) for f in SMCCC_FUNCTIONS))

# Arm ARM C5.2.18 SPSR_EL1 for M; D1.3 PSTATE.  KVM rejects all modes except these three.
MODES = Weights((0b0101, 80.0), (0b0100, 10.0), (0b0000, 10.0))
DAIF_MASKS = Weights((0x3C0, 80.0), (0x000, 8.0), (0x200, 4.0), (0x100, 4.0), (0x040, 4.0))
# SS, PAN, UAO, DIT, SSBS, TCO, BTYPE; IL is last because it makes every instruction an exception.
PSTATE_EXTRAS = Weights(
    (0, 80.0), (1 << 21, 3.0), (1 << 22, 3.0), (1 << 23, 3.0), (1 << 24, 3.0), (1 << 12, 3.0), (1 << 25, 2.0),
    (0b01 << 10, 2.0), (1 << 20, 1.0),
)  # fmt: skip

SCTLR_RESET = 0x00C5_0078
"""SCTLR_EL1 as KVM resets it (docs/spec/kvm.md section 4.1)."""
# Arm ARM D19.2 SCTLR_EL1: A, C, SA, nTWI, nTWE, WXN, E0E, EE, SPAN; M is rare: without tables the guest cannot execute.
SCTLR_FLIPS = Weights(
    (0, 30.0), (1 << 1, 8.0), (1 << 2, 8.0), (1 << 3, 8.0), (1 << 16, 8.0), (1 << 18, 8.0), (1 << 19, 8.0),
    (1 << 24, 5.0), (1 << 25, 5.0), (1 << 23, 8.0), (1 << 0, 1.0),
)  # fmt: skip


TABLE = DATA.base + 0x4_0000
"""Address of the first translation table of generated scenarios: not at the first or last bytes of DATA."""
TCR_39_BITS = 0x2_0080_0019
"""TCR_EL1: T0SZ 25, 4 KiB granule, no TTBR1_EL1, 40 bits of output (Arm ARM D17.2.139)."""


def bits(rng: Random) -> int:
    """Return a boundary value, a value with few bits set, or 64 random bits."""
    choice = rng.random()
    if choice < 0.4:
        return BOUNDARIES[int(rng.random() * len(BOUNDARIES))]
    if choice < 0.6:
        return 1 << rng.getrandbits(6) | 1 << rng.getrandbits(6)
    return rng.getrandbits(64)


def address_in(rng: Random, region: Region, size: int = 8) -> int:
    """Return an address in ``region`` for an access of ``size`` bytes: first, last or any bytes, usually aligned."""
    choice = rng.random()
    if choice < 0.15:
        address = region.base
    elif choice < 0.3:
        address = region.end - size
    elif choice < 0.35:
        address = region.end - 1
    else:
        address = region.base + int(rng.random() * (region.size - size))
    return address if rng.random() < 0.06 else address & -size


def address(rng: Random, size: int = 8) -> int:
    """Return an address for a load or store of ``size`` bytes."""
    return address_in(rng, DATA_REGIONS.pick(rng), size)


def fetch_address(rng: Random) -> int:
    """Return an address outside every memory slot, for an instruction fetch."""
    return address_in(rng, FETCH_REGIONS.pick(rng), 4)


def function(rng: Random) -> int:
    """Return a function id for x0: a known one, a neighbour of one, or one with upper bits set (SMCCC ignores them)."""
    fid = FUNCTIONS.pick(rng)
    choice = rng.random()
    if choice < 0.8:
        return fid
    return fid ^ 1 << rng.getrandbits(5) if choice < 0.9 else fid | rng.getrandbits(32) << 32


def mpidr(rng: Random) -> int:
    """Return an affinity for CPU_ON and AFFINITY_INFO: usually of a vCPU with a small id, or with other bits set."""
    affinity = rng.getrandbits(2)
    choice = rng.random()
    if choice < 0.7:
        return affinity
    return affinity | 1 << (8, 16, 24, 31, 32, 40)[int(rng.random() * 6)] if choice < 0.9 else bits(rng)


def pstate(rng: Random) -> int:
    """Return a PSTATE in one of the modes that KVM accepts."""
    return MODES.pick(rng) | DAIF_MASKS.pick(rng) | PSTATE_EXTRAS.pick(rng) | rng.getrandbits(4) << 28


def sctlr(rng: Random) -> int:
    """Return the reset value of SCTLR_EL1 with up to two bits flipped, usually with the MMU disabled."""
    return SCTLR_RESET ^ SCTLR_FLIPS.pick(rng) ^ SCTLR_FLIPS.pick(rng)


def vbar(rng: Random) -> int:
    """Return a vector base: usually that of the guest's handlers, else another one in that region."""
    return VECTORS.base if rng.random() < 0.95 else VECTORS.base + rng.randrange(0, VECTORS.size, 0x800)


def ttbr(rng: Random) -> int:
    """Return usually the address of the table of generated scenarios."""
    return TABLE if rng.random() < 0.7 else bits(rng)


def tcr(rng: Random) -> int:
    """Return usually the value for that table."""
    return TCR_39_BITS if rng.random() < 0.7 else bits(rng)


def pc(rng: Random) -> int:
    """Return a PC for a host write: never inside CODE, where it could repeat the steps without end."""
    return address_in(rng, PC_REGIONS.pick(rng), 4)


GPR_MAKERS: Weights[Maker] = Weights((address, 50.0), (bits, 30.0), (function, 12.0), (mpidr, 8.0))
SPECIAL: Mapping[str, Maker] = MappingProxyType(
    {"pc": pc, "pstate": pstate, "spsr_el1": pstate, "sctlr_el1": sctlr, "vbar_el1": vbar, "elr_el1": address}
    | {"ttbr0_el1": ttbr, "tcr_el1": tcr}
)
"""Makers of values, by register; GPRs and stack pointers use GPR_MAKERS, other registers random bits."""


def register_value(rng: Random, name: str) -> int:
    """Return a random value for register ``name``."""
    maker = SPECIAL.get(name)
    if maker is None:
        maker = GPR_MAKERS.pick(rng) if name[0] == "x" or name[:2] == "sp" else bits
    return maker(rng)
