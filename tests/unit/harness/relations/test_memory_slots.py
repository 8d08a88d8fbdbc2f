# SPDX-License-Identifier: Apache-2.0
"""Memory slots: what KVM owes a request, what a trace says is there, and what is asked of both."""

from __future__ import annotations

import errno
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.generate import memory_slots as memories
from harness.guest.memory import Memory
from harness.layout import CODE, DATA, PAIR, REGIONS, VECTORS
from harness.protocol import OPS
from harness.relations.memory_slots import compare_slots, may_succeed
from harness.scenario import memory_slots
from harness.scenario.agent_operations import host_arguments
from harness.scenario.memory_slots import DEFAULT, PAGE, Slot, changed, collides, gone, pack, unpack
from harness.scenario.scenario import Scenario, Step, format_scenario, parse, slot_step
from harness.trace.environment import SCENARIO_VM
from harness.trace.events import HOST, Event, Host
from harness.trace.rounds import rounds
from harness.trace.slot_timeline import SlotTimeline
from tests.support.traces import ESR_TRAP_MRS, entry, state, trap

(WHOLE,) = DEFAULT
FAR = 0x80_0000_0000
S = state()


def asked(slot: Slot, error: int = 0, context: int = 0) -> Host:
    op = OPS["slot" if slot.size else "drop_slot"][0]
    return Host(HOST, 7, op, *pack(slot), error, True, context)


SLOTS = st.integers(0, 2**32 - 1).map(lambda seed: memories.slot(Random(seed), 1 + seed % 4))


@given(SLOTS)
def test_packing(slot: Slot) -> None:
    assert unpack(*pack(slot)) == slot
    assert host_arguments(slot_step(slot)) == pack(slot)
    assert host_arguments(Step("drop_slot", (slot.number,))) == pack(gone(slot.number))
    assert parse(format_scenario(Scenario("A slot.", (), (slot_step(slot),)))).steps == (slot_step(slot),)


@given(st.integers(0, 2**32 - 1))
def test_shapes_to_start_with_are_valid(seed: int) -> None:
    scenario = Scenario("A shape.", (), (), memories.shape(Random(seed)), memories.boot(Random(seed)))
    assert parse(format_scenario(scenario)) == scenario


TAKEN, REFUSED, EITHER = frozenset({True}), frozenset({False}), frozenset({True, False})


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (WHOLE, TAKEN),
        (WHOLE._replace(kind="log"), TAKEN),
        (WHOLE._replace(base=FAR), TAKEN),
        (gone(1), TAKEN),
        (Slot(2, "rw", FAR, PAGE, DATA.base), TAKEN),
        (Slot(2, "ro_log", memory_slots.IPA_LIMIT - PAGE, PAGE, DATA.base), TAKEN),
        (Slot(2, "rw", memory_slots.IPA_LIMIT - PAGE, 2 * PAGE, DATA.base), REFUSED),
        (Slot(2, "rw", DATA.end - PAGE, PAGE, DATA.base), REFUSED),
        (Slot(2, "rw", VECTORS.end - PAGE, PAGE, DATA.base), REFUSED),
        (Slot(2, "rw", CODE.base, PAGE, DATA.base), REFUSED),
        (WHOLE._replace(size=PAGE), REFUSED),
        (WHOLE._replace(base=FAR, size=PAGE), REFUSED),
        (WHOLE._replace(kind="ro"), EITHER),
        (WHOLE._replace(size=DATA.size, home=DATA.base + PAGE), EITHER),
        (gone(2), EITHER),
    ],
)
def test_what_kvm_owes(request_: Slot, answer: frozenset[bool]) -> None:
    assert may_succeed(request_, {1: WHOLE}) == answer
    events: list[Event] = [entry(S), trap(S, ESR_TRAP_MRS)]
    taken = list(compare_slots([*events, asked(request_), entry(S)]))
    refused = list(compare_slots([*events, asked(request_, errno.EINVAL), entry(S)]))
    assert [(d.name, d.expected, d.observed, d.event, d.step) for d in taken] == (
        [("host.slot", "refused", "taken", 1, 7)] if answer == REFUSED else []
    )
    assert [(d.name, d.expected, d.observed) for d in refused] == (
        [("host.slot", "taken", "EINVAL")] if answer == TAKEN else []
    )


def test_before_the_first_entry() -> None:
    wrong = asked(Slot(2, "rw", FAR, PAGE, DATA.base), errno.EEXIST)
    (found,) = compare_slots([wrong, entry(S)])
    assert (found.exit_class, found.event, found.observed) == ("FIRST", 1, "EEXIST")


@given(st.lists(SLOTS, max_size=8))
def test_slots_never_overlap(requests: list[Slot]) -> None:
    """Whatever is asked for: what KVM has to refuse is what would make two slots overlap, or one grow."""
    there: dict[int, Slot] = {1: WHOLE}
    for one in requests:
        if True in may_succeed(one, there):
            there = dict(changed(there, one))
        assert not any(collides(slot, there.values()) for slot in there.values())
    regions = memory_slots.regions(there.values())
    for slot in there.values():
        for address in (slot.base, slot.end - 1):
            (region,) = (region for region in regions if address in region)
            assert (region.slot, region.read_only) == (True, "ro" in slot.kind)


def test_the_world_follows_the_trace() -> None:
    """What holds at an exit holds for the turn behind it; another VM is not concerned."""
    moved = WHOLE._replace(base=FAR, kind="rw")
    at_exit = trap(S, ESR_TRAP_MRS)
    events = [entry(S), at_exit, asked(moved), entry(S), at_exit, asked(gone(1), errno.EINVAL), entry(S)]
    events += [at_exit, asked(WHOLE), entry(S), at_exit, entry(S)]
    first, second, third, fourth, fifth = rounds(tuple(events))
    assert first.world is second.world
    assert first.world == SCENARIO_VM
    for round_ in (third, fourth):
        assert round_.world.slot(DATA.base) is None
        assert round_.world.slot(FAR + DATA.size - 1) is not None
    assert fifth.world.regions is REGIONS
    shapes = SlotTimeline()
    shapes.apply(asked(moved, context=PAIR))
    assert shapes.world(PAIR).regions == shapes.world(PAIR + 1).regions != REGIONS
    assert shapes.world(0) == SCENARIO_VM
    assert shapes.slots(0) == {1: WHOLE}
    assert shapes.slots(PAIR + 1) == {1: moved}


def test_memory_is_where_slots_show_it() -> None:
    memory = Memory()
    memory.write(DATA.base + 8, 0x55)
    assert memory.read(DATA.base + 8) == 0x55
    twice = (WHOLE._replace(size=PAGE), Slot(2, "ro", FAR, 2 * PAGE, DATA.base))
    memory.regions = memory_slots.regions(twice)
    assert memory.read(DATA.base + 8) == memory.read(FAR + 8) == 0x55
    assert memory.read(DATA.base + PAGE) is None, "in no slot now"
    assert memory.home(FAR + PAGE) == DATA.base + PAGE
    assert memory.home(CODE.base) is None, "code is no RAM of a scenario's"
    memory.stored({DATA.base + 8: None})
    assert memory.read(FAR + 8) is None
