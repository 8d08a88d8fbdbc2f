# SPDX-License-Identifier: Apache-2.0
"""Decoding: every field from its place, and only AgentProtocolError from memory that a guest may have written."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arch.registers import NAMES
from harness.errors import AgentProtocolError
from harness.trace.decode import ContextLayout, decode
from harness.trace.events import ENTRY, EXIT, HOST, USER, Event, Host, Switch, status_name
from tests.support.traces import LAYOUT, record

U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
SWITCHES = st.builds(
    lambda kind, step, words, marks, values: Switch._make((kind, step, *words, marks, tuple(values))),
    st.sampled_from([ENTRY, EXIT, USER]),
    U32,
    st.lists(U64, min_size=10, max_size=10),
    st.integers(0, 0x3FF),
    st.lists(U64, min_size=len(NAMES), max_size=len(NAMES)),
)
HOSTS = st.builds(Host, st.just(HOST), U32, U64, U64, U64, U64, st.booleans(), st.integers(0, 3))
EVENTS = st.lists(SWITCHES | HOSTS, max_size=5)


def test_each_field_comes_from_its_word() -> None:
    words = struct.pack("<10Q", *range(0x100, 0x10A))
    context = struct.pack(f"<{LAYOUT.size // 8}Q", *range(0x200, 0x200 + LAYOUT.size // 8))
    head = struct.pack("<IIII", 2, 16 + len(words) + len(context), 7, 0x0302_0105)
    (event,) = decode(head + words + context, LAYOUT).events
    assert isinstance(event, Switch)
    assert event[:12] == (EXIT, 7, *range(0x100, 0x10A))
    assert (event.marks, event.forged, event.context, event.exit_class) == (0x105, 5, 1, "forged:CODE256")
    named = event._asdict()
    order = ("code", "error", "esr", "far", "hpfar", "hcr", "pending", "mmio_addr", "mmio_len", "mmio_data")
    assert [named[name] for name in order] == list(range(0x100, 0x10A))
    assert event.values == tuple(0x200 + slot for slot in LAYOUT.slots)
    assert (event.get("x0"), event.get("mdccint_el1")) == (0x202, 0x202 + len(NAMES) - 1)


@pytest.mark.parametrize(
    ("code", "marks", "trapped"),
    [(2, 0, True), (1 << 31 | 2, 0, True), (0, 0, False), (1 << 31, 0, False), (0, 1, True)],
)
def test_what_is_a_trap(code: int, marks: int, trapped: bool) -> None:
    event = Switch._make((EXIT, 0, code, *[0] * 9, marks, ()))
    assert event.trapped is trapped


def test_the_address_of_an_abort() -> None:
    event = Switch._make((EXIT, 0, 2, 0, 0, 0xFFFF_0000_0000_7123, 0x9_001F, *[0] * 6, ()))
    assert (event.page, event.address) == (0x900_1000, 0x900_1123)


def test_a_host_action() -> None:
    area = struct.pack("<IIII5Q", 4, 56, 3, 0, 5, 0x80, 1, 2, 1)
    assert decode(area, LAYOUT).events == (Host(HOST, 3, 5, 0x80, 1, 2, True),)


def test_slots_may_be_anywhere() -> None:
    size = 8 * 200
    layout = ContextLayout(size, tuple(reversed(range(100, 100 + len(NAMES)))))
    event = Switch._make((ENTRY, 1, *range(10), 0, tuple(range(len(NAMES)))))
    assert decode(record(event, layout), layout).events == (event,)


@settings(deadline=None)
@given(st.lists(SWITCHES, min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=8), HOSTS)
def test_contexts_that_come_again(switches: list[Switch], order: list[int], host: Host) -> None:
    """A context equal to that of the record before is not taken apart again."""
    events = [switches[i % len(switches)] for i in order]
    events = [*events, host, *events, *reversed(events)]
    assert decode(b"".join(map(record, events)), LAYOUT).events == tuple(events)


@settings(deadline=None)
@given(EVENTS)
def test_round_trip(events: list[Event]) -> None:
    area = b"".join(map(record, events))
    assert decode(area, LAYOUT).events == tuple(events)
    assert decode(memoryview(area), LAYOUT).events == tuple(events)


def test_layout_round_trip() -> None:
    assert ContextLayout.from_json(json.loads(json.dumps(LAYOUT.to_json()))) == LAYOUT


@pytest.mark.parametrize(
    "data",
    [{}, {"size": 8}, {"size": "8", "slots": list(LAYOUT.slots)}, {"size": 8, "slots": [1]}, {"size": 8, "slots": 5}],
)
def test_what_is_no_layout(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a context layout"):
        ContextLayout.from_json(data)


@pytest.mark.parametrize(
    "area",
    [
        b"\0" * 8,  # less than a header
        b"\0" * 16,  # no type
        struct.pack("<IIII", 5, 16, 0, 0),  # an unknown type
        struct.pack("<IIII", 1, 0, 0, 0),  # a size that would never end
        struct.pack("<IIII", 4, 56, 0, 0),  # cut after the header
        struct.pack("<IIII5Q", 4, 48, 0, 0, 1, 2, 3, 4, 5),
        struct.pack("<IIII5Q", 4, 64, 0, 0, 1, 2, 3, 4, 5) + b"\0" * 8,
        struct.pack("<IIII5Q", 4, 0xFFFF_FFFF, 0, 0, 1, 2, 3, 4, 5),
        struct.pack("<IIII5Q", 4, 56, 0, 0, 1, 2, 3, 4, 5) + b"\1",
        struct.pack("<IIII", 1, 16 + 80, 0, 0) + b"\0" * 80,  # a switch without its context
    ],
)
def test_what_the_protocol_does_not_allow(area: bytes) -> None:
    with pytest.raises(AgentProtocolError, match="record at"):
        decode(area, LAYOUT)


def _decodes_or_says_why(area: bytes) -> None:
    try:
        events = decode(area, LAYOUT).events
    except AgentProtocolError:
        return
    assert b"".join(map(record, events))[:4] == area[:4]
    assert all(isinstance(event, Switch | Host) for event in events)


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes(area: bytes) -> None:
    _decodes_or_says_why(area)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.data())
def test_any_mutation_of_a_valid_area(events: list[Event], data: st.DataObject) -> None:
    area = bytearray(b"".join(map(record, events)))
    for _ in range(data.draw(st.integers(1, 4))):
        if not area:
            break
        at = data.draw(st.integers(0, len(area) - 1))
        if data.draw(st.booleans()):
            area[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del area[at : at + data.draw(st.integers(1, 64))]
    _decodes_or_says_why(bytes(area))


def test_status_names() -> None:
    assert [status_name(n) for n in range(6)] == ["ok", "ioctl", "stuck", "bad_op", "runaway", "absent"]
    for number in (6, -1, 1 << 63):
        with pytest.raises(AgentProtocolError, match="agent status"):
            status_name(number)
