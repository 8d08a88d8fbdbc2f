# SPDX-License-Identifier: Apache-2.0
"""Which divergences break the architecture, which the KVM API, and which nothing but a convention of Linux."""

from __future__ import annotations

import pytest

from harness.arch.reset_values import UNKNOWN_RESET
from harness.protocol import OP_ABORT
from harness.relations.basis import API, ARCHITECTURE, BASES, CONVENTION, basis_of
from harness.relations.contract_rules import RULES
from harness.relations.divergence import Divergence
from harness.relations.host import compare_entry_state
from harness.trace.events import HOST, Host
from harness.trace.rounds import Round
from tests.support.rounds import AT, NOWHERE, WINDOW, S, after_reset, page
from tests.support.traces import MMIO_EXIT, but, entry, esr, host_reset, host_set, load_esr, trap, turn, user

CALL = trap(but(S, pc=AT, ttbr0_el1=0x4002_0000, sp_el1=0x55), esr("HVC64"))
LOAD = trap(but(S, pc=AT), load_esr(3, 8), **page(WINDOW))


def broken(round_: Round) -> dict[str, str]:
    """What differs in a round, and what it breaks."""
    found = [one for one in compare_entry_state(round_, {}) if isinstance(one, Divergence)]
    return {one.name: basis_of(one, round_) for one in found}


@pytest.mark.parametrize(
    ("value", "basis"),
    [(0, CONVENTION), (UNKNOWN_RESET ^ 1, CONVENTION), (0x4002_0000, API), (0x4002_1000, API)],
)
def test_a_register_that_a_reset_leaves_unknown_may_hold_anything_but_what_was_there(value: int, basis: str) -> None:
    """0x4002_0000 was there at the exit, and userspace wrote 0x4002_1000 before the reset."""
    round_ = turn(CALL, host_set("ttbr0_el1", 0x4002_1000), host_reset(), entry(after_reset(ttbr0_el1=value)))
    assert broken(round_) == {"host.ttbr0_el1": basis}


def test_what_a_reset_must_hold_is_promised() -> None:
    round_ = turn(CALL, host_reset(), entry(but(after_reset(), pc=4, sp_el1=0x55, elr_el1=7)))
    assert broken(round_) == {"host.pc": API, "host.sp_el1": API, "host.elr_el1": CONVENTION}
    written = turn(CALL, host_reset(), host_set("ttbr0_el1", 1), entry(after_reset(ttbr0_el1=2)))
    assert broken(written) == {"host.ttbr0_el1": API}, "userspace wrote it"


@pytest.mark.parametrize(("first", "basis"), [(True, CONVENTION), (False, ARCHITECTURE)])
def test_an_exception_after_a_reset_gives_its_registers_their_values(first: bool, basis: str) -> None:
    """One that was asked for before the reset does not."""
    asked = Host(HOST, 0, OP_ABORT, 0, 0, 0, True)
    hosts = (asked, host_reset()) if first else (host_reset(), asked)
    round_ = turn(CALL, *hosts, entry(after_reset()))
    assert basis_of(Divergence("host", "esr_el1", 1, 2, "RESET", round_.first, 0), round_) == basis


@pytest.mark.parametrize(
    ("round_", "basis"),
    [
        (turn(trap(but(S, pc=NOWHERE), esr("IABT_LOW", 6), **page(NOWHERE)), entry(S)), ARCHITECTURE),
        (turn(trap(but(S, pc=AT), esr("WFX")), entry(but(S, pc=AT + 4, x5=0))), ARCHITECTURE),
        (turn(trap(but(S, pc=AT), esr("HVC64")), entry(but(S, x0=1))), API),
        (turn(LOAD, user(LOAD.values, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=8), entry(LOAD.values)), API),
        (turn(trap(but(S, pc=AT), esr("WFX")), host_set("x5", 7), entry(but(S, pc=AT + 4))), API),
    ],
)
def test_what_a_round_breaks(round_: Round, basis: str) -> None:
    assert set(broken(round_).values()) == {basis}


@pytest.mark.parametrize(
    ("relation", "register", "basis"),
    [
        ("switch", "x3", ARCHITECTURE),
        ("host", "gic_list", ARCHITECTURE),
        ("host", "gic_line", API),
        ("host", "mmio_data", API),
        ("host", "step_begins", API),
        ("host", "slot", API),
        ("restore", "x3", ""),
        ("save", "class", ""),
        ("flush", "hcr_el2", ""),
    ],
)
def test_what_no_round_decides(relation: str, register: str, basis: str) -> None:
    assert basis_of(Divergence(relation, register, 0, 1, "HVC64", 1, 0)) == basis


def test_each_rule_of_the_contract_has_a_basis() -> None:
    by_name = {rule.name: rule.basis for rule in RULES}
    assert set(by_name.values()) == set(BASES)
    assert by_name["reset.ttbr0_el1"] == CONVENTION and by_name["reset.pc"] == API
    assert by_name["wfx"] == ARCHITECTURE and by_name["host.line.irq"] == API and by_name["call.unknown"] == API
