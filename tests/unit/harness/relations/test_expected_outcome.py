# SPDX-License-Identifier: Apache-2.0
"""How KVM may end an exit, by the contract; and that the catalogue explains no other end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.exceptions import State
from harness.arch.exits import DABT
from harness.layout import GICD
from harness.model.replay import predict
from harness.protocol import OP_ABORT, OP_SERROR
from harness.relations.expected_outcome import expected_outcomes, moves_on
from harness.relations.save_restore import compare_restore, compare_save
from harness.trace.environment import WORLDS
from harness.trace.events import HOST, Host, Switch
from harness.trace.rounds import Round
from tests.support.rounds import CATALOGUES, HOLE, NOWHERE, WINDOW, S, page
from tests.support.traces import MMIO_EXIT, SKIP, but, entry, esr, irq, load_esr, trap, turn, user

FORGED = protocol.FORGE["esr"]
PROTECTED = next(world for world in WORLDS if world.protected)
WITH_GIC = next(world for world in WORLDS if world.gic)
CALL = esr("HVC64", 0)
NO_SYNDROME = load_esr(5) & ~DABT["ISV"].mask


def called(function: int) -> State:
    return but(S, x0=function)


def after(exit_: Switch) -> Round:
    return turn(exit_, entry(S))


@pytest.mark.parametrize(
    ("exit_", "allowed"),
    [
        (irq(S), {"resume"}),
        (trap(S, 0, code=3), {"user:FAIL_ENTRY", "fail:EINVAL"}),
        (trap(S, 0, code=9), None),
        (trap(S, esr("WFX", 0)), {"resume"}),
        (trap(called(0x8400_0000), CALL), {"resume"}),
        (trap(called(0x8400_0008), CALL), {"user:SYSTEM_EVENT"}),  # SYSTEM_OFF
        (trap(called(0x8400_0012), CALL), {"user:SYSTEM_EVENT", "resume"}),  # SYSTEM_RESET2: the type may be invalid
        (trap(called(0x8400_0008), esr("SMC64", 0)), {"user:SYSTEM_EVENT", "resume"}),  # refused up to 6.3
        (trap(S, load_esr(5), **page(WINDOW)), {"user:MMIO"}),
        (trap(S, load_esr(5), **page(HOLE)), {"user:MMIO"}),
        (trap(S, NO_SYNDROME, **page(WINDOW)), {"fail:ENOSYS", "user:ARM_NISV"}),
        (trap(S, NO_SYNDROME | DABT["CM"].mask, **page(WINDOW)), {"resume"}),
        (trap(S, load_esr(5), **page(S[exceptions.PC])), {"resume"}),
        (trap(S, load_esr(5) | DABT["S1PTW"].mask, **page(NOWHERE)), {"inject"}),
        (trap(S, esr("IABT_LOW", 5), **page(NOWHERE)), {"inject"}),
        (trap(S, esr("IABT_LOW", 5), **page(S[exceptions.PC])), {"resume"}),
        (trap(S, esr("SYS64", 0x3203ED)), {"resume"}),  # MRS of an ID register
        (trap(S, 0x0A << 26, marks=FORGED), {"inject"}),
        (trap(S, 0x1A << 26, marks=FORGED), {"inject", "resume"}),
        (trap(but(S, pstate=0x10), load_esr(5), **page(WINDOW)), None),
    ],
)
def test_how_an_exit_may_end(exit_: Switch, allowed: set[str] | None) -> None:
    assert expected_outcomes(after(exit_)) == allowed


def test_before_the_first_entry_the_guest_runs() -> None:
    assert expected_outcomes(turn(entry(S))) == {"resume"}


def test_the_vm_decides_who_emulates_an_access() -> None:
    undecodable = after(trap(S, NO_SYNDROME, **page(WINDOW)))
    assert expected_outcomes(replace(undecodable, world=PROTECTED)) == {"inject"}
    assert expected_outcomes(replace(after(trap(S, load_esr(5), **page(GICD.base))), world=WITH_GIC)) == {"kernel:MMIO"}


@pytest.mark.parametrize(
    ("op", "error", "more"), [(OP_ABORT, 0, {"asked", "inject"}), (OP_SERROR, 0, {"asked"}), (OP_ABORT, 22, set())]
)
def test_userspace_may_ask_for_more(op: int, error: int, more: set[str]) -> None:
    exit_ = trap(S, load_esr(5), **page(WINDOW))
    round_ = turn(exit_, user(S, MMIO_EXIT), Host(HOST, 0, op, 0, 0, error, True), entry(S))
    assert expected_outcomes(round_) == {"user:MMIO"} | more


@pytest.mark.parametrize(
    ("esr_el2", "moved", "explained"),
    [(load_esr(5), True, True), (load_esr(5), False, True), (NO_SYNDROME, True, False), (NO_SYNDROME, False, False)],
)
def test_the_catalogue_explains_no_end_that_the_contract_does_not_allow(
    esr_el2: int, moved: bool, explained: bool
) -> None:
    """KVM_EXIT_MMIO for an access without a valid syndrome: helper and outcome are still those of an entry."""
    round_ = turn(trap(S, esr_el2, **page(HOLE)), user(S, MMIO_EXIT), entry(S, SKIP if moved else 0))
    prediction = predict(round_, "spec")
    explain = CATALOGUES["spec"].explainer(round_, prediction, {})
    found = {one.register: explain(one) for one in compare_save(round_, prediction)}
    known = found["class"]
    assert (known is not None) == explained
    assert known is None or known.by_rule


def test_where_the_contract_says_nothing_an_entry_explains_by_its_conditions() -> None:
    aarch32 = but(S, pstate=0x10)
    round_ = turn(trap(aarch32, load_esr(5), **page(HOLE)), user(aarch32, MMIO_EXIT), entry(aarch32, SKIP))
    prediction = predict(round_, "spec")
    explain = CATALOGUES["spec"].explainer(round_, prediction, {})
    known = next(explain(one) for one in compare_save(round_, prediction) if one.register == "class")
    assert known is not None and known.id == "mmio-above-window-class" and not known.by_rule


@pytest.mark.parametrize(
    ("syndrome", "moves"),
    [(load_esr(5), True), (NO_SYNDROME, False), (esr("BRK64", 0), False), (esr("SMC64", 0), True), (CALL, None)],
)
def test_whether_pc_moves_on(syndrome: int, moves: bool | None) -> None:
    assert moves_on(after(trap(S, syndrome, **page(WINDOW)))) is moves


def test_no_entry_explains_the_flag_of_an_abort_that_never_came() -> None:
    """A stage-1 walk outside every slot is an abort: that KVM resumed is no memory slot below the layer's window."""
    walk = esr("IABT_LOW", 5) | DABT["S1PTW"].mask
    round_ = turn(trap(S, walk, **page(WINDOW)), entry(S))
    prediction = predict(round_, "spec")
    explain = CATALOGUES["spec"].explainer(round_, prediction, {})
    found = {
        one.name: explain(one) for one in (*compare_save(round_, prediction), *compare_restore(round_, prediction))
    }
    assert {name for name, known in found.items() if known is None} >= {"save.class", "save.pc", "restore.pc"}
