# SPDX-License-Identifier: Apache-2.0
"""A guest with stage 1 on: what it does by itself, and what the fault registers of its traps must hold."""

from __future__ import annotations

import pytest

from harness.arch import a64
from harness.arch.cpu_models import cpu_model
from harness.arch.exits import EC_BY_NAME
from harness.arch.registers import INDEX, NAMES
from harness.guest.context import GuestContext
from harness.guest.instruction_fetch import fetched
from harness.guest.memory import Memory
from harness.guest.predict_run import predict_run
from harness.guest.walk import Goal, GuestPath, walk
from harness.layout import CODE, DATA, VECTORS
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.switch import compare_run
from harness.trace.rounds import GuestRun
from tests.support.traces import but, entry, state, trap

CPU = cpu_model("cortex-a72")
AT, TABLE, GIB = CODE.base, DATA.base, 1 << 30
LOAD, STORE, HVC, BR = a64.encode("ldr", "x3", "x1"), a64.encode("str", "x3", "x1"), a64.encode("hvc", 0), 0xD61F_0020
MAPS = {0: 0x701, 1: 0x4000_0701, 2: 0x701, 3: 0x4000_0701, 4: 0x900_0003, 5: 0x4000_0301, 6: 0x4000_0781}
"""Entry of the first table, so GiB: devices, RAM, devices again, RAM again, a table in a device, no access flag,
read-only."""
BEFORE = state(sctlr_el1=0x80_0001, ttbr0_el1=TABLE, tcr_el1=0x2_0080_0019, mair_el1=0xFF, x1=2 * GIB + 0x900_0010)


def tables() -> Memory:
    memory = Memory()
    for index, value in MAPS.items():
        memory.write(TABLE + 8 * index, value)
    return memory


def code(*words: int) -> dict[int, int]:
    return {AT + 4 * i: word for i, word in enumerate(words)}


def to(address: int) -> tuple[int, ...]:
    return but(BEFORE, x1=address)


def changes(before: tuple[int, ...], found: GuestPath) -> dict[str, int]:
    assert found.state is not None, found.why
    return {NAMES[i]: new for i, (old, new) in enumerate(zip(before, found.state, strict=True)) if old != new}


def test_a_load_from_ram_goes_on() -> None:
    before = to(3 * GIB + 0x2_1000)
    found = walk(before, Goal(AT + 4), GuestContext(code(LOAD, HVC), CPU, tables()))
    assert changes(before, found) == {"x3": 0, "pc": AT + 4}


def test_a_store_exclusive_may_fault_where_it_is_held() -> None:
    store = a64.encode("stxr", "wzr", "x3", "x1")
    found = walk(to(0x100), Goal(AT + 4), GuestContext(code(store, HVC), CPU, tables()))
    assert found.why == "whether x1 is held exclusively"
    off = but(to(DATA.base), sctlr_el1=0x80_0000)
    assert changes(off, walk(off, Goal(AT + 4), GuestContext(code(store, HVC), CPU))) == {"pc": AT + 4}
    for odd in (DATA.base + 4, 1 << 44):
        assert not walk(but(off, x1=odd), Goal(AT + 4), GuestContext(code(store, HVC), CPU)).certain


def test_a_device_must_trap() -> None:
    found = walk(BEFORE, Goal(AT + 4), GuestContext(code(LOAD, HVC), CPU, tables()))
    assert (found.state, found.certain) == (None, True)


@pytest.mark.parametrize(
    ("address", "word", "syndrome"),
    [
        (7 * GIB, LOAD, 0x9600_0005),
        (7 * GIB, STORE, 0x9600_0045),
        (5 * GIB, LOAD, 0x9600_0009),
        (6 * GIB, STORE, 0x9600_004D),
        (1 << 39, LOAD, 0x9600_0004),
    ],
)
def test_a_stage_1_fault_is_the_guests_own(address: int, word: int, syndrome: int) -> None:
    before = to(address)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(word, HVC), CPU, tables()))
    assert changes(before, found) == {
        **{"pc": VECTORS.base + 0x200, "elr_el1": AT, "spsr_el1": before[INDEX["pstate"]]},
        **{"esr_el1": syndrome, "far_el1": address},
    }


def test_a_fetch_that_faults_at_stage_1() -> None:
    before = to(7 * GIB)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(BR, HVC), CPU, tables()))
    assert found.state is not None
    assert changes(before, found)["esr_el1"] == 0x8600_0005
    assert found.state[INDEX["elr_el1"]] == 7 * GIB


def test_a_store_is_remembered_and_its_tables_are_not_trusted() -> None:
    before = to(3 * GIB + 0x2_0008)
    found = walk(before, Goal(AT + 4), GuestContext(code(STORE, HVC), CPU, tables()))
    assert TABLE + 8 in found.stored
    again = walk(before, Goal(AT + 8), GuestContext(code(STORE, LOAD, HVC), CPU, tables()))
    assert (again.state, again.certain) == (None, False), "that was the entry of the code itself"


def test_controls_that_change_on_the_way() -> None:
    words = code(a64.encode("msr", (3, 0, 2, 0, 0), "x1"), LOAD, HVC)
    found = walk(to(3 * GIB), Goal(AT + 8), GuestContext(words, CPU, tables()))
    assert (found.state, found.certain) == (None, False)
    assert "TLB" in found.why


def test_code_at_another_address() -> None:
    assert fetched(BEFORE, 3 * GIB, GuestContext(code(HVC), CPU, tables())) == HVC
    assert fetched(BEFORE, 7 * GIB, GuestContext(code(HVC), CPU, tables())) is None


def names(before: tuple[int, ...], word: int, syndrome: int, far: int, page: int) -> set[str]:
    at_exit = trap(before, syndrome, far=far, hpfar=page >> 8)
    memory = tables()
    context = GuestContext(code(word), CPU, memory)
    found = compare_run(predict_run(GuestRun(0, entry(before), at_exit), context), context)
    return {d.name if isinstance(d, Divergence) else d.why for d in found}


WALK, ALSO_STORE = 0x80, 0x40
DABT, IABT = (EC_BY_NAME[name] << 26 | 1 << 25 | 4 for name in ("DABT_LOW", "IABT_LOW"))


def test_the_virtual_address_and_the_guest_physical_page() -> None:
    where = 2 * GIB + 0x900_0010
    loaded = DABT | 0x1C3_8000 | 1
    assert names(BEFORE, LOAD, loaded, where, 0x900_0000) == set()
    assert names(BEFORE, LOAD, loaded, 0x900_0010, 0x900_0000) == {"switch.far_el2"}
    assert names(BEFORE, LOAD, loaded, where, 0x900_1000) == {"switch.hpfar_el2"}
    assert names(BEFORE, LOAD, loaded | WALK, where, 0x900_0000) == {"switch.esr_el2", "switch.hpfar_el2"}


def test_a_walk_that_faults_at_stage_2() -> None:
    before = to(4 * GIB)
    assert names(before, LOAD, DABT | WALK | 2, 4 * GIB, 0x900_0000) == set()
    assert names(before, STORE, DABT | WALK | ALSO_STORE, 4 * GIB, 0x900_0000) == set()
    assert names(before, LOAD, DABT | WALK, 4 * GIB, TABLE) == set(), "the first table is not mapped yet"
    assert names(before, LOAD, DABT, 4 * GIB, 0x900_0000) == {"switch.esr_el2"}
    assert names(before, LOAD, DABT | WALK | 1 << 24, 4 * GIB, 0x900_0000) == {"switch.esr_el2"}, "no valid syndrome"
    assert names(before, LOAD, DABT | WALK, 4 * GIB, 0x901_0000) == {"switch.hpfar_el2"}
    assert names(but(BEFORE, pc=4 * GIB), LOAD, IABT | WALK, 4 * GIB, 0x900_0000) == set()


def test_a_trap_in_the_place_of_the_guests_own_fault() -> None:
    assert names(to(7 * GIB), LOAD, DABT | 0x1C3_8001, 7 * GIB, 0x900_0000) == {"switch.pc"}
    assert names(but(BEFORE, pc=7 * GIB), HVC, IABT | 1, 7 * GIB, 0) == {"switch.pc"}


def test_tables_that_nobody_knows() -> None:
    memory = tables()
    memory.mark_unknown()
    context = GuestContext(code(LOAD), CPU, memory)
    found = list(compare_run(predict_run(GuestRun(0, entry(BEFORE), trap(BEFORE, DABT)), context), context))
    assert all(isinstance(d, Unchecked) for d in found)
    assert found


def test_a_trap_behind_a_store_into_the_tables() -> None:
    """A TLB may still hold what the entry of the code was."""
    before, words = to(3 * GIB + 0x2_0008), code(STORE, LOAD)
    memory = tables()
    at_exit = trap(but(before, pc=AT + 4), DABT | 0x1C3_8001, far=2 * GIB, hpfar=0)
    context = GuestContext(words, CPU, memory)
    found = list(compare_run(predict_run(GuestRun(0, entry(before), at_exit), context), context))
    assert [d.why if isinstance(d, Unchecked) else d.name for d in found] == ["tables that the guest may have changed"]
