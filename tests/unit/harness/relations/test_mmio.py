# SPDX-License-Identifier: Apache-2.0
"""What KVM reports to userspace of an MMIO access: address, length and direction, and the bytes that a store writes."""

from __future__ import annotations

import pytest

from harness.arch.exceptions import SCTLR_EE
from harness.relations.mmio import compare_mmio_exit
from harness.trace.events import Switch
from tests.support import traces

DEVICE = {"far": 0x9000_0010, "hpfar": 0x90_0000}


def shown(reported: dict[str, int], *, esr: int, **registers: int) -> list[tuple[str, int | str, int | str]]:
    before = traces.state(x5=0x1122_3344_5566_7788, **registers)
    exit_ = traces.trap(before, esr, **DEVICE)
    user: Switch = traces.user(before, traces.MMIO_EXIT, **{"mmio_addr": 0x9000_0010, **reported})
    round_ = traces.turn(exit_, user, traces.entry(before, traces.SKIP))
    return [(d.name, d.expected, d.observed) for d in compare_mmio_exit(round_)]


STORE_HALF = traces.load_esr(5, 2, write=True)


def test_what_is_owed_is_nothing() -> None:
    assert shown({"mmio_len": 0x102, "mmio_data": 0xFFFF_7788}, esr=STORE_HALF) == []  # bytes beyond it are anything's
    assert shown({"mmio_len": 8, "mmio_data": 0x99}, esr=traces.load_esr(5, 8)) == []


def test_a_big_endian_store_is_told_in_memory_order() -> None:
    reported = {"mmio_len": 0x102, "mmio_data": 0x8877}
    assert shown(reported, esr=STORE_HALF, sctlr_el1=SCTLR_EE) == []
    assert shown(reported, esr=STORE_HALF) == [("host.mmio_data", 0x7788, 0x8877)]


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ({"mmio_len": 0x102, "mmio_data": 0x7788, "mmio_addr": 0x9000_0018}, "host.mmio_addr"),
        ({"mmio_len": 0x104, "mmio_data": 0x7788}, "host.mmio_len"),
        ({"mmio_len": 2, "mmio_data": 0x7788}, "host.mmio_len"),
        ({"mmio_len": 0x102, "mmio_data": 0x7789}, "host.mmio_data"),
    ],
)
def test_each_part_that_is_wrong_is_shown(reported: dict[str, int], name: str) -> None:
    assert [found[0] for found in shown(reported, esr=STORE_HALF)] == [name]
