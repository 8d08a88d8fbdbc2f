# SPDX-License-Identifier: Apache-2.0
"""Change one instruction of a kernel image, which is found by its neighbouring instructions."""

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
    """Replace word ``at`` of a sequence of instructions by ``new``, at each place of the sequence.

    ``registers`` get wrong values; ``also`` names further divergences at the same exit.  If the change makes the guest
    skip an instruction (``jumps``), that may have set any register before the next exit.
    """

    what: str
    run: tuple[int, ...]
    at: int
    new: int
    registers: tuple[str, ...]
    also: frozenset[str] = frozenset()
    jumps: bool = False


def apply(image: bytes, patch: Patch) -> tuple[bytes, int]:
    """Return the patched image and the number of patched places."""
    needle = struct.pack(f"<{len(patch.run)}I", *patch.run)
    words = list(patch.run)
    words[patch.at] = patch.new
    return image.replace(needle, struct.pack(f"<{len(words)}I", *words)), image.count(needle)


# arch/arm64/kvm/hyp/entry.S __guest_exit, in its nVHE and its VHE build.  x1 points to the guest's kvm_cpu_context,
# whose x0 is at offset 0; x0 and x1 themselves are loaded from the stack.
_POP_X2_X3 = 0xA8C1_0FE2  # ldp x2, x3, [sp], #16
_EXIT = (_POP_X2_X3, stp(2, 3, 1, 0), *(stp(i, i + 1, 1, 8 * i) for i in (4, 6, 8, 10, 12, 14, 16)))
# __guest_enter, right after restore_sp_el0; x29 points to the context.
_MSR_SP_EL0_X0 = 0xD518_4100
_ENTER = (_MSR_SP_EL0_X0, *(ldp(i, i + 1, 29, 8 * i) for i in (0, 2, 4, 6, 8, 10, 12, 14, 16)))
# save_callee_saved_regs, then save_sp_el0; __guest_enter saves the host's registers with the same words, but not x16,
# x17.
_STR_X18 = 0xF900_4832  # str x18, [x1, #144]
_MRS_X2_SP_EL0 = 0xD538_4102
_MRS_X2_TPIDR_EL0 = 0xD53B_D042
_EXIT_SP = (
    *(stp(16, 17, 1, 128), _STR_X18),
    *(stp(i, i + 1, 1, 8 * i) for i in (19, 21, 23, 25, 27, 29)),
    _MRS_X2_SP_EL0,
)
# arch/arm64/kvm/hyp/include/hyp/fault.h __get_fault_info: x1 points to kvm_vcpu_fault_info.
_FAULT = (0xD53C_6083, 0x5280_0020, stp(2, 3, 1, 8))  # mrs x3, hpfar_el2; mov w0, #1; stp x2, x3, [x1, #8]
# arch/arm64/kvm/hyp/exception.c __kvm_adjust_pc, kvm_skip_instr in it: PC is at offset 512 of the vCPU.
# ldr x0, [x0, #512]; and x1, x1, #~PSR_BTYPE_MASK; add x0, x0, #4; str x0, [x19, #512]
_SKIP = (0xF941_0000, 0x9274_F421, 0x9100_1000, 0xF901_0260)
_ADD_X0_8 = 0x9100_2000
_MOVED = frozenset({"save.pc", "save.class", "restore.pc", "host.pc"})

PATCHES: tuple[Patch, ...] = (
    Patch("x5 is saved from x4", _EXIT, 2, stp(4, 4, 1, 32), ("x5",)),
    Patch("x11 is saved from x12", _EXIT, 5, stp(10, 12, 1, 80), ("x11",)),
    Patch("x1 is saved from x0's place on the stack", _EXIT, 1, stp(2, 2, 1, 0), ("x1",)),
    Patch("x8 and x9 are swapped on the way in", _ENTER, 5, ldp(9, 8, 29, 64), ("x8", "x9")),
    Patch("sp_el0 is saved from tpidr_el0", _EXIT_SP, 8, _MRS_X2_TPIDR_EL0, ("sp_el0",)),
    Patch("far_el2 is saved from hpfar_el2", _FAULT, 2, stp(3, 3, 1, 8), ("far_el2",)),
    # A skipped HVC is visible in the syndrome: no other instruction there can have trapped.  At EL0 the guest takes
    # exceptions itself, with the wrong return address, unless an interrupt is taken first.  On a return to userspace
    # KVM advances PC in memory.
    Patch("PC moves on by 8", _SKIP, 2, _ADD_X0_8, ("pc", "esr_el2"), _MOVED, jumps=True),
)
