# SPDX-License-Identifier: Apache-2.0
"""Save and restore of docs/spec/differential.md section 3, on one turn: what differs is named, with values."""

from __future__ import annotations

import pytest

from harness.arch.exceptions import State, skip, take_exception
from harness.arch.registers import INDEX, NAMES
from harness.model.prediction import Prediction
from harness.relations.divergence import Divergence
from harness.relations.save_restore import compare_round
from harness.trace.rounds import Round
from tests.support.rounds import AT, S
from tests.support.traces import (
    EXCEPTION,
    INTR_EXIT,
    MMIO_EXIT,
    SKIP,
    SYSTEM_EVENT_EXIT,
    but,
    entry,
    esr,
    host_reset,
    irq,
    rounds,
    trap,
    turn,
    user,
)

PC_FLAG = 1 << 32
WFI = turn(trap(S, esr("WFX")), entry(S, SKIP))


def predicted(state_: State, dirty: int = 0, helper: str = "none", spsr_0: int | None = None) -> Prediction:
    return Prediction(helper, dirty, state_, state_[INDEX["spsr_el1"]] if spsr_0 is None else spsr_0)


def differences(round_: Round, prediction: Prediction) -> dict[str, tuple[object, object]]:
    return {d.name: (d.expected, d.observed) for d in compare_round(round_, prediction)}


# save.class: which helper the model chose against what KVM did.


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [("resume", None), ("user:MMIO", MMIO_EXIT), ("user:SYSTEM_EVENT", SYSTEM_EVENT_EXIT), ("resume", INTR_EXIT)],
)
@pytest.mark.parametrize(
    ("helper", "may"),
    [
        ("none", {"resume"}),
        ("prep_wfx", {"resume"}),
        ("prep_hvc", {"resume", "user:SYSTEM_EVENT"}),
        ("prep_abort", {"resume"}),
        ("prep_abort.mmio", {"user:MMIO"}),
        ("sysreg", {"resume"}),
        ("first", {"resume"}),
        ("panic", set()),
        ("panic.restore", set()),
    ],
)
def test_save_class(helper: str, may: set[str], outcome: str, reason: int | None) -> None:
    """That an interrupt or a signal brings KVM_RUN back (INTR) says nothing about the exit."""
    users = [] if reason is None else [user(S, reason)]
    found = differences(turn(trap(S, esr("WFX")), *users, entry(S)), Prediction(helper))
    assert found == ({} if outcome in may else {"save.class": (helper, outcome)})


@pytest.mark.parametrize("helper", ["none", "prep_wfx", "prep_hvc", "prep_abort", "prep_abort.mmio", "sysreg"])
def test_save_class_of_an_injected_exception(helper: str) -> None:
    pending = turn(trap(S, esr("IABT_LOW")), entry(S, EXCEPTION))
    assert differences(pending, Prediction(helper))["save.class"] == (helper, "inject")
    # On the way to userspace KVM enters the exception in memory: nothing is pending any more.
    taken = take_exception(S, 0x8600_0010, 0x5000_0000)
    done = turn(trap(S, esr("IABT_LOW")), user(taken, INTR_EXIT), entry(taken))
    assert differences(done, Prediction(helper))["save.class"] == (helper, "inject")


# save.dirty: bits 0..30 of the predicted dirty word against the registers that differ.


@pytest.mark.parametrize("index", range(31))
def test_save_dirty(index: int) -> None:
    written = but(S, **{f"x{index}": 0xABC})
    round_ = turn(irq(S), entry(written))
    assert differences(round_, predicted(written)) == {f"save.dirty.x{index}": (0, 1)}
    assert differences(round_, predicted(written, 1 << index)) == {}
    neighbour = (index + 1) % 31
    assert differences(round_, predicted(written, 1 << neighbour)) == {f"save.dirty.x{index}": (0, 1)}


def test_a_register_written_with_its_old_value_cannot_be_seen() -> None:
    assert differences(turn(irq(S), entry(S)), predicted(S, (1 << 31) - 1)) == {}


def test_save_is_not_compared_with_a_reset() -> None:
    new = but(S, x3=0, pc=0)
    assert differences(turn(irq(S), host_reset(), entry(new)), predicted(new, PC_FLAG)) == {}


# save.pc: DIRTY_PC_FLAG against KVM's own skip, pending or done.


def test_save_pc() -> None:
    resumed = turn(trap(S, esr("WFX")), entry(S))
    assert differences(WFI, predicted(skip(S), PC_FLAG)) == {}
    assert differences(WFI, predicted(skip(S))) == {"save.pc": (0, 1)}
    assert differences(resumed, predicted(S, PC_FLAG)) == {"save.pc": (1, 0)}
    assert differences(resumed, predicted(S)) == {}


def test_save_pc_where_kvm_moved_it_in_memory() -> None:
    """KVM_RUN that returns to userspace has done the pending work; userspace then sees PC + 4."""
    done = turn(trap(S, esr("WFX")), user(skip(S), INTR_EXIT), entry(skip(S)))
    assert differences(done, predicted(skip(S), PC_FLAG)) == {}
    assert differences(done, predicted(skip(S))) == {"save.pc": (0, 1)}
    not_done = turn(trap(S, esr("WFX")), user(S, INTR_EXIT), entry(S))
    assert differences(not_done, predicted(S, PC_FLAG)) == {"save.pc": (1, 0)}


def test_save_pc_at_the_end_of_the_address_space() -> None:
    last = but(S, pc=(1 << 64) - 4)
    done = turn(trap(last, esr("WFX")), user(skip(last), INTR_EXIT), entry(skip(last)))
    assert differences(done, predicted(skip(last), PC_FLAG)) == {}


def test_a_trapped_system_register_moves_pc_without_a_flag() -> None:
    round_ = turn(trap(S, esr("SYS64")), entry(S, SKIP))
    assert differences(round_, predicted(skip(S), 0, "sysreg")) == {}


# save.inject: PENDING_EXCEPT_INJECT_FLAG against KVM's own.


@pytest.mark.parametrize("flag", [1 << 33, 1 << 34, 1 << 35])
def test_save_inject(flag: int) -> None:
    """The layer asked for an exception and KVM gave none.  The other way round is not its business."""
    assert differences(turn(irq(S), entry(S)), predicted(S, flag)) == {"save.inject": (1, 0)}
    injected = turn(trap(S, esr("IABT_LOW")), entry(S, EXCEPTION))
    assert "save.inject" not in differences(injected, predicted(take_exception(S), flag, "prep_abort"))
    assert "save.inject" not in differences(injected, predicted(take_exception(S), 0, "prep_abort"))


# restore.<reg>: the prediction against the guest's view.


@pytest.mark.parametrize("register", NAMES)
@pytest.mark.parametrize("bit", [0, 63])
def test_restore(register: str, bit: int) -> None:
    value = S[INDEX[register]] ^ 1 << bit
    wrong = but(S, **{register: value})
    found = differences(turn(irq(S), entry(S)), predicted(wrong, spsr_0=S[INDEX["spsr_el1"]]))
    assert found == {f"restore.{register}": (value, S[INDEX[register]])}


def test_restore_of_the_layers_second_spsr() -> None:
    found = differences(turn(irq(S), entry(S)), predicted(S, spsr_0=5))
    assert found == {"restore.spsr_0": (5, 0)}


def test_restore_sees_what_the_guest_sees() -> None:
    """The skip and the exception that are pending happen before the guest does anything."""
    assert differences(WFI, predicted(S, PC_FLAG)) == {"restore.pc": (AT, AT + 4)}
    round_ = turn(trap(S, esr("IABT_LOW")), entry(S, EXCEPTION))
    wrong = {f"restore.{name}" for name in ("pc", "elr_el1", "spsr_el1", "spsr_0")}
    assert set(differences(round_, predicted(S))) == {"save.class", *wrong}


def test_a_panic_or_an_undefined_state_predicts_no_register() -> None:
    other = turn(irq(S), entry(but(S, x1=0)))
    assert differences(other, Prediction("panic")) == {"save.class": ("panic", "resume")}
    assert differences(other, Prediction("none", undefined="is_int64 x0")) == {}


def test_where_a_divergence_was_seen() -> None:
    events = (entry(S), irq(S), entry(but(S, x1=0), step=7))
    *_, last = rounds(events)
    (found,) = [d for d in compare_round(last, predicted(S)) if d.relation == "restore"]
    assert found == Divergence("restore", "x1", S[1], 0, "IRQ", 1, 7, "none")
