# SPDX-License-Identifier: Apache-2.0
"""Exception entry to EL1 and the skipping of an instruction, field by field.

Sources: docs/spec/kvm.md section 1; Arm ARM D1.10, C5.2.

Numbers are written out here on purpose: a wrong constant in the module must not be right in its test.
"""

from __future__ import annotations

import pytest

from harness.arch.exceptions import exception_pstate, skip, take_exception, vector
from harness.arch.registers import INDEX, NAMES
from harness.trace.pending import apply_pending
from tests.support.traces import but, state

VBAR = 0x4001_0000
SPAN, DSSBS = 1 << 23, 1 << 44
N, Z, C, V = (1 << bit for bit in (31, 30, 29, 28))
TCO, DIT, UAO, PAN, SS, IL, SSBS = (1 << bit for bit in (25, 24, 23, 22, 21, 20, 12))
SKIP, EXC, SYNC, IRQ, FIQ, SERROR, OTHER = 1, 2, 4, 8, 16, 32, 64
EL1H, DAIF, AARCH32 = 5, 0x3C0, 0x10


@pytest.mark.parametrize(
    ("mode", "offset"),
    [(0x4, 0x000), (0x5, 0x200), (0x0, 0x400), (0x10, 0x600), (0x13, 0x600), (0x1F, 0x600)],
    ids=["EL1t", "EL1h", "EL0", "EL0_32", "svc_32", "sys_32"],
)
@pytest.mark.parametrize("flags", [0, 0xF000_03C0, IL | SS])
def test_vectors(mode: int, offset: int, flags: int) -> None:
    assert vector(VBAR, mode | flags) == VBAR + offset


def test_a_vector_wraps_at_64_bits() -> None:
    assert vector(0xFFFF_FFFF_FFFF_F800, 0x10) == 0xFFFF_FFFF_FFFF_FE00
    assert vector(0xFFFF_FFFF_FFFF_FE00, 0x0) == 0x200


@pytest.mark.parametrize("kept", [N, Z, C, V, DIT, N | Z | C | V])
def test_kept(kept: int) -> None:
    assert exception_pstate(kept, SPAN) == EL1H | DAIF | kept


@pytest.mark.parametrize("cleared", [TCO, UAO, SS, IL, SSBS, 1 << 10, 1 << 11, 0x1F, 0x10, 1 << 27, 1 << 32, 1 << 63])
def test_cleared(cleared: int) -> None:
    assert exception_pstate(cleared, SPAN) == EL1H | DAIF


@pytest.mark.parametrize("bit", [0x40, 0x80, 0x100, 0x200])
def test_interrupts_are_masked_whatever_they_were(bit: int) -> None:
    assert exception_pstate(bit, SPAN) == EL1H | DAIF


@pytest.mark.parametrize(
    ("before", "sctlr", "after"),
    [(0, SPAN, 0), (PAN, SPAN, PAN), (0, 0, PAN), (PAN, 0, PAN), (0, ~SPAN & (1 << 44) - 1, PAN)],
)
def test_pan_by_span(before: int, sctlr: int, after: int) -> None:
    assert exception_pstate(before, sctlr) & PAN == after


@pytest.mark.parametrize(("before", "sctlr", "after"), [(0, DSSBS, SSBS), (SSBS, DSSBS, SSBS), (SSBS, 0, 0)])
def test_ssbs_by_dssbs(before: int, sctlr: int, after: int) -> None:
    assert exception_pstate(before, sctlr) & SSBS == after


def _changed(before: tuple[int, ...], after: tuple[int, ...]) -> dict[str, int]:
    assert len(before) == len(after) == len(NAMES)
    return {NAMES[i]: new for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


BEFORE = state(pc=0x4000_0010, pstate=N | EL1H, sctlr_el1=SPAN, sp_el0=0xA, sp_el1=0xB, esr_el1=0x11, far_el1=0x22)


def test_exception_writes_these_and_nothing_else() -> None:
    assert _changed(BEFORE, take_exception(BEFORE, 0x8600_0010, 0x9000_0000)) == {
        "elr_el1": 0x4000_0010,
        "spsr_el1": N | EL1H,
        "esr_el1": 0x8600_0010,
        "far_el1": 0x9000_0000,
        "pc": VBAR + 0x200,
        "pstate": N | DAIF | EL1H,
    }


def test_syndrome_and_address_stay_where_none_is_given() -> None:
    after = take_exception(BEFORE)
    assert (after[INDEX["esr_el1"]], after[INDEX["far_el1"]]) == (0x11, 0x22)
    after = take_exception(BEFORE, 0)
    assert (after[INDEX["esr_el1"]], after[INDEX["far_el1"]]) == (0, 0x22)


def test_serror_has_a_vector_of_its_own() -> None:
    assert take_exception(BEFORE, offset=0x180)[INDEX["pc"]] == VBAR + 0x380


def test_the_state_before_is_not_touched() -> None:
    copy = tuple(BEFORE)
    take_exception(BEFORE, 1, 2)
    skip(BEFORE)
    assert copy == BEFORE


def test_skip() -> None:
    assert _changed(BEFORE, skip(BEFORE)) == {"pc": 0x4000_0014}
    pstate = (1 << 64) - 1 & ~AARCH32
    after = skip(but(BEFORE, pstate=pstate))
    assert after[INDEX["pstate"]] == pstate & ~(3 << 10 | SS)


@pytest.mark.parametrize(
    ("block", "after"),
    [
        (0b0000_0000, 0),
        (0b1010_1000, 0),
        (0b1010_0100, 0b1010_1000),
        (0b1110_1011, 0b1111_0110),
        (0b0001_0001, 0b0000_0010),
    ],
)
def test_skip_in_aarch32_state(block: int, after: int) -> None:
    """ITSTATE moves on (Arm ARM, ITAdvance); PC by 2 after an instruction of 16 bits, which only T32 has."""
    spread = [it >> 2 << 10 | (it & 3) << 25 for it in (block, after)]
    for thumb, wide, length in ((1 << 5, False, 2), (1 << 5, True, 4), (0, False, 4), (0, True, 4)):
        before = but(BEFORE, pstate=AARCH32 | thumb | spread[0] | SS)
        done = skip(before, wide)
        assert done[INDEX["pc"]] == BEFORE[INDEX["pc"]] + length
        assert done[INDEX["pstate"]] == AARCH32 | thumb | spread[1]
        assert apply_pending(before, SKIP, wide) == done


def test_skip_wraps() -> None:
    assert skip(but(BEFORE, pc=(1 << 64) - 4))[INDEX["pc"]] == 0
