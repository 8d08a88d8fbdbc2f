# SPDX-License-Identifier: Apache-2.0
"""Stage-1 translation: walks by hand through small tables, each fault with the level that the Arm ARM gives it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch.cpu_models import cpu_model
from harness.arch.registers import MASK64
from harness.guest.memory import Memory
from harness.guest.stage1 import Mapped, Outside, Refused, Result, Unsure, Use, translate
from harness.layout import DATA
from tests.support.traces import EL1H, state

CPU = cpu_model("cortex-a72")
TABLE, SECOND, THIRD = DATA.base, DATA.base + 0x1000, DATA.base + 0x2000
SECOND_64K = DATA.base + 0x1_0000
TCR = 0x2_0080_0019  # T0SZ 25, EPD1, 40 bits
BLOCK, PAGE, GIB = 0x701, 0x703, 1 << 30
EL0, READ_ONLY, PXN, UXN = 1 << 6, 1 << 7, 1 << 53, 1 << 54
TRANSLATION, ACCESS, PERMISSION, SIZE = 0x04, 0x08, 0x0C, 0x00


def look(words: dict[int, int], address: int, use: Use = Use.READ, cpu: str = "cortex-a72", **registers: int) -> Result:
    memory = Memory()
    for at, value in words.items():
        memory.write(at, value)
    values = {"sctlr_el1": 1, "ttbr0_el1": TABLE, "tcr_el1": TCR, "mair_el1": 0x00FF, "pstate": EL1H} | registers
    return translate(state(**values), memory, address, use, cpu_model(cpu))


def test_a_block_keeps_the_offset() -> None:
    assert look({TABLE + 16: 0x4000_0000 | BLOCK}, 2 * GIB + 0x123_4568) == Mapped(0x4123_4568, (TABLE + 16,))


def test_a_page_behind_three_tables() -> None:
    words = {TABLE + 8: SECOND | 3, SECOND + 8: THIRD | 3, THIRD + 8: 0x900_0000 | PAGE}
    address = GIB + (1 << 21) + 0x1010
    assert look(words, address) == Mapped(0x900_0010, (TABLE + 8, SECOND + 8, THIRD + 8))


def test_48_bits_begin_at_level_0() -> None:
    words = {TABLE + 8: SECOND | 3, SECOND: BLOCK}
    assert look(words, (1 << 39) + 0x10, tcr_el1=0x2_0080_0010) == Mapped(0x10, (TABLE + 8, SECOND))
    assert look({}, 0, tcr_el1=0x2_0080_0010) == Refused(TRANSLATION, (TABLE,))
    assert isinstance(look({TABLE: BLOCK}, 0, tcr_el1=0x2_0080_0010), Unsure), "no blocks at level 0, but in QEMU 7.2"


def test_25_bits_begin_at_level_2() -> None:
    assert look({TABLE + 8: BLOCK}, 1 << 21, tcr_el1=0x2_0080_0027) == Mapped(0, (TABLE + 8,))


@pytest.mark.parametrize(
    ("words", "address", "status"),
    [
        ({}, 0, TRANSLATION | 1),
        ({TABLE: SECOND | 3}, 0, TRANSLATION | 2),
        ({TABLE: SECOND | 3, SECOND: THIRD | 3}, 0, TRANSLATION | 3),
        ({TABLE: SECOND | 3, SECOND: THIRD | 3, THIRD: BLOCK}, 0, TRANSLATION | 3),
        ({TABLE: BLOCK & ~0x400}, 0, ACCESS | 1),
        ({TABLE: SECOND | 3, SECOND: BLOCK & ~0x400}, 0, ACCESS | 2),
        ({TABLE: 1 << 40 | BLOCK}, 0, SIZE | 1),
        ({TABLE: 1 << 40 | 3}, 0, SIZE | 1),
        ({TABLE: (1 << 40 | BLOCK) & ~0x400}, 0, SIZE | 1),
        ({TABLE: BLOCK}, 1 << 39, TRANSLATION),
        ({TABLE: BLOCK}, 1 << 55, TRANSLATION),
    ],
)
def test_faults_and_their_levels(words: dict[int, int], address: int, status: int) -> None:
    found = look(words, address)
    assert isinstance(found, Refused)
    assert found.status == status


def test_the_output_size_is_the_smaller_one() -> None:
    words = {TABLE: 1 << 41 | BLOCK}
    assert look(words, 0, tcr_el1=TCR ^ 7 << 32) == Mapped(1 << 41, (TABLE,)), "44 bits of a Cortex-A72"
    assert look(words, 0, tcr_el1=TCR ^ 7 << 32, cpu="cortex-a76") == Refused(SIZE | 1, (TABLE,))
    assert look(words, 0, ttbr0_el1=1 << 41) == Refused(SIZE), "the base itself"


@pytest.mark.parametrize(
    ("entry", "at_el0", "allowed"),
    [
        (0, False, "fetch read write"),
        (0, True, "fetch"),
        (EL0, False, "read write"),
        (EL0, True, "fetch read write"),
        (READ_ONLY, False, "fetch read"),
        (READ_ONLY, True, "fetch"),
        (READ_ONLY | EL0, False, "fetch read"),
        (READ_ONLY | EL0, True, "fetch read"),
        (PXN, False, "read write"),
        (PXN, True, "fetch"),
        (UXN, False, "fetch read write"),
        (UXN | EL0, True, "read write"),
    ],
)
def test_rights(entry: int, at_el0: bool, allowed: str) -> None:
    for use in Use:
        found = look({TABLE: BLOCK | entry}, 0, use, pstate=0x3C0 if at_el0 else EL1H)
        assert found == (Mapped(0, (TABLE,)) if use.value in allowed else Refused(PERMISSION | 1, (TABLE,)))


def test_what_can_be_written_is_not_executed_with_wxn() -> None:
    assert look({TABLE: BLOCK}, 0, Use.FETCH, sctlr_el1=1 | 1 << 19) == Refused(PERMISSION | 1, (TABLE,))
    assert isinstance(look({TABLE: BLOCK | READ_ONLY}, 0, Use.FETCH, sctlr_el1=1 | 1 << 19), Mapped)


@pytest.mark.parametrize(
    ("bit", "at_el0", "use"), [(59, 0, "fetch"), (60, 1, "fetch"), (61, 1, "read"), (62, 0, "write")]
)
def test_a_table_takes_rights_away(bit: int, at_el0: int, use: str) -> None:
    words = {TABLE: SECOND | 3, SECOND: BLOCK | (EL0 if at_el0 else 0)}
    values = {"pstate": 0x3C0 if at_el0 else EL1H}
    assert isinstance(look(words, 0, Use(use), **values), Mapped)
    words[TABLE] |= 1 << bit
    assert look(words, 0, Use(use), **values) == Refused(PERMISSION | 2, (TABLE, SECOND))


def test_pan_is_for_cpus_that_have_it() -> None:
    words = {TABLE: BLOCK | EL0}
    for cpu, kind in (("cortex-a72", Mapped), ("cortex-a76", Refused)):
        assert isinstance(look(words, 0, pstate=EL1H | 1 << 22, cpu=cpu), kind)


@pytest.mark.parametrize("where", [0x900_0000, 0x4010_0000, 1 << 39])
def test_a_table_outside_slots(where: int) -> None:
    offset = 0x1FF * 8
    assert look({TABLE: where | 3}, 0x1FF << 21) == Outside((TABLE, where + offset), 2)


def test_the_upper_half() -> None:
    tcr = 0x2_8019_0099  # EPD0, T1SZ 25, TG1 4 KiB
    words = {SECOND + 8 * 511: BLOCK}
    values = {"ttbr1_el1": SECOND, "tcr_el1": tcr}
    assert look(words, 0xFFFF_FFFF_C000_0010, **values) == Mapped(0x10, (SECOND + 8 * 511,))
    assert look(words, 0x3FC0_0000_0000, **values) == Refused(TRANSLATION), "EPD0"
    assert look(words, 0xFF00_0000_0000_0000, **values) == Refused(TRANSLATION), "bit 55 chooses the lower half"


def test_big_endian_tables() -> None:
    swapped = int.from_bytes((0x4000_0000 | BLOCK).to_bytes(8, "little"), "big")
    assert look({TABLE: swapped}, 0, sctlr_el1=1 | 1 << 25) == Mapped(0x4000_0000, (TABLE,))


@pytest.mark.parametrize(
    "registers",
    [
        {"tcr_el1": TCR | 1 << 39},  # HA
        {"tcr_el1": TCR | 2 << 14},  # 16 KiB, which a Cortex-A72 has not
        {"tcr_el1": TCR | 3 << 14},
        {"tcr_el1": TCR | 1 << 14 | 6 << 32},  # 52 bits
        {"tcr_el1": TCR & ~0x3F | 40},
        {"tcr_el1": TCR & ~0x3F | 15},
        {"tcr_el1": TCR | 7 << 32},
        {"ttbr0_el1": TABLE + 8},
        {"ttbr0_el1": 0x4001_0000},
    ],
)
def test_what_nobody_knows(registers: dict[str, int]) -> None:
    assert isinstance(look({TABLE: BLOCK}, 0, **registers), Unsure)


@pytest.mark.parametrize("entry", [BLOCK | 0x1000, BLOCK | 1 << 48, BLOCK | 1 << 52])
def test_odd_descriptors(entry: int) -> None:
    assert isinstance(look({TABLE: entry}, 0), Unsure)
    assert isinstance(look({TABLE: BLOCK | 1 << 2}, 0, Use.FETCH), Unsure), "Device memory"


def test_a_word_that_the_guest_may_have_changed() -> None:
    memory = Memory()
    memory.write(TABLE, BLOCK)
    before = state(sctlr_el1=1, ttbr0_el1=TABLE, tcr_el1=TCR, mair_el1=0xFF)
    assert isinstance(translate(before, memory, 0, Use.READ, CPU), Mapped)
    memory.stored({TABLE: None})
    assert isinstance(translate(before, memory, 0, Use.READ, CPU), Unsure)
    assert isinstance(translate(before, memory, GIB, Use.READ, CPU), Refused), "its neighbour is as it was"
    memory.mark_unknown()
    assert isinstance(translate(before, memory, GIB, Use.READ, CPU), Unsure)
    memory.write(TABLE, BLOCK)
    assert isinstance(translate(before, memory, 0, Use.READ, CPU), Mapped), "the host knows what it wrote"


def test_code_without_a_store_changes_nothing() -> None:
    memory = Memory({0: 0xD400_0002})
    memory.mark_unknown()
    assert memory.read(TABLE) == 0


# Address bits that index the table at each level (Arm ARM D8.2.4 to D8.2.6), by the bits of address inside a page.
FIELDS = {
    12: {0: (47, 39), 1: (38, 30), 2: (29, 21), 3: (20, 12)},
    14: {0: (47, 47), 1: (46, 36), 2: (35, 25), 3: (24, 14)},
    16: {1: (47, 42), 2: (41, 29), 3: (28, 16)},
}
TG0 = {12: 0, 14: 2, 16: 1}
TG1 = {12: 2, 14: 1, 16: 3}
PLACES = tuple(range(DATA.base, DATA.end, 0x1_0000))
"""Where tables of all granules are aligned."""


@st.composite
def ways(draw: st.DrawFn) -> tuple[int, int, int, int, bool]:
    """A granule, TxSZ, an address below its limit, the level that the walk ends at, whether it is the upper half's."""
    granule, size = draw(st.sampled_from(sorted(FIELDS))), draw(st.integers(16, 39))
    first = min(level for level, (_, low) in FIELDS[granule].items() if low < 64 - size)
    return granule, size, draw(st.integers(0, (1 << 64 - size) - 1)), draw(st.integers(first, 3)), draw(st.booleans())


ENDS = ("leaf", "invalid", "no access flag", "read-only", "large")


@given(ways(), st.integers(0, (1 << 40) - 1), st.sampled_from(ENDS))
def test_walks_of_every_granule(way: tuple[int, int, int, int, bool], target: int, last: str) -> None:
    """A chain of tables down to one entry, each in a page of its own: where it leads, or which fault at which level."""
    granule, size, offset, end, is_upper = way
    first = min(level for level, (_, low) in FIELDS[granule].items() if low < 64 - size)
    words: dict[int, int] = {}
    read = []
    for place, level in zip(PLACES, range(first, end + 1), strict=False):
        high, low = FIELDS[granule][level]
        at = place + 8 * (offset >> low & (1 << min(high, 63 - size) - low + 1) - 1)
        read.append(at)
        if level < end:
            words[at] = place + 0x1_0000 | 3
    low = FIELDS[granule][end][1]
    output = (1 << 42 if last == "large" else target) & -(1 << low)
    entry = output | (3 if end == 3 else 1) | 1 << 10
    entry ^= {"invalid": 1, "no access flag": 1 << 10, "read-only": READ_ONLY}.get(last, 0)
    words[read[-1]] = entry
    values = {"tcr_el1": 2 << 32 | TG0[granule] << 14 | size | TG1[granule] << 30 | size << 16}
    address = offset | (MASK64 << 64 - size & MASK64 if is_upper else 0)
    if is_upper:
        values |= {"ttbr1_el1": TABLE, "ttbr0_el1": 1 << 47}
    found = look(words, address, Use.WRITE, "cortex-a76", **values)
    faults = {"invalid": TRANSLATION, "no access flag": ACCESS, "read-only": PERMISSION, "large": SIZE}
    if last != "invalid" and end < 3 and (granule, end) not in {(12, 1), (12, 2), (14, 2), (16, 2)}:
        assert isinstance(found, Unsure), "a block where none can be"
    elif last == "leaf":
        assert found == Mapped(output | offset & (1 << low) - 1, tuple(read))
    else:
        assert found == Refused(faults[last] | end, tuple(read))
    if granule == 14:
        assert isinstance(look(words, address, Use.WRITE, "cortex-a72", **values), Unsure)


def test_bits_below_a_large_page_are_reserved() -> None:
    tcr = TCR & ~0x3F | 28 | 1 << 14
    assert look({TABLE: SECOND_64K | 3, SECOND_64K: PAGE}, 0, tcr_el1=tcr) == Mapped(0, (TABLE, SECOND_64K))
    assert isinstance(look({TABLE: SECOND_64K | 1 << 12 | 3}, 0, tcr_el1=tcr), Unsure)
    assert isinstance(look({TABLE: SECOND_64K | 3, SECOND_64K: PAGE | 1 << 12}, 0, tcr_el1=tcr), Unsure)
