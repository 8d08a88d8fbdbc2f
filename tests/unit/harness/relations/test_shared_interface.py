# SPDX-License-Identifier: Apache-2.0
"""One virtual CPU interface for all VMs without a GIC: what each register of it holds after what was done."""

from __future__ import annotations

import pytest

from harness.arch.registers import MASK64
from harness.relations.shared_interface import NAMES, SharedInterface

VMCR = 0x58 << 24 | 2 << 21 | 5 << 18 | 1 << 9 | 2
"""ICH_VMCR_EL2: PMR 0x58, BPR0 2, BPR1 5, EOImode 1, group 1 enabled."""


def test_nothing_is_known_at_first() -> None:
    interface = SharedInterface()
    widths = {"icc_pmr_el1": 8, "icc_bpr1_el1": 3, "icc_ctlr_el1": 64, "icc_igrpen0_el1": 1, "icc_igrpen1_el1": 1}
    assert set(widths) == NAMES
    for name, width in widths.items():
        assert interface.read(name) == (0, MASK64 & -1 << width)


def test_what_a_vm_with_a_gic_leaves_is_there() -> None:
    interface = SharedInterface()
    interface.loaded(VMCR)
    assert interface.read("icc_pmr_el1") == (0x58, MASK64)
    assert interface.read("icc_bpr1_el1") == (5, MASK64)
    assert [interface.read(f"icc_igrpen{n}_el1") for n in (0, 1)] == [(0, MASK64), (1, MASK64)]
    assert interface.read("icc_ctlr_el1") == (2, 3), "the read-only bits are the CPU's"
    interface.observe("icc_ctlr_el1", 0x8C02)
    assert interface.read("icc_ctlr_el1") == (0x8C02, MASK64)
    interface.loaded(VMCR | 1 << 4)
    assert (interface.read("icc_ctlr_el1")[0] & 3, interface.read("icc_bpr1_el1")[0]) == (3, 3), "CBPR"
    interface.forget()
    assert interface.read("icc_pmr_el1")[1] == MASK64 & ~0xFF
    assert interface.read("icc_ctlr_el1") == (0x8C00, MASK64 & ~3), "they stay"


def test_a_write_is_what_the_next_reads() -> None:
    interface = SharedInterface()
    interface.loaded(VMCR)
    for name, written, held in (
        ("icc_pmr_el1", 0xFF_A8, 0xA8),
        ("icc_bpr1_el1", 4, 4),
        ("icc_igrpen0_el1", 0xF1, 1),
        ("icc_igrpen1_el1", 0xF0, 0),
    ):
        interface.write(name, written)
        assert interface.read(name) == (held, MASK64), name
        interface.write(name, None)
        assert interface.read(name)[1] != MASK64, "it is unknown what was written"


def test_bits_that_need_not_be_there_are_not_known() -> None:
    interface = SharedInterface()
    interface.write("icc_pmr_el1", 0xAF)
    assert interface.read("icc_pmr_el1") == (0xAF, MASK64 & ~7)
    interface.loaded(VMCR)
    for point in (0, 2, 1 << 31 | 4):
        interface.write("icc_bpr1_el1", point)
        assert interface.read("icc_bpr1_el1")[1] == MASK64 & ~7, "the least one is the implementation's"


@pytest.mark.parametrize(("bpr0", "read"), [(2, 3), (6, 7), (7, 7)])
def test_one_binary_point_for_both_groups(bpr0: int, read: int) -> None:
    interface = SharedInterface()
    interface.loaded(VMCR & ~(7 << 21) | bpr0 << 21)
    interface.write("icc_ctlr_el1", 1)
    assert interface.read("icc_bpr1_el1") == (read, MASK64)
    interface.write("icc_bpr1_el1", 4)
    assert interface.read("icc_bpr1_el1") == (read, MASK64), "a write has no effect"
    interface.write("icc_ctlr_el1", 0)
    assert interface.read("icc_bpr1_el1") == (5, MASK64)


def test_what_was_read_is_known() -> None:
    interface = SharedInterface()
    interface.observe("icc_bpr1_el1", 4)
    assert interface.read("icc_bpr1_el1")[1] != MASK64, "of which group"
    interface.observe("icc_ctlr_el1", 0x8C01)
    interface.observe("icc_bpr1_el1", 4)
    assert interface.read("icc_bpr1_el1") == (4, MASK64)
    interface.write("icc_ctlr_el1", 0)
    assert interface.read("icc_bpr1_el1")[1] != MASK64
    interface.observe("icc_bpr1_el1", 6)
    interface.observe("icc_pmr_el1", 0xA8)
    interface.observe("icc_igrpen1_el1", 1)
    assert [interface.read(name)[0] for name in ("icc_bpr1_el1", "icc_pmr_el1", "icc_igrpen1_el1")] == [6, 0xA8, 1]
