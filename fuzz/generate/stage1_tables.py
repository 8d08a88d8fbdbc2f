# SPDX-License-Identifier: Apache-2.0
"""Generate steps that write small stage-1 tables: 1 GiB blocks with the 4 KiB granule, or 512 MiB blocks with 64 KiB.

All CPU models have these two granules, not all have 16 KiB.  The first entries map code, data and devices at their own
addresses; without them the guest can execute no further instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fuzz.generate.values import SCTLR_RESET, TABLE, TCR_39_BITS, Weights
from harness.scenario.scenario import Step

MAIR = 0x0044_FF44_04BB_44FF
"""Usually Normal memory: instruction fetches from Device memory may fault (Arm ARM D17.2.100)."""
PAGE, BLOCK, GIB = 0x1000, 0x20_0000, 0x4000_0000
LARGE_PAGE, LARGE_BLOCK = 0x1_0000, 0x2000_0000
_SECOND, _THIRD = TABLE + PAGE, TABLE + 2 * PAGE
_LARGE_SECOND = TABLE + LARGE_PAGE
TG0 = 3 << 14
LARGE = 1 << 14
"""TCR_EL1.TG0: 64 KiB (Arm ARM D17.2.139)."""
TCR_36_BITS = TCR_39_BITS & ~0x3F | 28 | LARGE
_AF, _EL0, _READ_ONLY, _PXN, _UXN = 1 << 10, 1 << 6, 1 << 7, 1 << 53, 1 << 54
_TABLE_BITS = Weights((0, 80.0), (1 << 59, 5.0), (1 << 60, 5.0), (1 << 61, 5.0), (1 << 62, 5.0))
_FLAGS = Weights((0, 60.0), (_EL0, 15.0), (_READ_ONLY, 15.0), (_PXN, 10.0), (_UXN, 10.0), (_EL0 | _READ_ONLY, 10.0))
# Devices, RAM, two in the hole above it, outside the guest's physical address space, outside some CPUs' address size.
_TARGETS = Weights(
    (0, 45.0), (GIB, 40.0), (2 * GIB, 8.0), (3 * GIB, 3.0), (1 << 40, 2.0), (1 << 44, 1.0), (1 << 47, 1.0)
)  # fmt: skip
# Addresses of a table outside memory: devices, the hole, outside the guest's physical address space.
_NOWHERE = Weights((0x900_0000, 40.0), (0, 10.0), (0x4010_0000, 30.0), (0x8000_0000, 10.0), (1 << 40, 10.0))


def _write(address: int, value: int) -> Step:
    return Step("write", (address, value))


def _leaf(rng: Random, kind: int) -> int:
    """Return a block (``kind`` 1) or page (3) descriptor, sometimes without the access flag."""
    flags = _FLAGS.pick(rng) | (_AF if rng.random() < 0.94 else 0)
    attributes = rng.getrandbits(3) << 2 if rng.random() < 0.2 else 0
    return kind | flags | attributes | rng.getrandbits(2) << 8


def enable_stage1(rng: Random) -> list[Step]:
    """Map the first 2 GiB at their own addresses and enable stage 1."""
    large = rng.random() < 0.25
    size, tcr = (LARGE_BLOCK, TCR_36_BITS) if large else (GIB, TCR_39_BITS)
    words = [_write(TABLE + at // size * 8, at | _AF | 0x301) for at in range(0, 2 * GIB, size)]
    tcr = tcr if rng.random() < 0.8 else tcr ^ 1 << rng.choice((22, 23, 36, 37, 38))
    sctlr = SCTLR_RESET | 1 | (1 << rng.choice((1, 2, 12, 23, 24)) if rng.random() < 0.3 else 0)
    values = (("mair_el1", MAIR), ("ttbr0_el1", TABLE), ("tcr_el1", tcr), ("sctlr_el1", sctlr))
    return [*words, *(Step("set", pair) for pair in values)]


_LOW = 0xFFFF
"""TCR_EL1's T0SZ, EPD0 and TG0: other values make the table invalid (Arm ARM D17.2.139)."""
_SANE = {"ttbr0_el1": frozenset({TABLE}), "tcr_el1": frozenset({TCR_39_BITS & _LOW, TCR_36_BITS & _LOW})}
_INSTEAD = {"ttbr0_el1": TABLE, "tcr_el1": TCR_39_BITS}
TAMED = 0.9


def _is_sane(name: str, value: int) -> bool:
    return (value & _LOW if name == "tcr_el1" else value) in _SANE[name]


def repair_stage1(rng: Random, steps: list[Step]) -> None:
    """Usually keep stage 1 disabled without valid tables, and its registers valid while it is enabled.

    Mutations may remove a part of :func:`enable_stage1`.  The guest then takes exceptions without end, until a timer
    interrupt of the host ends the scenario.
    """
    ready: set[str] = set()
    is_on = False
    for at, step in enumerate(steps):
        if step.kind in ("reset", "vcpu"):
            ready, is_on = ready & {"write"}, False
        elif step.kind == "write" and step.args[0] in (TABLE + 8, TABLE + 16):
            ready.add("write")
        if step.kind != "set":
            continue
        name, value = str(step.args[0]), int(step.args[1])
        if name in _SANE:
            if is_on and not _is_sane(name, value) and rng.random() < TAMED:
                steps[at] = Step("set", (name, value := _INSTEAD[name]))
            (ready.add if _is_sane(name, value) else ready.discard)(name)
        elif name == "sctlr_el1":
            if value & 1 and len(ready) < 3 and rng.random() < TAMED:
                steps[at] = Step("set", (name, value := value & ~1))
            is_on = bool(value & 1)


def disable_stage1() -> list[Step]:
    """Disable stage 1."""
    return [Step("set", ("sctlr_el1", SCTLR_RESET))]


def is_large(steps: Sequence[Step]) -> bool:
    """Return whether the last of ``steps`` that sets a granule sets 64 KiB."""
    for step in reversed(steps):
        if step.kind == "set" and step.args[0] == "tcr_el1":
            return int(step.args[1]) & TG0 == LARGE
    return False


def write_entry(rng: Random, steps: Sequence[Step]) -> tuple[list[Step], int]:
    """Return steps that write a table entry, or a path of entries, and a virtual address that it translates.

    ``steps`` are the previous steps, which determine the granule.
    """
    return _large(rng) if is_large(steps) else _small(rng)


def _large(rng: Random) -> tuple[list[Step], int]:
    first = 4 + int(rng.random() * 124)
    here, virtual, choice = TABLE + 8 * first, first * LARGE_BLOCK, rng.random()
    if choice < 0.4:
        return [_write(here, (_TARGETS.pick(rng) & -LARGE_BLOCK) | _leaf(rng, 1))], virtual
    if choice < 0.55:
        return [_write(here, (_NOWHERE.pick(rng) & -LARGE_PAGE) | 3)], virtual
    if choice < 0.6:
        return [_write(here, rng.getrandbits(64) if rng.random() < 0.5 else 0)], virtual
    steps = [_write(here, _LARGE_SECOND | 3 | _TABLE_BITS.pick(rng))]
    second = int(rng.random() * 512)
    target = _TARGETS.pick(rng) + (rng.getrandbits(4) << 16)
    return [*steps, _write(_LARGE_SECOND + 8 * second, target | _leaf(rng, 3))], virtual + second * LARGE_PAGE


def _small(rng: Random) -> tuple[list[Step], int]:
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
        # A block of devices, or of RAM; the address is in the first 2 MiB of either.
        return [*steps, _write(here, _TARGETS.pick(rng) | _leaf(rng, 1))], virtual
    steps.append(_write(here, (_THIRD if choice < 0.95 else _NOWHERE.pick(rng)) | 3 | _TABLE_BITS.pick(rng)))
    third = int(rng.random() * 512)
    target = _TARGETS.pick(rng) + (rng.getrandbits(8) << 12)
    return [*steps, _write(_THIRD + 8 * third, target | _leaf(rng, 3))], virtual + third * PAGE


def offset_inside(rng: Random, size: int) -> int:
    """Return an offset for an access of ``size`` bytes in the region that an entry maps.

    It is usually in the first page, else in the data pages of a GiB of RAM; sometimes unaligned, or across two pages.
    """
    choice, offset = rng.random(), rng.getrandbits(12) if rng.random() < 0.7 else 0x2_0000 + rng.getrandbits(19)
    if choice < 0.8:
        return offset & -size
    return offset if choice < 0.9 else (offset | PAGE - 1) - int(rng.random() * size)
