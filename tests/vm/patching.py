# SPDX-License-Identifier: Apache-2.0
"""Change one instruction of a kernel image, found by its neighbours."""

from __future__ import annotations

import struct
from dataclasses import dataclass


def stp(rt: int, rt2: int, rn: int, offset: int) -> int:
    """STP Xt, Xt2, [Xn, #offset] (Arm ARM C6.2 STP, signed offset)."""
    return 0xA900_0000 | (offset // 8 & 0x7F) << 15 | rt2 << 10 | rn << 5 | rt


def ldp(rt: int, rt2: int, rn: int, offset: int) -> int:
    """LDP Xt, Xt2, [Xn, #offset]."""
    return stp(rt, rt2, rn, offset) | 1 << 22


@dataclass(frozen=True)
class Patch:
    """Replace word ``at`` of a run of consecutive instructions, wherever the run occurs, by ``new``.

    ``registers`` are those that come out wrong.
    """

    what: str
    run: tuple[int, ...]
    at: int
    new: int
    registers: tuple[str, ...]


def apply(image: bytes, patch: Patch) -> tuple[bytes, int]:
    """Return the patched image and how many places it was patched in."""
    needle = struct.pack(f"<{len(patch.run)}I", *patch.run)
    words = list(patch.run)
    words[patch.at] = patch.new
    return image.replace(needle, struct.pack(f"<{len(words)}I", *words)), image.count(needle)


# arch/arm64/kvm/hyp/entry.S __guest_exit, in its nVHE and its VHE build.  x1 points to the guest's kvm_cpu_context,
# whose x0 is at offset 0; x0 and x1 themselves come from the stack.
_POP_X2_X3 = 0xA8C1_0FE2  # ldp x2, x3, [sp], #16
_EXIT = (_POP_X2_X3, stp(2, 3, 1, 0), *(stp(i, i + 1, 1, 8 * i) for i in (4, 6, 8, 10, 12, 14, 16)))
# __guest_enter, right after restore_sp_el0; x29 points to the context.
_MSR_SP_EL0_X0 = 0xD518_4100
_ENTER = (_MSR_SP_EL0_X0, *(ldp(i, i + 1, 29, 8 * i) for i in (0, 2, 4, 6, 8, 10, 12, 14, 16)))

PATCHES: tuple[Patch, ...] = (
    Patch("x5 is saved from x4", _EXIT, 2, stp(4, 4, 1, 32), ("x5",)),
    Patch("x11 is saved from x12", _EXIT, 5, stp(10, 12, 1, 80), ("x11",)),
    Patch("x1 is saved from x0's place on the stack", _EXIT, 1, stp(2, 2, 1, 0), ("x1",)),
    Patch("x8 and x9 are swapped on the way in", _ENTER, 5, ldp(9, 8, 29, 64), ("x8", "x9")),
)
