# SPDX-License-Identifier: Apache-2.0
"""The data of loads and stores: what a guest finds in RAM is what host and guest put there, wherever slots show it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.arch.a64 import ACCESS_FORMS, AccessForm, encode
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import MASK64
from harness.guest.context import GuestContext
from harness.guest.memory import Memory, RunMemory
from harness.guest.walk import Goal, walk
from harness.layout import CODE, DATA
from harness.scenario import memory_slots
from harness.scenario.memory_slots import DEFAULT, PAGE, Slot
from tests.support.traces import but, state

CPU = cpu_model("cortex-a72")
AT, HVC = CODE.base, encode("hvc", 0)
FAR = 0x8000_0000
SHOWN_TWICE = memory_slots.regions((*DEFAULT, Slot(2, "rw", FAR, PAGE, DATA.base)))
FORMS = st.sampled_from(ACCESS_FORMS)
EE = 1 << 25


def one_by_one(form: AccessForm, data: bytes, before: int, big: bool) -> int:
    """What a load of ``data`` leaves in its register, a byte at a time."""
    value = 0
    for byte in data if big else reversed(data):
        value = value << 8 | byte
    if form.sign_extend and value & 1 << 8 * form.size - 1:
        value |= MASK64 << 8 * form.size & MASK64
    return value & (MASK64 if form.sixty_four else 0xFFFF_FFFF)


@given(st.lists(st.tuples(FORMS, st.integers(0, 31), st.integers(0, MASK64), st.booleans()), max_size=8), st.booleans())
def test_against_bytes(accesses: list[tuple[AccessForm, int, int, bool]], big: bool) -> None:
    """Stores and loads of all widths in 32 bytes that two slots show, against an array of bytes."""
    memory, model = Memory(), bytearray(32)
    memory.regions = SHOWN_TWICE
    memory.write(DATA.base, 0x1122_3344_5566_7788)
    model[:8] = (0x1122_3344_5566_7788).to_bytes(8, "little")
    for form, offset, value, is_far in accesses:
        offset &= -form.size
        before = state(x1=(FAR if is_far else DATA.base) + offset, x3=value, sctlr_el1=EE if big else 0)
        word = encode(form.mnemonic, form.targets[3], "x1")
        found = walk(before, Goal(AT + 4), GuestContext({AT: word, AT + 4: HVC}, CPU, memory))
        memory.stored(found.stored)
        assert found.state is not None
        assert not found.unknown
        if form.is_store:
            data = value & (1 << 8 * form.size) - 1
            model[offset : offset + form.size] = data.to_bytes(form.size, "big" if big else "little")
            assert found.state[3] == value
        else:
            data_there = bytes(model[offset : offset + form.size])
            assert found.state[3] == one_by_one(form, data_there, value, big)
    for word_offset in range(0, 32, 8):
        there = int.from_bytes(model[word_offset : word_offset + 8], "little")
        assert memory.read(DATA.base + word_offset) == memory.read(FAR + word_offset) == there


def test_what_nobody_knows_stays_unknown() -> None:
    memory = Memory()
    memory.stored({DATA.base: None})
    code = {AT: encode("strb", "w4", "x1"), AT + 4: encode("ldrb", "w3", "x1"), AT + 8: HVC}
    found = walk(state(x1=DATA.base), Goal(AT + 8), GuestContext(code, CPU, memory))
    assert 3 in found.unknown, "the other seven bytes are unknown, and words are kept as a whole"
    assert found.stored == {DATA.base: None}
    whole = {AT: encode("str", "x4", "x1"), **{at: word for at, word in code.items() if at > AT}}
    found = walk(but(state(x1=DATA.base), x4=0xABCD), Goal(AT + 8), GuestContext(whole, CPU, memory))
    assert found.stored == {DATA.base: 0xABCD}
    assert found.state is not None
    assert found.state[3] == 0xCD


def test_a_run_does_not_change_the_memory_that_it_began_with() -> None:
    memory = Memory()
    run = RunMemory(memory)
    run.store(DATA.base + 4, 8, bytes(range(8)))
    assert run.load(DATA.base, 16) == bytes(4) + bytes(range(8)) + bytes(4)
    assert memory.read(DATA.base) == memory.read(DATA.base + 8) == 0
    assert run.read(DATA.base) is None, "a walk may have seen it or not"
