# SPDX-License-Identifier: Apache-2.0
"""Virtual interrupts and registers of a guest in protected mode, with each erratum of EL2 and without."""

from __future__ import annotations

import pytest

from harness.arch.a64 import ISB, encode
from harness.arch.exceptions import HCR_VF, HCR_VI, HCR_VIRTUAL, HCR_VSE
from harness.guest.el2_errata import (
    DROPS_LINES,
    DROPS_SERROR,
    PVM_DROPS_LINES,
    PVM_REJECTS,
    SERROR_AGAIN,
    loaded,
    rejected,
    returned,
)
from harness.guest.el2_refusals import IGNORED, UNDEFINED

TRAPS = 0x8000_0000
"""A bit of HCR_EL2 that is no interrupt."""


@pytest.mark.parametrize("hcr", [0, HCR_VI, HCR_VF | HCR_VSE, HCR_VIRTUAL, TRAPS])
@pytest.mark.parametrize("protected", [False, True])
def test_without_errata_what_the_host_hands_over_is_loaded(hcr: int, protected: bool) -> None:
    assert loaded(hcr, protected, frozenset()) == hcr and returned(0, hcr, protected, frozenset()) == 0


@pytest.mark.parametrize(
    ("erratum", "protected", "left"),
    [
        (DROPS_LINES, False, HCR_VSE),
        (DROPS_LINES, True, HCR_VSE),
        (DROPS_SERROR, False, HCR_VI | HCR_VF),
        (PVM_DROPS_LINES, True, HCR_VSE),
        (PVM_DROPS_LINES, False, HCR_VIRTUAL),
        (SERROR_AGAIN, False, HCR_VIRTUAL),
    ],
)
def test_what_is_dropped(erratum: str, protected: bool, left: int) -> None:
    assert loaded(HCR_VIRTUAL | TRAPS, protected, frozenset({erratum})) == left | TRAPS


def test_what_the_host_gets_back() -> None:
    both = HCR_VI | HCR_VSE
    assert returned(0, both, False, frozenset({SERROR_AGAIN})) == HCR_VSE
    assert returned(0, HCR_VI, False, frozenset({SERROR_AGAIN})) == 0, "no SError was pending"
    assert returned(0, both, True, frozenset({PVM_DROPS_LINES})) == HCR_VI
    assert returned(0, both, False, frozenset({PVM_DROPS_LINES})) == 0
    assert returned(0, both, True, frozenset({DROPS_LINES, DROPS_SERROR})) == 0, "the host's copy is written over"


def test_which_accesses_are_rejected() -> None:
    registers = ((3, 0, 1, 0, 1), (2, 0, 0, 2, 2), (3, 0, 12, 0, 0))  # ACTLR_EL1, MDSCR_EL1, VBAR_EL1
    actlr, mdscr, vbar = (encode("mrs", "x5", register) for register in registers)
    words = (actlr, mdscr, vbar, ISB)
    assert rejected(words, frozenset({PVM_REJECTS})) == {actlr: UNDEFINED, mdscr: IGNORED}
    assert not rejected(words, frozenset({DROPS_LINES}))
