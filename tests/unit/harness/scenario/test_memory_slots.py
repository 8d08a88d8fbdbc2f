# SPDX-License-Identifier: Apache-2.0
"""Memory slots of scenarios: encoding and decoding, and overlaps."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fuzz.generate import memory_slots as memories
from harness.relations.memory_slots import may_succeed
from harness.scenario import memory_slots
from harness.scenario.agent_operations import host_arguments
from harness.scenario.memory_slots import DEFAULT, Slot, changed, collides, gone, pack, unpack
from harness.scenario.scenario import Scenario, Step, format_scenario, parse, slot_step

(WHOLE,) = DEFAULT

SLOTS = st.integers(0, 2**32 - 1).map(lambda seed: memories.random_slot(Random(seed), 1 + seed % 4))


@given(SLOTS)
def test_packing(slot: Slot) -> None:
    assert unpack(*pack(slot)) == slot
    assert host_arguments(slot_step(slot)) == pack(slot)
    assert host_arguments(Step("drop_slot", (slot.number,))) == pack(gone(slot.number))
    assert parse(format_scenario(Scenario("A slot.", (), (slot_step(slot),)))).steps == (slot_step(slot),)


@given(st.lists(SLOTS, max_size=8))
def test_slots_never_overlap(requests: list[Slot]) -> None:
    """For any requests: KVM must refuse a request that makes two slots overlap, or one grow."""
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
