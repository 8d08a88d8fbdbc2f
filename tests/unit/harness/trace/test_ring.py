# SPDX-License-Identifier: Apache-2.0
"""The ring of a recording module: it goes round, and a guest may have written anything."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.errors import AgentProtocolError
from harness.trace import ring
from harness.trace.events import Event
from harness.trace.recording import Api, Recorded
from tests.support.traces import LAYOUT, entry, record, state, trap


def in_ring(event: Event, vm: int, vcpu: int) -> bytes:
    """The bytes that the probe writes for an event of a vCPU."""
    data = bytearray(record(event, LAYOUT))
    data[12:16] = struct.pack("<I", vm << 16 | vcpu << 8)
    return bytes(data)


def api(op: int, *arguments: int) -> bytes:
    """The bytes of a call."""
    return struct.pack("<IIII6Q", 5, 64, 0, 7 << 16 | 2 << 8, op, *arguments)


def test_a_ring_goes_round(tmp_path: Path) -> None:
    one, two = in_ring(entry(state()), 3, 1), in_ring(trap(state(x5=9), 0x5A00_0000), 3, 1)
    size = len(one) + len(two) + 24  # a header fits after the second, a third record does not
    area = bytearray(size)
    area[: len(one)], area[len(one) : len(one) + len(two)] = one, two
    first = tuple(ring.decode(memoryview(area), 0, len(one) + len(two), LAYOUT))
    assert first == (Recorded(3, 1, entry(state())), Recorded(3, 1, trap(state(x5=9), 0x5A00_0000)))
    call = api(3, 1, 2, 0x4000_0000, 0x1000, 0)
    area[: len(call)] = call
    rest = tuple(ring.decode(memoryview(area), len(one) + len(two), size + len(call), LAYOUT))
    assert rest == (Recorded(7, 2, Api("slot", 1, 2, 0x4000_0000, 0x1000, 0)),)


def test_a_piece_too_short_for_a_header_is_skipped() -> None:
    call = api(6, 0, 0, 0, 0, 0)
    area = bytearray(call) + bytearray(8)
    (again,) = ring.decode(memoryview(area), len(call), len(area) + len(call), LAYOUT)
    assert again == Recorded(7, 2, Api("destroy", 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "area",
    [
        struct.pack("<IIII", 9, 64, 0, 0) + bytes(64),
        struct.pack("<IIII", 4, 56, 0, 0) + bytes(64),
        struct.pack("<IIII", 5, 16, 0, 0) + bytes(64),
        api(99, 0, 0, 0, 0, 0),
        in_ring(entry(state()), 1, 0)[:200],
    ],
    ids=["type", "host", "size", "call", "short"],
)
def test_a_ring_that_a_guest_wrote(area: bytes) -> None:
    with pytest.raises(AgentProtocolError):
        list(ring.decode(memoryview(area), 0, len(area), LAYOUT))
