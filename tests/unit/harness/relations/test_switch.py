# SPDX-License-Identifier: Apache-2.0
"""The relation of entry and exit of docs/spec/differential.md section 3: what a run changed, against what it may."""

from __future__ import annotations

import pytest

from harness.arch import a64, exceptions
from harness.arch.cpu_models import Cpu, cpu_model
from harness.arch.exceptions import State, take_exception
from harness.arch.registers import INDEX, NAMES
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import predict_run
from harness.layout import VECTORS
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.host import expected_entry_states
from harness.relations.switch import compare_run
from harness.trace.events import Switch
from harness.trace.rounds import GuestRun
from tests.support.rounds import AT, HOLE, WINDOW, S, page
from tests.support.traces import (
    ESR_TRAP_MRS,
    SKIP,
    TRAP_MRS,
    but,
    entry,
    esr,
    irq,
    load_esr,
    trap,
    turn,
)

A72, A76 = cpu_model("cortex-a72"), cpu_model("cortex-a76")

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
    """An interrupt before the first instruction: every register must come back, except for bits that the CPU lacks."""
    value = BEFORE[INDEX[register]] ^ 1 << bit
    found = run(BEFORE, but(BEFORE, **{register: value}), code=0)
    mask = A72.masks.get(INDEX[register])
    masked = mask is not None and not mask.res0 and mask.bits >> bit & 1
    # A bit that is RES0 may be lost, and comes from nowhere.
    lost = mask is not None and mask.res0 and mask.bits >> bit & 1 and not value >> bit & 1
    if register == "pc":
        assert set(found) <= {"switch.pc", "unchecked"}
        assert found
    elif lost:
        assert found == {}
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


@pytest.mark.parametrize("register", ["afsr0_el1", "afsr1_el1", "amair_el1", "csselr_el1", "vbar_el1"])
def test_bits_that_are_res0_come_back_as_put_in_or_as_zero(register: str) -> None:
    """An interrupt before the first instruction: all of them lost, one of them lost, one that was not put in."""
    bits = A72.masks[INDEX[register]].bits
    put = BEFORE[INDEX[register]] & ~bits | 0x610 & bits
    before = but(BEFORE, **{register: put})
    for back in (put & ~bits, put & ~0x200, put):
        assert run(before, but(before, **{register: back}), code=0) == {}
    found = run(before, but(before, **{register: put & ~bits | 0x20 & bits}), code=0)
    assert list(found) == [f"switch.{register}"]


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
    """The HVC at the entry must trap: the guest cannot be past the next instruction."""
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
    """Scenarios are A64 code: what it does as A32 is not followed here."""
    before = but(S, pstate=0xF0)
    assert set(run(before, but(before, pc=AT + 0x40), syndrome=esr("IABT_LOW"))) == {"unchecked"}
    there = trap(before, esr("HVC32"))
    (expected,) = expected_entry_states(turn(there, entry(take_exception(before))))
    assert expected.undetermined == "a guest in AArch32 state"


def test_a_guest_that_came_back_to_where_it_was_at_another_level() -> None:
    """At EL0 the vectors' instruction is undefined: the trap is that of EL1, after an exception to it."""
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


def test_a_virtual_serror_that_was_taken_is_no_longer_pending() -> None:
    before, vector = but(S, pstate=0x2C5), VECTORS.base + 0x380
    after = but(S, pc=vector, elr_el1=S[exceptions.PC], spsr_el1=0x2C5)
    for left, differs in ((0, False), (exceptions.HCR_VSE, True)):
        found = switched(entry(before, hcr=exceptions.HCR_VSE), trap(after, ESR_TRAP_MRS, hcr=left))
        assert any(isinstance(d, Divergence) and d.name == "switch.hcr_el2" for d in found) == differs
