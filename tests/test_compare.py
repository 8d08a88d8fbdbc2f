# SPDX-License-Identifier: Apache-2.0
"""The relations of docs/spec/differential.md section 3, on one turn or run: what differs is named, with values."""

from __future__ import annotations

import pytest

from harness.arch import a64, exceptions
from harness.arch.cpu_models import Cpu, cpu_model
from harness.arch.exceptions import State, skip, take_exception
from harness.arch.registers import INDEX, NAMES
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import predict_run
from harness.layout import VECTORS
from harness.model.prediction import Prediction
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.host import expected_entry_state
from harness.relations.save_restore import compare_round
from harness.relations.switch import compare_run
from harness.trace.events import Switch
from harness.trace.rounds import GuestRun, Round, rounds, runs
from tests.rounds import AT, HOLE, WINDOW, S, page
from tests.traces import (
    ESR_TRAP_MRS,
    EXCEPTION,
    INTR_EXIT,
    MMIO_EXIT,
    SKIP,
    SYSTEM_EVENT_EXIT,
    TRAP_MRS,
    but,
    entry,
    esr,
    host_reset,
    host_set,
    irq,
    load_esr,
    trap,
    turn,
    user,
)

PC_FLAG = 1 << 32
A72, A76 = cpu_model("cortex-a72"), cpu_model("cortex-a76")
WFI = turn(trap(S, esr("WFX")), entry(S, SKIP))


def predicted(state_: State, dirty: int = 0, helper: str = "none", spsr_0: int | None = None) -> Prediction:
    return Prediction(helper, dirty, state_, state_[INDEX["spsr_el1"]] if spsr_0 is None else spsr_0)


def differences(round_: Round, prediction: Prediction) -> dict[str, tuple[object, object]]:
    return {d.name: (d.expected, d.observed) for d in compare_round(round_, prediction)}


# The cutting of a trace.


def test_rounds_and_runs() -> None:
    events = (
        *(host_set("x1", 1), entry(S), irq(S), entry(S), trap(S, esr("WFX")), user(S, INTR_EXIT)),
        *(host_set("x2", 2), entry(S), trap(S, esr("HVC64")), user(S, INTR_EXIT)),
    )
    cut = list(rounds(events))
    assert [r.first for r in cut] == [1, 2, 4]
    assert [r.exit_class for r in cut] == ["FIRST", "IRQ", "WFX"]
    assert [len(r.hosts) for r in cut] == [1, 0, 1]
    assert [len(r.users) for r in cut] == [0, 0, 1]
    assert [r.reset for r in cut] == [True, False, False]
    found = list(runs(events))
    assert [i for i, _, _ in found] == [2, 4, 8]
    assert all(exit_ is events[i] for i, _, exit_ in found)


def test_an_entry_without_an_exit_is_no_run_and_an_exit_without_an_entry_no_round() -> None:
    assert not list(runs((entry(S), entry(S))))
    assert not list(runs((trap(S, 0), user(S, 10))))
    assert not list(rounds((trap(S, 0), user(S, 10))))
    assert not list(rounds(()))
    assert not list(runs(()))


def test_a_reset_in_the_middle() -> None:
    assert turn(irq(S), host_reset(), entry(S)).reset


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


def test_a_virtual_serror_that_was_taken_is_no_longer_pending() -> None:
    before, vector = but(S, pstate=0x2C5), VECTORS.base + 0x380
    after = but(S, pc=vector, elr_el1=S[exceptions.PC], spsr_el1=0x2C5)
    for left, differs in ((0, False), (exceptions.HCR_VSE, True)):
        found = switched(entry(before, hcr=exceptions.HCR_VSE), trap(after, ESR_TRAP_MRS, hcr=left))
        assert any(isinstance(d, Divergence) and d.name == "switch.hcr_el2" for d in found) == differs


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


# switch.<reg>: what KVM loads against what it saves, at once or after what the code does.

HVC, LOAD, WORD_WFI = a64.encode("hvc", 0), a64.encode("ldr", "x3", "x1"), a64.encode("wfi")
CODE = {AT: HVC, AT + 4: WORD_WFI, AT + 8: LOAD, AT + 12: TRAP_MRS}
BEFORE = but(S, x1=WINDOW)


def switched(before: Switch, after: Switch, cpu: Cpu = A72, index: int = 0) -> list[Divergence | Unchecked]:
    memory = Memory()
    context = GuestContext(CODE, cpu, memory)
    return list(compare_run(predict_run(GuestRun(index, before, after), context), context))


def run(before: State, after: State, code: int = 2, syndrome: int = ESR_TRAP_MRS, **fields: int) -> dict[str, object]:
    found = switched(entry(before), trap(after, syndrome, code=code, **fields), index=5)
    return {d.name if isinstance(d, Divergence) else "unchecked": d for d in found}


def test_a_call_that_is_come_by_twice() -> None:
    """ERET leads to a call that EL2 answers itself; then ERET leads there again, and KVM gets the second call."""
    code = {AT: HVC, AT + 4: a64.encode("eret")}
    before = but(S, pc=AT + 4, elr_el1=AT, spsr_el1=0x3C5, x0=0x8000_8000)
    for x0, reasons in ((0, ["ANSWERED"]), (0x8000_8000, [])):
        seen = entry(before)
        found = predict_run(GuestRun(0, seen, trap(but(before, x0=x0), 0x5A00_0000)), GuestContext(code, A72, Memory()))
        assert ([] if found.path.state else ["ANSWERED"]) == reasons


@pytest.mark.parametrize("register", NAMES)
@pytest.mark.parametrize("bit", [0, 2, 63])
def test_switch(register: str, bit: int) -> None:
    """An interrupt before the first instruction: every register must come back, but for bits that the CPU lacks."""
    value = BEFORE[INDEX[register]] ^ 1 << bit
    found = run(BEFORE, but(BEFORE, **{register: value}), code=0)
    masked = A72.mask(INDEX[register])[0] >> bit & 1
    if register == "pc":
        assert set(found) <= {"switch.pc", "unchecked"}
        assert found
    elif masked:
        assert set(found) == {"unchecked"}
    else:
        (only,) = found.values()
        assert isinstance(only, Divergence)
        assert (only.name, only.expected, only.observed) == (f"switch.{register}", BEFORE[INDEX[register]], value)


def test_masks_hide_what_the_cpu_lacks_and_no_more() -> None:
    """PSTATE.PAN: not on Armv8.0, there on Armv8.2."""
    lost = but(BEFORE, pstate=BEFORE[INDEX["pstate"]] | 1 << 22)
    for cpu, names in ((A72, []), (A76, ["switch.pstate"])):
        found = switched(entry(lost), irq(BEFORE), cpu)
        assert [d.name for d in found if isinstance(d, Divergence)] == names
    both = but(lost, x1=lost[1] ^ 1)
    found = switched(entry(both), irq(BEFORE), A72)
    assert [d.name for d in found if isinstance(d, Divergence)] == ["switch.x1"]


def test_two_registers_are_two_divergences() -> None:
    assert set(run(BEFORE, but(BEFORE, x8=BEFORE[9], x9=BEFORE[8]), code=0)) == {"switch.x8", "switch.x9"}


def test_a_call_returns_behind_itself() -> None:
    after = but(BEFORE, pc=AT + 4)
    assert run(BEFORE, after, syndrome=0x5A00_0000) == {}
    assert set(run(BEFORE, but(after, x7=0), syndrome=0x5A00_0000)) == {"switch.x7"}
    for wrong in (0x5A00_0001, 0x5A00_8000, 0x5800_0000, 0x1_5A00_0000):
        assert set(run(BEFORE, after, syndrome=wrong)) == {"switch.esr_el2"}


def test_pending_work_is_done_before_the_guest_runs() -> None:
    assert switched(entry(BEFORE, SKIP), trap(but(BEFORE, pc=AT + 4), 0x07E0_0000)) == []


def test_a_pc_that_the_guest_cannot_have() -> None:
    """The HVC at the entry must trap: the guest cannot be behind the next instruction."""
    found = run(BEFORE, but(BEFORE, pc=AT + 8), code=0)
    assert isinstance(found["switch.pc"], Divergence)


MMIO = but(BEFORE, pc=AT + 8)
LOADED = load_esr(3)


@pytest.mark.parametrize(
    ("syndrome", "far", "hpfar", "names"),
    [
        (LOADED, WINDOW, 0x9_0000, set()),
        (LOADED ^ 1, WINDOW, 0x9_0000, set()),  # the level of the walk is free
        (load_esr(4), WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (load_esr(3, 4), WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (load_esr(3, signed=True), WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (load_esr(3, wide=False), WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (load_esr(3, write=True), WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (LOADED | 1 << 32, WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (LOADED & ~(1 << 25), WINDOW, 0x9_0000, {"switch.esr_el2"}),
        (LOADED ^ 0x08, WINDOW, 0x9_0000, {"switch.esr_el2"}),  # a permission fault on nothing
        (LOADED, WINDOW + 1, 0x9_0000, {"switch.far_el2"}),
        (LOADED, 0, 0x9_0000, {"switch.far_el2"}),
        (LOADED, WINDOW, 0x9_0010, {"switch.hpfar_el2"}),
        (LOADED, WINDOW, 0x9_0001, {"switch.hpfar_el2"}),
        (LOADED, 0, 0, {"switch.far_el2", "switch.hpfar_el2"}),
    ],
)
def test_fault_registers(syndrome: int, far: int, hpfar: int, names: set[str]) -> None:
    assert set(run(MMIO, MMIO, syndrome=syndrome, far=far, hpfar=hpfar)) == names


def test_an_access_through_a_wrong_register_is_no_divergence_of_its_own() -> None:
    elsewhere = but(MMIO, x1=WINDOW + 8)
    assert set(run(MMIO, elsewhere, syndrome=LOADED, far=WINDOW + 8, hpfar=0x9_0000)) == {"switch.x1"}
    assert set(run(MMIO, elsewhere, syndrome=LOADED, far=WINDOW, hpfar=0x9_0000)) == {"switch.x1"}, "it was saved wrong"
    both = {"switch.x1", "switch.far_el2"}
    assert set(run(MMIO, elsewhere, syndrome=LOADED, far=WINDOW + 16, hpfar=0x9_0000)) == both


def test_fault_registers_of_an_interrupt_are_the_last_traps() -> None:
    """docs/spec/kvm.md section 1, exit codes: fault.esr_el2 is not refreshed on an IRQ exit."""
    assert run(MMIO, MMIO, code=0, syndrome=0xDEAD, far=1, hpfar=2) == {}


def test_an_interrupt_at_an_instruction_that_need_not_trap() -> None:
    """The guest is where it was: what it has is compared, as it could not have come back there."""
    before = but(BEFORE, pc=AT + 4)
    found = switched(entry(before), irq(but(before, mair_el1=0x44)))
    assert [d.name for d in found if isinstance(d, Divergence)] == ["switch.mair_el1"]


def test_an_serror_beside_a_trap_is_still_a_trap() -> None:
    assert set(run(MMIO, MMIO, code=2 | 1 << 31, syndrome=LOADED)) == {"switch.far_el2", "switch.hpfar_el2"}


def test_what_was_loaded_from_ram_is_compared() -> None:
    ram = but(MMIO, x1=0x4002_0000)
    after = but(ram, pc=AT + 12)
    assert run(ram, but(after, x3=0)) == {}
    assert set(run(ram, but(after, x3=0x1234))) == {"switch.x3"}


def test_what_was_loaded_is_not_compared_but_its_neighbours_are() -> None:
    ram = but(MMIO, x1=AT)  # code: what is there is not RAM of the scenario's
    after = but(ram, pc=AT + 12)
    assert run(ram, but(after, x3=0x1234)) == {
        "unchecked": Unchecked("switch", "loaded from RAM"),
    }
    assert set(run(ram, but(after, x3=0x1234, x4=0))) == {"unchecked", "switch.x4"}
    assert set(run(ram, but(after, x3=0x1234), syndrome=ESR_TRAP_MRS ^ 2)) == {"unchecked", "switch.esr_el2"}


def test_far_from_everything_the_page_above_ram_is_checked_too() -> None:
    above = but(MMIO, x1=HOLE)
    assert run(above, above, syndrome=LOADED, **page(HOLE)) == {}
    assert set(run(above, above, syndrome=LOADED, **page(HOLE + 0x1000))) == {"switch.far_el2", "switch.hpfar_el2"}


def test_a_guest_in_aarch32_state_is_not_judged() -> None:
    """Scenarios are A64 code: what it does as A32, nobody follows here."""
    before = but(S, pstate=0xF0)
    assert set(run(before, but(before, pc=AT + 0x40), syndrome=esr("IABT_LOW"))) == {"unchecked"}
    there = trap(before, esr("IABT_LOW"))
    assert expected_entry_state(turn(there, entry(take_exception(before)))) == "a guest in AArch32 state"


def test_a_guest_that_came_back_to_where_it_was_at_another_level() -> None:
    """At EL0 the vectors' instruction is undefined: the trap is that of EL1, behind an exception to it."""
    vector = VECTORS.base + 0x400
    before = but(S, pstate=0, vbar_el1=VECTORS.base, pc=vector)
    taken = but(before, pstate=0x3C5, elr_el1=vector, spsr_el1=0, esr_el1=0x200_0000)
    trapped = trap(taken, 0x6232_03ED)

    def found(exit_: Switch) -> set[str]:
        context = GuestContext({}, cpu_model("cortex-a72"), Memory())
        ran = predict_run(GuestRun(1, entry(before), exit_), context)
        return {d.name for d in compare_run(ran, context) if isinstance(d, Divergence)}

    assert found(trapped) == set()
    assert found(trapped._replace(values=but(before, pstate=0x3C5))) >= {"switch.elr_el1", "switch.esr_el1"}
