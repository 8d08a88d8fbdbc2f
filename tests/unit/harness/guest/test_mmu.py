# SPDX-License-Identifier: Apache-2.0
"""Accesses that are not aligned: where their bytes are, on one page or two, and which fault they are instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.exceptions import State
from harness.arch.registers import INDEX
from harness.guest.context import GuestContext
from harness.guest.execute import RaiseException, Trap, Undetermined
from harness.guest.load_store import PAGE, parts
from harness.guest.memory import Memory, RunMemory
from harness.guest.mmu import UNALIGNED_DEVICE, DataAccess, half_stored, locate_access
from harness.guest.predict_run import predict_run
from harness.guest.stage1_faults import walk_level
from harness.guest.walk import Goal, GuestPath, walk
from harness.layout import CODE, DATA, VECTORS
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.switch import compare_run
from harness.trace.rounds import GuestRun
from tests.support.traces import but, entry, state, trap

CPU = cpu_model("cortex-a72")
AT, HVC = CODE.base, encode("hvc", 0)
LOAD, STORE = encode("ldr", "x3", "x1"), encode("str", "x3", "x1")
TABLE = DATA.base
RAM, DEVICE, READ_ONLY, GONE = DATA.base + 0x1_0000, 0x900_0000, DATA.base + 0x2_0000, None
PAGES: tuple[int | None, ...] = (RAM, RAM + 4 * PAGE, GONE, DEVICE, READ_ONLY, GONE, GONE, RAM)
"""What the pages of the third GiB are, in a row."""
BASE = 2 << 30
A, M = 1 << 1, 1 << 0
BEFORE = state(sctlr_el1=M, ttbr0_el1=TABLE, tcr_el1=0x2_0080_0019, mair_el1=0x00FF)


def tables() -> Memory:
    memory = Memory()
    words = {0: 0x701, 8: 0x4000_0701, 16: TABLE + PAGE | 3, PAGE: TABLE + 2 * PAGE | 3}
    for page, target in enumerate(PAGES):
        if target is not None:
            words[2 * PAGE + 8 * page] = target | 0x703 | (0x80 if target == READ_ONLY else 0)
    for offset, word in words.items():
        memory.write(TABLE + offset, word)
    return memory


def code(*words: int) -> dict[int, int]:
    return {AT + 4 * i: word for i, word in enumerate(words)}


def find(address: int, size: int = 8, *, store: bool = False, **registers: int) -> object:
    return locate_access(but(BEFORE, **registers), RunMemory(tables()), DataAccess(BASE + address, size, store), CPU)


def test_parts() -> None:
    assert parts(0xFF8, 8) == ((0xFF8, 8),)
    assert parts(0xFF9, 8) == ((0xFF9, 7), (0x1000, 1))
    assert parts((1 << 64) - 1, 2) == (((1 << 64) - 1, 1), (0, 1)), "addresses wrap"


@pytest.mark.parametrize(
    ("address", "store", "found"),
    [
        (3, False, ((RAM + 3, 8),)),
        (PAGE - 3, False, ((RAM + PAGE - 3, 3), (RAM + 4 * PAGE, 5))),
        (2 * PAGE - 4, False, RaiseException(0x24, 0x07, BASE + 2 * PAGE)),
        (2 * PAGE - 4, True, RaiseException(0x24, 0x47, BASE + 2 * PAGE)),
        (3 * PAGE - 4, False, Undetermined),  # the first part is a fault, the second a device: either may come first
        (3 * PAGE + 1, False, Trap),
        (4 * PAGE - 1, False, Trap),
        (4 * PAGE + 1, True, RaiseException(0x24, 0x4F, BASE + 4 * PAGE + 1)),
        (5 * PAGE - 2, False, RaiseException(0x24, 0x07, BASE + 5 * PAGE)),
        (6 * PAGE - 2, False, Undetermined),
        (7 * PAGE - 2, True, RaiseException(0x24, 0x47, BASE + 7 * PAGE - 2)),
    ],
)
def test_where_unaligned_accesses_are(address: int, store: bool, found: object) -> None:
    it = find(address, store=store)
    assert isinstance(it, found) if isinstance(found, type) else it == found


@pytest.mark.parametrize("address", [3, PAGE - 1, 2 * PAGE + 1, 3 * PAGE + 2, 5 * PAGE + 7])
def test_alignment_comes_before_everything_where_it_is_checked(address: int) -> None:
    for store, status in ((False, 0x21), (True, 0x61)):
        assert find(address, store=store, sctlr_el1=M | A) == RaiseException(0x24, status, BASE + address)
        assert find(address & -8, store=store, sctlr_el1=M | A) == find(address & -8, store=store)


def test_device_memory_is_another_matter() -> None:
    """The Arm ARM has an alignment fault, QEMU 7.2 has none."""
    assert isinstance(find(3, mair_el1=0x0004), Undetermined)
    assert find(0, mair_el1=0x0004) == ((RAM, 8),)
    assert isinstance(
        locate_access(state(), RunMemory(tables()), DataAccess(DATA.base + 1, 8, False), CPU), Undetermined
    ), "the MMU is off"


OFF = state(x1=DATA.base + 0x803, x4=0x1122_3344_5566_7788)
"""A guest whose MMU is off."""


def ended(after: State, *words: int, before: State = OFF) -> GuestPath:
    """The path of a run that ends in an HVC after these instructions, in a state."""
    there = but(after, pc=AT + 4 * len(words) + 4)
    context = GuestContext(code(*words, HVC), CPU, Memory())
    return predict_run(GuestRun(5, entry(before), trap(there, 0x5A00_0000)), context).path


def test_an_unaligned_access_to_device_memory_that_was_made_is_proven_by_what_followed() -> None:
    """Stored, then loaded again: on an emulator without the fault the state shows it; nothing else is taken for it."""
    words = encode("str", "x4", "x1"), encode("ldr", "x3", "x1")
    made = ended(but(OFF, x3=OFF[4]), *words)
    assert made.state is not None and made.state[3] == OFF[4] and made.stored
    assert ended(but(OFF, x3=OFF[4] ^ 1), *words).why == UNALIGNED_DEVICE, "another value proves nothing"
    assert ended(but(OFF, x5=1, x3=OFF[4]), *words).why == UNALIGNED_DEVICE
    across = but(OFF, x1=DATA.base + PAGE - 3)
    assert ended(but(across, x3=OFF[4]), *words, before=across).why == UNALIGNED_DEVICE, "two pages"
    aligned = but(OFF, x1=DATA.base + 0x800)
    assert ended(but(aligned, x3=OFF[4]), *words, before=aligned).state is not None


def follow_word(word: int, address: int, **registers: int) -> GuestPath:
    before = but(BEFORE, x1=BASE + address, **registers)
    return walk(before, Goal(AT + 4), GuestContext(code(word, HVC), CPU, tables()))


@given(st.integers(0, 2 * PAGE - 8), st.integers(0, (1 << 64) - 1))
def test_what_is_stored_across_pages_is_loaded_again(offset: int, value: int) -> None:
    found = walk(
        but(BEFORE, x1=BASE + offset, x4=value),
        Goal(AT + 8),
        GuestContext(code(encode("str", "x4", "x1"), LOAD, HVC), CPU, tables()),
    )
    assert found.state is not None
    assert found.state[3] == value
    memory = tables()
    memory.stored(found.stored)
    seen = b""
    for address, size in parts(BASE + offset, 8):
        at = PAGES[(address - BASE) // PAGE]
        assert at is not None
        data = RunMemory(memory).load(at + address % PAGE, size)
        assert data is not None
        seen += data
    assert seen == value.to_bytes(8, "little")


def test_an_exclusive_access_is_aligned_or_a_fault() -> None:
    before = but(BEFORE, x1=BASE + 4)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(encode("ldxr", "x3", "x1"), HVC), CPU, tables()))
    assert found.state is not None
    assert (found.state[INDEX["esr_el1"]], found.state[INDEX["far_el1"]]) == (0x9600_0021, BASE + 4)


def test_half_a_store_may_have_been_done_before_the_other_half_faults() -> None:
    at = RAM + 5 * PAGE - 8
    before = but(BEFORE, x1=BASE + 2 * PAGE - 4)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(STORE, HVC), CPU, tables()))
    assert found.state is not None
    assert found.stored == {at: None}
    device = but(BEFORE, x1=BASE + 4 * PAGE - 1)
    assert half_stored(but(device, x1=BASE + PAGE - 1), STORE, RunMemory(tables()), CPU) == {
        RAM + PAGE - 8: None,
        RAM + 4 * PAGE: None,
    }
    assert half_stored(but(device, x1=BASE + 8), STORE, RunMemory(tables()), CPU) == {}
    assert half_stored(device, LOAD, RunMemory(tables()), CPU) == {}


def names(address: int, word: int, esr: int, far: int, ipa: int, **registers: int) -> set[str]:
    """What differs where the first instruction of a guest traps."""
    before, memory = but(BEFORE, x1=BASE + address, **registers), tables()
    context = GuestContext(code(word, HVC), CPU, memory)
    run = predict_run(GuestRun(5, entry(before), trap(before, esr, far=far, hpfar=ipa >> 12 << 4)), context)
    found = compare_run(run, context)
    return {
        one.name if isinstance(one, Divergence) else one.why for one in found if isinstance(one, Divergence | Unchecked)
    }


READ = 0x93C3_8007  # DABT_LOW, ISV, 64 bits, x3, translation fault at level 3


def test_the_fault_registers_of_an_unaligned_access() -> None:
    assert names(3, LOAD, READ, BASE + 3, RAM) == set(), "not mapped at stage 2 yet"
    assert names(PAGE - 3, LOAD, READ, BASE + PAGE - 3, RAM) == set(), "the first of two pages"
    assert names(PAGE - 3, LOAD, READ, BASE + PAGE, RAM + 4 * PAGE) == set(), "the second"
    assert names(PAGE - 3, LOAD, READ, BASE + PAGE, RAM) == {"switch.hpfar_el2"}
    assert names(PAGE - 3, LOAD, READ, BASE + PAGE + 1, RAM) == {"switch.far_el2"}
    assert names(2 * PAGE - 4, LOAD, READ, BASE + 2 * PAGE, RAM) == {"switch.pc"}, "a fault of the guest's own"
    assert names(3, LOAD, READ, BASE + 3, RAM, sctlr_el1=M | A) == {"switch.pc"}


def test_the_level_at_which_a_walk_ended() -> None:
    memory = tables()
    memory.write(TABLE + 24, 0x900_0003)
    memory.write(TABLE + PAGE + 8, 0x900_0003)
    walks = {3 << 30: 2, (2 << 30) + (1 << 21): 3, 2 << 30: None}
    for address, level in walks.items():
        for esr in (0x9200_0085, 0x8200_0085):
            assert walk_level(BEFORE, BEFORE, trap(BEFORE, esr, far=address), memory, CPU) == level
        assert walk_level(BEFORE, BEFORE, trap(BEFORE, 0x9200_0005, far=address), memory, CPU) is None, "no walk"
    changed = but(BEFORE, ttbr0_el1=TABLE + PAGE)
    assert walk_level(changed, BEFORE, trap(BEFORE, 0x9200_0085, far=3 << 30), memory, CPU) is None, "a stale TLB"
