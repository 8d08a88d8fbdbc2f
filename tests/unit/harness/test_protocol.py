# SPDX-License-Identifier: Apache-2.0
"""The tables of the mailbox: disjoint areas, unique numbers, flags of one bit."""

from __future__ import annotations

import pytest

from harness import protocol


def test_areas_do_not_overlap() -> None:
    assert protocol.PROGRAM_OFFSET == protocol.PAGE
    assert protocol.PROGRAM_OFFSET + protocol.PROGRAM_SIZE <= protocol.TRACE_OFFSET
    assert protocol.TRACE_OFFSET % 8 == protocol.SWITCH_SIZE % 8 == protocol.HOST_SIZE % 8 == 0


@pytest.mark.parametrize(
    "numbers",
    [
        [number for number, _ in protocol.OPS.values()],
        list(protocol.STATUS.values()),
        list(protocol.STOP.values()),
        list(protocol.RECORD_TYPES.values()),
        list(protocol.PENDING.values()),
    ],
    ids=["ops", "status", "stop", "records", "pending"],
)
def test_no_number_twice(numbers: list[int]) -> None:
    assert len(set(numbers)) == len(numbers)


def test_flags_are_single_bits() -> None:
    for flags in (protocol.STOP, protocol.PENDING):
        assert all(value.bit_count() == 1 for value in flags.values())
