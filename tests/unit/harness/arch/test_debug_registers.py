# SPDX-License-Identifier: Apache-2.0
"""Debug control registers, put together by hand from the Arm ARM (D17.3)."""

from __future__ import annotations

from harness.arch.debug_registers import breakpoint_control, watchpoint_control


def test_breakpoints() -> None:
    assert breakpoint_control(0) == 0
    assert breakpoint_control(0b01) == 0x1E3, "PMC EL1, BAS of a whole word, enabled"
    assert breakpoint_control(0b10) == 0x1E5, "PMC EL0"


def test_watchpoints() -> None:
    assert watchpoint_control(4, 0) == 0
    assert watchpoint_control(4, 0b10) == 0x1F7, "stores to the first four bytes, from EL1 and EL0"
    assert watchpoint_control(8, 0b01) == 0x1FEF, "loads from all eight"
