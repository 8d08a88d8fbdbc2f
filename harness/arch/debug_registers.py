# SPDX-License-Identifier: Apache-2.0
"""Values of the debug control registers, DBGBCR<n>_EL1 and DBGWCR<n>_EL1 (Arm ARM D17.3)."""

from __future__ import annotations

from harness import protocol

STEP, BRK = protocol.DEBUG_WAYS["step"], protocol.DEBUG_WAYS["brk"]
_ENABLED, _WHOLE_WORD = 1, 0xF << 5


def breakpoint_control(levels: int) -> int:
    """Return DBGBCR of a breakpoint on one instruction at ``levels`` (PMC); 0 where there is none."""
    return _WHOLE_WORD | levels << 1 | _ENABLED if levels else 0


def watchpoint_control(length: int, accesses: int) -> int:
    """Return DBGWCR of a watchpoint on the first ``length`` bytes of a doubleword; ``accesses``: LSC, 0 for none."""
    return ((1 << length) - 1) << 5 | accesses << 3 | 0b11 << 1 | _ENABLED if accesses else 0
