# SPDX-License-Identifier: Apache-2.0
"""A divergence belongs to an erratum only if its rule predicts it, bit for bit; another one at its place does not."""

from __future__ import annotations

import pytest

from harness.arch import exceptions
from harness.findings.attribution import Attribution, attribute, with_causes
from harness.findings.checked import signature
from harness.relations.divergence import ANOTHER_CAUSE, Divergence
from harness.relations.errata import (
    ABORTED_COMPLETES,
    LOSES_SIGN,
    RESET_COMPLETES,
    RESET_KEEPS_BANKED,
    RULES,
    SIGN_EXTENDED,
)
from harness.relations.host import compare_entry_state
from harness.trace.rounds import Round
from tests.support.rounds import AT, NOWHERE, WINDOW, S, after_reset, page
from tests.support.traces import MMIO_EXIT, but, entry, esr, host_reset, load_esr, trap, turn, user

ALL = frozenset(RULES)
ABORT = 0x8600_0010  # instruction abort from EL1, external


def aborted(syndrome: int) -> Round:
    """A fetch outside every slot, and the abort that KVM injects with this syndrome."""
    exit_ = trap(but(S, pc=NOWHERE), esr("IABT_LOW", 6), **page(NOWHERE))
    state = exceptions.take_exception(exit_.values, syndrome, NOWHERE)
    return turn(exit_, entry(state))


def found(round_: Round) -> list[Divergence]:
    return [one for one in compare_entry_state(round_, {}) if isinstance(one, Divergence)]


def test_what_the_rule_predicts_is_the_erratums() -> None:
    round_ = aborted(0xFFFF_FFFF_0000_0000 | ABORT)
    known = attribute(round_, {}, None, ALL)
    assert known == Attribution(frozenset({SIGN_EXTENDED}), frozenset({"esr_el1"}), frozenset())
    (caused,) = with_causes(found(round_), round_, known)
    assert caused.cause == SIGN_EXTENDED and len(signature(caused)) == 4


@pytest.mark.parametrize("bit", range(64))
def test_one_bit_more_is_another_cause(bit: int) -> None:
    """The same register at the same exit class: the signature of the erratum, and not its doing."""
    round_ = aborted((0xFFFF_FFFF_0000_0000 | ABORT) ^ 1 << bit)
    known = attribute(round_, {}, None, ALL)
    assert known is not None and known.errata == frozenset() and known.other == {"esr_el1"}
    (caused,) = with_causes(found(round_), round_, known)
    assert caused.cause == ANOTHER_CAUSE and signature(caused)[-1] == ANOTHER_CAUSE


def test_a_rule_that_is_switched_off_explains_nothing() -> None:
    round_ = aborted(0xFFFF_FFFF_0000_0000 | ABORT)
    assert attribute(round_, {}, None, ALL - {SIGN_EXTENDED}) is not None
    assert attribute(round_, {}, None, ()) is None, "the target has no errata: nothing is claimed"


def test_what_keeps_the_contract_needs_no_cause() -> None:
    assert attribute(aborted(ABORT), {}, None, ALL) is None


def completed(value: int, data: int) -> Round:
    """LDRSB of a device into x3; userspace gives ``data``."""
    before = but(S, pc=AT)
    exit_ = trap(before, load_esr(3, 1, signed=True), **page(WINDOW))
    told = user(before, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=1)
    return turn(exit_, told, entry(but(before, x3=value, pc=AT + 4), mmio_data=data))


@pytest.mark.parametrize(("value", "cause"), [(0x80, LOSES_SIGN), (0x81, ANOTHER_CAUSE), (0, ANOTHER_CAUSE)])
def test_a_load_without_its_sign(value: int, cause: str) -> None:
    round_ = completed(value, 0x80)
    known = attribute(round_, {}, None, ALL)
    assert known is not None
    assert {one.cause for one in with_causes(found(round_), round_, known)} == {cause}


def test_several_errata_at_once_are_the_smallest_set() -> None:
    """A reset with a load pending, and SP_EL1 from before."""
    before = but(S, pc=AT, sp_el1=0x55)
    exit_ = trap(before, load_esr(3, 1), **page(WINDOW))
    told = user(before, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=1)
    after = but(after_reset(x3=7, pc=4), sp_el1=0x55, elr_el1=before[exceptions.ELR], spsr_el1=before[exceptions.SPSR])
    round_ = turn(exit_, told, host_reset(), entry(after, mmio_data=7))
    known = attribute(round_, {}, None, ALL)
    assert known is not None and known.errata == {RESET_COMPLETES, RESET_KEEPS_BANKED} and not known.other
    assert ABORTED_COMPLETES not in known.errata
