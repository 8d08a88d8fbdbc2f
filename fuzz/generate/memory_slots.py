# SPDX-License-Identifier: Apache-2.0
"""Generate memory slots: the initial slots of a VM, and changes that unmap memory which the guest has accessed."""

from __future__ import annotations

from random import Random

from fuzz.generate.values import TABLE, Weights, bits
from harness.layout import DATA
from harness.scenario.memory_slots import DEFAULT, IPA_LIMIT, KINDS, PAGE, Slot
from harness.scenario.scenario import Step, slot_step

ELSEWHERE = Weights((0x8000_0000, 40.0), (0x4010_0000, 25.0), (1 << 39, 15.0), (0xC000_0000, 10.0), (0, 10.0))
"""Other addresses for a slot; 0: at the end of the guest's physical address space."""
SIZES = Weights((PAGE, 40.0), (4 * PAGE, 20.0), (DATA.size // 2, 20.0), (DATA.size, 20.0))
_KINDS: Weights[str] = Weights(("rw", 40.0), ("log", 30.0), ("ro", 20.0), ("ro_log", 10.0))
(WHOLE,) = DEFAULT


def random_slot(rng: Random, number: int) -> Slot:
    """Return a slot of any kind, at its default address or another one."""
    size = SIZES.pick(rng)
    home = DATA.base + int(rng.random() * ((DATA.size - size) // PAGE + 1)) * PAGE
    base = home if rng.random() < 0.5 else ELSEWHERE.pick(rng) or IPA_LIMIT - size
    return Slot(number, _KINDS.pick(rng), base, size, home)


def unusual_slots(rng: Random) -> tuple[Slot, ...]:
    """Return non-default slots of a VM: one of another kind, two halves, a hole, or one page mapped twice."""
    kind, half = _KINDS.pick(rng), DATA.size // 2
    choice = rng.random()
    if choice < 0.3:
        return (WHOLE._replace(kind=kind),)
    if choice < 0.5:
        low = WHOLE._replace(size=half)
        return low, Slot(2, kind, DATA.base + half, half, DATA.base + half)
    if choice < 0.7:
        pages = 1 + int(rng.random() * 8)
        high = DATA.base + (8 + pages) * PAGE
        return WHOLE._replace(size=8 * PAGE), Slot(2, kind, high, DATA.end - high, high)
    return WHOLE, Slot(2, kind, 0x8000_0000, DATA.size, DATA.base)


def initial_words(rng: Random) -> tuple[tuple[int, int], ...]:
    """Return some initial words of memory: the first of a page, or in the translation tables."""
    start = TABLE if rng.random() < 0.5 else DATA.base + int(rng.random() * (DATA.size // PAGE)) * PAGE
    return tuple((start + 8 * i, bits(rng)) for i in range(1 + rng.getrandbits(3)))


def change_slots(rng: Random) -> tuple[list[Step], int]:
    """Return steps that change slots, and an address that is mapped then, was mapped before, or is mapped twice."""
    whole, away = slot_step(WHOLE), WHOLE._replace(base=ELSEWHERE.pick(rng) or IPA_LIMIT - DATA.size)
    choice = rng.random()
    if choice < 0.3:
        return [Step("drop_slot", (1,)), whole], DATA.base
    if choice < 0.5:
        kinds = ("log", "rw") if rng.random() < 0.8 else tuple(KINDS)
        return [slot_step(WHOLE._replace(kind=kinds[int(rng.random() * len(kinds))]))], DATA.base
    if choice < 0.65:
        return [slot_step(away)], away.base
    if choice < 0.75:
        return [slot_step(away), whole], DATA.base
    if choice < 0.85:
        return [Step("drop_slot", (1,))], DATA.base
    new = random_slot(rng, 1 + int(rng.random() * 4))
    return [*([Step("drop_slot", (new.number,))] if rng.random() < 0.5 else []), slot_step(new)], new.base
