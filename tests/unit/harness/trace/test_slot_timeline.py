# SPDX-License-Identifier: Apache-2.0
"""What a trace says of memory slots."""

from __future__ import annotations

import errno

from harness.layout import DATA, PAIR, REGIONS
from harness.protocol import OPS
from harness.scenario.memory_slots import DEFAULT, Slot, gone, pack
from harness.trace.environment import SCENARIO_VM
from harness.trace.events import HOST, Host
from harness.trace.slot_timeline import SlotTimeline
from tests.support.traces import ESR_TRAP_MRS, entry, rounds, state, trap

(WHOLE,) = DEFAULT

FAR = 0x80_0000_0000

S = state()


def asked(slot: Slot, error: int = 0, context: int = 0) -> Host:
    op = OPS["slot" if slot.size else "drop_slot"][0]
    return Host(HOST, 7, op, *pack(slot), error, True, context)


def test_the_world_follows_the_trace() -> None:
    """What holds at an exit holds for the round that it begins; another VM is not concerned."""
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
    timeline = SlotTimeline.of([asked(moved, context=PAIR)])
    assert timeline.environment(1, PAIR).regions == timeline.environment(1, PAIR + 1).regions != REGIONS
    assert timeline.environment(0, PAIR).regions == REGIONS, "the change holds after its event only"
    assert timeline.environment(1, 0) == SCENARIO_VM
    assert timeline.slots(1, 0) == {1: WHOLE}
    assert timeline.slots(1, PAIR + 1) == {1: moved}
