# SPDX-License-Identifier: Apache-2.0
"""Memory slots: what KVM must answer to a request."""

from __future__ import annotations

import errno

import pytest

from harness.guest.memory import Memory
from harness.layout import CODE, DATA, VECTORS
from harness.protocol import OPS
from harness.relations.memory_slots import compare_slots, may_succeed
from harness.scenario import memory_slots
from harness.scenario.memory_slots import DEFAULT, PAGE, Slot, gone, pack
from harness.trace.events import HOST, Event, Host
from tests.support.traces import ESR_TRAP_MRS, entry, indexed, state, trap

(WHOLE,) = DEFAULT
FAR = 0x80_0000_0000
S = state()


def asked(slot: Slot, error: int = 0, context: int = 0) -> Host:
    op = OPS["slot" if slot.size else "drop_slot"][0]
    return Host(HOST, 7, op, *pack(slot), error, True, context)


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
    taken = list(compare_slots(indexed([*events, asked(request_), entry(S)])))
    refused = list(compare_slots(indexed([*events, asked(request_, errno.EINVAL), entry(S)])))
    assert [(d.name, d.expected, d.observed, d.event, d.step) for d in taken] == (
        [("host.slot", "refused", "taken", 1, 7)] if answer == REFUSED else []
    )
    assert [(d.name, d.expected, d.observed) for d in refused] == (
        [("host.slot", "taken", "EINVAL")] if answer == TAKEN else []
    )


def test_before_the_first_entry() -> None:
    wrong = asked(Slot(2, "rw", FAR, PAGE, DATA.base), errno.EEXIST)
    (found,) = compare_slots(indexed([wrong, entry(S)]))
    assert (found.exit_class, found.event, found.observed) == ("FIRST", 1, "EEXIST")


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
