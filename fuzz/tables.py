# SPDX-License-Identifier: Apache-2.0
"""Steps that write small stage-1 tables: 39-bit addresses, so that one entry of the first table is 1 GiB.

The first two entries map code, data and devices to themselves; without them the guest does nothing sensible any more.
"""

from __future__ import annotations

from random import Random

from fuzz.values import SCTLR_RESET, TABLE, TCR_39_BITS, Weights
from harness.scenario import Step

MAIR = 0x0044_FF44_04BB_44FF
"""Mostly Normal memory: whether code may be fetched from Device memory is not certain (Arm ARM D17.2.100)."""
PAGE, BLOCK, GIB = 0x1000, 0x20_0000, 0x4000_0000
_SECOND, _THIRD = TABLE + PAGE, TABLE + 2 * PAGE
_AF, _EL0, _READ_ONLY, _PXN, _UXN = 1 << 10, 1 << 6, 1 << 7, 1 << 53, 1 << 54
_TABLE_BITS = Weights((0, 80.0), (1 << 59, 5.0), (1 << 60, 5.0), (1 << 61, 5.0), (1 << 62, 5.0))
_FLAGS = Weights((0, 60.0), (_EL0, 15.0), (_READ_ONLY, 15.0), (_PXN, 10.0), (_UXN, 10.0), (_EL0 | _READ_ONLY, 10.0))
# Devices, RAM, the hole above it twice, beyond the guest's physical address space, beyond some CPUs' addresses.
_TARGETS = Weights(
    (0, 45.0), (GIB, 40.0), (2 * GIB, 8.0), (3 * GIB, 3.0), (1 << 40, 2.0), (1 << 44, 1.0), (1 << 47, 1.0)
)  # fmt: skip
# A table to come where no memory is: devices, the hole, beyond the guest's physical address space.
_NOWHERE = Weights((0x900_0000, 40.0), (0, 10.0), (0x4010_0000, 30.0), (0x8000_0000, 10.0), (1 << 40, 10.0))


def _write(address: int, value: int) -> Step:
    return Step("write", (address, value))


def _leaf(rng: Random, kind: int) -> int:
    """A block (``kind`` 1) or page (3), now and then without the access flag."""
    flags = _FLAGS.pick(rng) | (_AF if rng.random() < 0.94 else 0)
    attributes = rng.getrandbits(3) << 2 if rng.random() < 0.2 else 0
    return kind | flags | attributes | rng.getrandbits(2) << 8


def turn_on(rng: Random) -> list[Step]:
    """Map the first 2 GiB to themselves and turn translation on."""
    words = [_write(TABLE + 8 * i, i * GIB | _AF | 0x301) for i in range(2)]
    tcr = TCR_39_BITS if rng.random() < 0.8 else TCR_39_BITS ^ 1 << rng.choice((22, 23, 36, 37, 38))
    sctlr = SCTLR_RESET | 1 | (1 << rng.choice((2, 12, 23, 24)) if rng.random() < 0.3 else 0)
    values = (("mair_el1", MAIR), ("ttbr0_el1", TABLE), ("tcr_el1", tcr), ("sctlr_el1", sctlr))
    return [*words, *(Step("set", pair) for pair in values)]


def turn_off() -> list[Step]:
    """Turn translation off again."""
    return [Step("set", ("sctlr_el1", SCTLR_RESET))]


def shape(rng: Random) -> tuple[list[Step], int]:
    """Write an entry, or those that lead to one; return it and a virtual address, of a GiB or less, behind it."""
    first = 2 + int(rng.random() * 30)
    here, virtual, choice = TABLE + 8 * first, first * GIB, rng.random()
    if choice < 0.45:
        return [_write(here, _TARGETS.pick(rng) | _leaf(rng, 1))], virtual
    if choice < 0.6:
        return [_write(here, _NOWHERE.pick(rng) | 3)], virtual
    if choice < 0.65:
        return [_write(here, rng.getrandbits(64) if rng.random() < 0.5 else 0)], virtual
    steps = [_write(here, _SECOND | 3 | _TABLE_BITS.pick(rng))]
    second = int(rng.random() * 512)
    here, virtual = _SECOND + 8 * second, virtual + second * BLOCK
    if choice < 0.8:
        # A block of devices, or of RAM, at its offset in the first 2 MiB of either.
        return [*steps, _write(here, _TARGETS.pick(rng) | _leaf(rng, 1))], virtual
    steps.append(_write(here, (_THIRD if choice < 0.95 else _NOWHERE.pick(rng)) | 3 | _TABLE_BITS.pick(rng)))
    third = int(rng.random() * 512)
    target = _TARGETS.pick(rng) + (rng.getrandbits(8) << 12)
    return [*steps, _write(_THIRD + 8 * third, target | _leaf(rng, 3))], virtual + third * PAGE


def inside(rng: Random) -> int:
    """An offset into what an entry maps: mostly its first page, else where a GiB of RAM has its data pages."""
    return rng.getrandbits(12) if rng.random() < 0.7 else 0x2_0000 + rng.getrandbits(19)
