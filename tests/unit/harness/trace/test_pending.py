# SPDX-License-Identifier: Apache-2.0
"""Work that KVM has left pending for the next entry."""

from __future__ import annotations

from harness.arch.exceptions import skip, take_exception
from harness.arch.registers import INDEX
from harness.trace.pending import apply_pending
from tests.support.traces import state

VBAR = 0x4001_0000

SPAN, DSSBS = 1 << 23, 1 << 44

N, Z, C, V = (1 << bit for bit in (31, 30, 29, 28))

SKIP, EXC, SYNC, IRQ, FIQ, SERROR, OTHER = 1, 2, 4, 8, 16, 32, 64

EL1H, DAIF, AARCH32 = 5, 0x3C0, 0x10

BEFORE = state(pc=0x4000_0010, pstate=N | EL1H, sctlr_el1=SPAN, sp_el0=0xA, sp_el1=0xB, esr_el1=0x11, far_el1=0x22)


def test_nothing_pending() -> None:
    assert apply_pending(BEFORE, 0) == BEFORE


def test_pending_skip() -> None:
    assert apply_pending(BEFORE, SKIP) == skip(BEFORE)


def test_pending_exception_has_its_syndrome_in_the_context_already() -> None:
    after = apply_pending(BEFORE, EXC | SYNC)
    assert after == take_exception(BEFORE)
    assert (after[INDEX["esr_el1"]], after[INDEX["far_el1"]]) == (0x11, 0x22)


def test_pending_serror() -> None:
    assert apply_pending(BEFORE, EXC | SERROR)[INDEX["pc"]] == VBAR + 0x380


def test_the_exception_wins_over_the_skip() -> None:
    """They exclude each other (docs/spec/kvm.md section 1)."""
    assert apply_pending(BEFORE, EXC | SYNC | SKIP) == take_exception(BEFORE)
