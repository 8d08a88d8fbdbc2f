# SPDX-License-Identifier: Apache-2.0
"""What is required after host actions and at exits of the newer steps; what may change while another vCPU runs."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.exits import IL_BIT
from harness.arch.registers import BY_NAME, INDEX
from harness.arch.reset_values import RESET_VALUES
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import RACE, predict_run
from harness.layout import CODE, GICD, PROTECTED, VECTORS
from harness.model.replay import predict
from harness.protocol import FLAGS_VCPU_SHIFT
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.errata import ABORTED_COMPLETES
from harness.relations.host import compare_entry_state
from harness.relations.isolate import compare_isolation
from harness.relations.save_restore import compare_reveal, why_not_comparable
from harness.trace.environment import WORLDS
from harness.trace.events import Event, Host
from harness.trace.psci import NOT_SUPPORTED, OVERWRITTEN
from harness.trace.rounds import EXIT_INTR, USER_INJECTED, GuestRun, Round
from tests.support.rounds import page
from tests.support.traces import (
    HOST,
    but,
    entry,
    esr,
    host_reset,
    host_set,
    irq,
    load_esr,
    rounds,
    state,
    trap,
    turn,
    user,
)

AT, MMIO = CODE.base, 0x900_0000
S = state(sctlr_el1=1 << 23)
PAGE = {"far": MMIO, "hpfar": MMIO >> 12 << 4}
LOAD = trap(S, load_esr(3), **PAGE)
SKIP, EXCEPTION = protocol.PENDING["increment_pc"], protocol.PENDING["exception"] | protocol.PENDING["sync_el1"]
FORGED_ESR = protocol.FORGE["esr"]


def did(op: str, a: int = 0, b: int = 0, error: int = 0, context: int = 0) -> Host:
    return Host(HOST, 0, protocol.OPS[op][0], a, b, error, True, context)


def differs(round_: Round) -> dict[str, tuple[int | str, int | str]]:
    found = (d for d in compare_entry_state(round_, {}) if isinstance(d, Divergence))
    return {d.name: (d.expected, d.observed) for d in found}


def aborted(far: int = MMIO) -> exceptions.State:
    return exceptions.take_exception(S, 0x9600_0010, far)


def test_an_abort_takes_the_place_of_the_access() -> None:
    told = user(S, 6)
    assert not differs(turn(LOAD, told, did("abort"), entry(aborted())))
    at_entry = but(S, esr_el1=0x9600_0010, far_el1=MMIO)
    assert not differs(turn(LOAD, told, did("abort"), entry(at_entry, EXCEPTION))), "pending, as 6.1 does it"
    both = differs(turn(LOAD, told, did("abort"), entry(but(aborted(), x3=0x55))))
    assert both == {"host.x3": (S[3], 0x55)}, "it is completed nevertheless"
    assert differs(turn(LOAD, told, did("abort", error=2), entry(but(S, x3=0), SKIP))) == {}, "refused: it completes"


def test_an_abort_is_taken_from_what_userspace_left() -> None:
    """Other PSTATE, VBAR_EL1 and PC than at the exit, or those of a reset, before an exception that comes at once."""
    told, wrote = user(S, 6), host_set("pstate", 0x3C4)
    there = exceptions.take_exception(but(S, pstate=0x3C4), 0x9600_0010, MMIO)
    done = turn(LOAD, told, wrote, did("abort"), entry(there))
    assert done.action.inject and done.action.outcome == USER_INJECTED and not differs(done)
    left = (did("reset"), host_set("vbar_el1", VECTORS.base), did("abort"))
    reset = {INDEX[name]: value for name, value in RESET_VALUES.items()} | {INDEX["vbar_el1"]: VECTORS.base}
    after = exceptions.take_exception(tuple(reset.get(i, S[i]) for i in range(len(S))), 0x9600_0010, MMIO)
    done = turn(LOAD, told, *left, entry(after))
    assert done.action.inject and done.action.outcome == USER_INJECTED and not differs(done)
    nothing = turn(LOAD, told, did("reset"), entry(after))
    assert not nothing.action.inject and "host.pc" in differs(nothing), "no exception was asked for"


def test_what_a_guest_in_aarch32_state_is_owed_behind_a_reset() -> None:
    """Where the vCPU was does not matter any more; IL of an abort's syndrome may be that of its 16-bit instruction."""
    came = trap(but(S, pstate=0x30), load_esr(3) & ~(1 << 25), **PAGE)
    left = (did("reset"), host_set("vbar_el1", VECTORS.base), did("abort"))
    reset = {INDEX[name]: value for name, value in RESET_VALUES.items()} | {INDEX["vbar_el1"]: VECTORS.base}
    start = tuple(reset.get(i, S[i]) for i in range(len(S)))
    for syndrome, names in ((0x9400_0010, set()), (0x9600_0010, set()), (0x9200_0010, {"host.esr_el1"})):
        done = turn(came, user(S, 6), *left, entry(exceptions.take_exception(start, syndrome, MMIO)))
        assert differs(done).keys() == names


def test_an_exception_that_pends_is_entered_when_the_vcpu_runs() -> None:
    """Userspace moved the vectors after it had asked for an abort, and called KVM_RUN with immediate_exit."""
    told, moved = user(S, 6), host_set("vbar_el1", 0x4002_0000)
    after = exceptions.take_exception(but(S, vbar_el1=0x4002_0000), 0x9600_0010, MMIO)
    done = turn(LOAD, told, did("abort"), moved, did("finish"), entry(after))
    assert (done.action.inject, done.action.outcome) == (True, "asked")


def test_an_serror_behind_an_exception_of_kvms_own() -> None:
    """It pends (up to 6.12), or is taken at once; what says so is whether it still pends."""
    out = trap(S, esr("IABT_LOW", 5), far=MMIO, hpfar=MMIO >> 8)
    told = user(exceptions.take_exception(S, 0x8600_0010, MMIO), 10)
    wrote = but(told.values, pstate=0x2C5)
    asked = (host_set("pstate", 0x2C5), did("serror"))
    taken = exceptions.take_exception(wrote, 0xBF00_0000, offset=exceptions.SERROR_OFFSET)
    for after, hcr, outcome in ((wrote, exceptions.HCR_VSE, "inject"), (taken, 0, USER_INJECTED)):
        done = turn(out, told, *asked, entry(after, hcr=hcr))
        assert (done.action.outcome, differs(done)) == (outcome, {})
    assert "host.pc" in differs(turn(out, told, *asked, entry(wrote))), "neither"
    # Where another one pends, the syndrome decides.
    done = turn(out._replace(hcr=exceptions.HCR_VSE), told, *asked, entry(taken, hcr=exceptions.HCR_VSE))
    assert (done.action.outcome, differs(done)) == (USER_INJECTED, {})


def test_an_serror_that_is_taken_before_the_first_instruction() -> None:
    """From 6.17 on; the vCPU has no exit yet that could show it."""
    reset = {INDEX[name]: value for name, value in RESET_VALUES.items()} | {INDEX["vbar_el1"]: VECTORS.base}
    started = but(tuple(reset.get(i, S[i]) for i in range(len(S))), pstate=exceptions.EL1T)
    hosts = (host_set("vbar_el1", VECTORS.base), host_set("pstate", exceptions.EL1T), did("serror"))
    taken = exceptions.take_exception(started, 0xBF00_0000, offset=exceptions.SERROR_OFFSET)
    done = turn(*hosts, entry(taken))
    assert (done.action.outcome, differs(done)) == (USER_INJECTED, {})
    waits = turn(*hosts, entry(started, hcr=exceptions.HCR_VSE))
    assert (waits.action.outcome, differs(waits)) == ("resume", {})
    assert "host.hcr_el2" in differs(turn(*hosts, entry(started))), "lost"


def test_what_userspace_writes_behind_an_serror_and_a_finished_access() -> None:
    unmasked = but(S, pstate=exceptions.EL1T)
    out, told = LOAD._replace(values=unmasked), user(unmasked, 6)
    taken = exceptions.take_exception(but(unmasked, pc=AT + 4, x3=0), 0xBF00_0000, offset=exceptions.SERROR_OFFSET)
    hosts = (did("serror"), did("finish"), host_set("pstate", 0))
    for after, found in ((but(taken, pstate=0), set()), (taken, {"host.pstate"})):
        assert set(differs(turn(out, told, *hosts, entry(after)))) == found


def test_of_two_serrors_the_second_pends_where_the_first_was_taken() -> None:
    unmasked = but(S, pstate=exceptions.EL1T)
    exit_, told = trap(unmasked, esr("WFX")), user(but(unmasked, pc=AT + 4), 10)
    asked = (did("serror"), did("serror"))
    taken = exceptions.take_exception(told.values, 0xBF00_0000, offset=exceptions.SERROR_OFFSET)
    assert not differs(turn(exit_, told, *asked, entry(taken, hcr=exceptions.HCR_VSE)))
    assert not differs(turn(exit_, told, *asked, entry(told.values, hcr=exceptions.HCR_VSE))), "both pend, as one"
    wrong = but(taken, pc=taken[exceptions.PC] + 4)
    assert "host.pc" in differs(turn(exit_, told, *asked, entry(wrong, hcr=exceptions.HCR_VSE)))


def test_an_serror_before_userspace_finished_an_access() -> None:
    """The access comes first, whether the SError pends or is taken at once; an older one may still pend."""
    unmasked = but(S, pstate=0x2C5)
    out, told, asked = LOAD._replace(values=unmasked), user(unmasked, 6), did("serror")
    done = but(unmasked, x3=0x55, pc=AT + 4)
    taken = but(exceptions.take_exception(done, offset=exceptions.SERROR_OFFSET), esr_el1=0xBF00_0000)
    undone = but(exceptions.take_exception(unmasked, offset=exceptions.SERROR_OFFSET), esr_el1=0xBF00_0000)
    older = out._replace(hcr=exceptions.HCR_VSE)
    for exit_, hcr in ((out, 0), (older, exceptions.HCR_VSE)):
        assert not differs(turn(exit_, told, asked, entry(taken, mmio_data=0x55, hcr=hcr)))
        left = turn(exit_, told, asked, entry(undone, mmio_data=0x55, hcr=hcr))
        assert differs(left) == {"host.x3": (0x55, S[3]), "host.elr_el1": (AT + 4, AT)}, "7.3"
    pending = but(unmasked, x3=0x55)
    assert not differs(turn(out, told, asked, entry(pending, SKIP, mmio_data=0x55, hcr=exceptions.HCR_VSE))), (
        "up to 6.12"
    )


def test_an_serror_behind_an_access_that_kvm_emulated() -> None:
    number = next(i for i, world in enumerate(WORLDS) if world.gic)
    marks = number << FLAGS_VCPU_SHIFT
    unmasked = but(S, pstate=0x2C5, x3=0)
    at = {"far": GICD.base, "hpfar": GICD.base >> 12 << 4, "marks": marks}
    out, behind = trap(unmasked, load_esr(3, 4), **at), but(unmasked, pc=AT + 4, x3=0x7)
    taken = but(exceptions.take_exception(behind, offset=exceptions.SERROR_OFFSET), esr_el1=0xBF00_0000)
    done = turn(
        out,
        user(behind, 10, marks=marks),
        did("serror", context=number),
        entry(taken, marks=marks, mmio_addr=GICD.base, mmio_data=0x7),
    )
    assert done.in_kernel and done.action.outcome == USER_INJECTED
    assert not differs(done)


def test_what_is_written_while_an_exception_pends() -> None:
    """A register that the exception does not touch must be as written; one that it touches may be replaced, or not."""
    told, pending = user(S, 6), but(S, esr_el1=0x9600_0010, far_el1=MMIO, x7=1)
    assert not differs(turn(LOAD, told, did("abort"), host_set("x7", 1), entry(pending, EXCEPTION)))
    assert differs(turn(LOAD, told, did("abort"), host_set("x7", 2), entry(pending, EXCEPTION))) == {"host.x7": (2, 1)}
    for esr_el1, wrong in ((0x9600_0010, False), (0x77, False), (0x78, True)):
        after = but(pending, x7=S[7], esr_el1=esr_el1)
        done = turn(LOAD, told, did("abort"), host_set("esr_el1", 0x77), entry(after, EXCEPTION))
        assert ("host.esr_el1" in differs(done)) == wrong, "there before the write, or put there when it is entered"
        spsr = turn(LOAD, told, did("abort"), host_set("esr_el1", 0x77), entry(but(after, spsr_el1=1), EXCEPTION))
        assert "host.spsr_el1" not in differs(spsr), "entry to the exception writes that"
    moved = turn(LOAD, told, did("abort"), host_set("pc", 0x44), entry(but(pending, x7=S[7], pc=0x44), EXCEPTION))
    assert not differs(moved), "it is entered from where userspace put the guest meanwhile"


@pytest.mark.parametrize(
    ("vbar", "errata", "offset", "is_wrong"),
    [
        (0x4000_0000, (), 0, False),
        (0x4000_0000, (), 4, True),
        (0x4000_0000, (ABORTED_COMPLETES,), 4, False),
        (0x4000_0000, (ABORTED_COMPLETES,), 8, True),
        (S[exceptions.VBAR], (), 0, False),
        (S[exceptions.VBAR], (), 4, True),
        (S[exceptions.VBAR], (ABORTED_COMPLETES,), 4, True),  # an abort that is taken at once leaves no access
    ],
)
def test_vectors_that_move_while_an_abort_is_pending(
    vbar: int, errata: tuple[str, ...], offset: int, is_wrong: bool
) -> None:
    """KVM_SET_VCPU_EVENTS may enter it by the old ones, KVM_RUN by the new ones: KVM API 4.32 does not say which."""
    vector = exceptions.vector(vbar, S[exceptions.PSTATE])
    after = but(aborted(), pc=vector + offset, vbar_el1=0x4000_0000)
    moved = host_set("vbar_el1", 0x4000_0000)
    round_ = turn(LOAD, user(S, 6), did("abort"), moved, did("finish"), entry(after))
    found = {
        one.name for one in compare_entry_state(round_, {}, None, frozenset(errata)) if isinstance(one, Divergence)
    }
    assert found & {"host.pc"} == ({"host.pc"} if is_wrong else set())


@pytest.mark.parametrize("runs", [1, 2])
def test_an_abort_whose_access_completes_all_the_same(runs: int) -> None:
    """Up to 6.12: what is wrong is where PC is; that there was an exception is not in doubt."""
    wrong = but(aborted(), pc=exceptions.vector(S[exceptions.VBAR], S[exceptions.PSTATE]) + 4)
    events = (LOAD, user(S, 6), did("abort"), *[did("finish")] * runs, entry(wrong))
    done = turn(*events)
    assert done.action.inject and done.action.outcome == "inject"
    assert differs(done).keys() == {"host.pc"}


def test_two_aborts_before_a_run_are_one_or_two() -> None:
    told, nested = user(S, 6), exceptions.take_exception(aborted(), 0x9600_0010, MMIO)
    pending = but(S, esr_el1=0x9600_0010, far_el1=MMIO)
    once = turn(LOAD, told, did("abort"), did("abort"), entry(pending, EXCEPTION))
    assert not differs(once), "6.1 keeps one pending"
    twice = turn(LOAD, told, did("abort"), did("abort"), entry(nested))
    assert not differs(twice), "7.3 takes each at once"
    assert (twice.action.outcome, twice.action.inject) == (USER_INJECTED, True)
    between = turn(LOAD, told, did("abort"), did("finish"), did("abort"), entry(aborted()))
    assert "host.elr_el1" in differs(between), "a run between: the first was taken"
    assert "host.elr_el1" in differs(turn(LOAD, told, did("abort"), entry(nested))), "one is not two"


def test_an_serror_that_is_taken_at_once_says_nothing_of_the_exit() -> None:
    """On 6.17 and later; what KVM gives the guest for an exit of its own is an outcome as before."""
    unmasked = but(S, pstate=exceptions.EL1T, x1=0, x2=0, x3=0)
    exit_ = trap(unmasked, esr("HVC64"))
    taken = but(
        exceptions.take_exception(unmasked, offset=exceptions.SERROR_OFFSET), x0=NOT_SUPPORTED, esr_el1=0xBF00_0000
    )
    done = turn(exit_, user(but(unmasked, x0=NOT_SUPPORTED), 10), did("serror"), entry(taken))
    assert done.action.outcome == USER_INJECTED
    assert not differs(done)
    outside = trap(S, esr("IABT_LOW", 5), far=0x5000_0000, hpfar=0x5000_0000 >> 12 << 4)
    given = exceptions.take_exception(S, 0x8600_0010, 0x5000_0000)
    masked = turn(outside, user(given, 10), did("serror"), entry(given, hcr=exceptions.HCR_VSE))
    assert masked.action.outcome == "inject"


def test_an_serror_that_is_taken_at_once_behind_an_instruction_that_kvm_did() -> None:
    """KVM_RUN moves PC on for a WFI before it returns, the SError is taken from the next instruction."""
    unmasked = but(S, pstate=0)
    exit_, told = trap(unmasked, esr("WFX")), user(unmasked, 10)
    taken = but(
        exceptions.take_exception(but(unmasked, pc=AT + 4), offset=exceptions.SERROR_OFFSET), esr_el1=0xBF00_0000
    )
    done = turn(exit_, told, did("serror"), entry(taken))
    assert (done.action.outcome, differs(done)) == (USER_INJECTED, {})
    assert "host.elr_el1" in differs(turn(exit_, told, did("serror"), entry(but(taken, elr_el1=AT + 8))))


def test_registers_written_after_an_exception_that_was_taken_at_once() -> None:
    told, wrote = user(S, 6), host_set("elr_el1", 0x44)
    done = turn(LOAD, told, did("abort"), wrote, entry(but(aborted(), elr_el1=0x44)))
    assert (done.action.outcome, differs(done)) == ("inject", {})
    assert "host.elr_el1" in differs(turn(LOAD, told, did("abort"), wrote, entry(aborted())))
    finish = did("finish")
    late = turn(LOAD, told, finish, did("abort"), wrote, entry(but(aborted(), elr_el1=0x45)))
    assert "host.elr_el1" in differs(late), "a run before that says nothing"
    unknown = turn(LOAD, told, did("abort"), wrote, finish, entry(aborted()))
    assert not differs(unknown), "a run after it: it may have pended until then"
    pending = but(S, esr_el1=0x9600_0010, far_el1=MMIO, elr_el1=0x44)
    assert not differs(turn(LOAD, told, did("abort"), wrote, entry(pending, EXCEPTION))), "not judged where it pends"


def test_all_that_says_where_from_is_overwritten_behind_an_exception() -> None:
    """ESR_EL1 still has the class of the exception that userspace asked for."""
    hosts = (did("abort"), host_set("pc", 0), host_set("spsr_el1", 0))
    elsewhere = turn(LOAD, user(S, 6), *hosts, entry(but(aborted(), pc=0, spsr_el1=0)))
    assert elsewhere.action.inject and not differs(elsewhere)
    lost = turn(LOAD, user(S, 6), *hosts, entry(but(S, pc=0, spsr_el1=0)))
    assert {"host.esr_el1", "host.far_el1", "host.elr_el1"} <= set(differs(lost)), "KVM accepted it"


def test_aarch32_state_narrows_each_of_several_results() -> None:
    version = trap(but(S, x0=0x8400_0000), esr("HVC64"))
    for x0, wrong in ((0x1_0001, False), (0x1_0003, False), (0x7, True)):
        round_ = turn(version, host_set("pstate", 0x10), entry(but(S, x0=x0, pstate=0x10)))
        assert ("host.x0" in differs(round_)) == wrong


def test_a_fetch_from_a_vector_in_a_slot_is_no_exception() -> None:
    vector = VECTORS.base + 0x200
    there = but(S, pc=vector, elr_el1=vector, vbar_el1=VECTORS.base)
    first = trap(there, esr("IABT_LOW", 7), far=vector, hpfar=vector >> 12 << 4)
    assert turn(first, user(there, 10), entry(there)).action.outcome == "resume"
    nowhere = but(S, pc=0x5000_0200, elr_el1=0x5000_0200, vbar_el1=0x5000_0000)
    again = trap(nowhere, esr("IABT_LOW", 7), far=0x5000_0200, hpfar=0x5000_0200 >> 12 << 4)
    assert turn(again, user(nowhere, 10), entry(nowhere)).action.outcome == "inject", "it faults into itself"


def test_the_byte_order_of_an_access_may_change_while_it_is_pending() -> None:
    """Which one it completes in is not specified; any other order is wrong."""
    load, told = trap(S, load_esr(3, 2), **PAGE), user(S, 6)
    swapped = host_set("sctlr_el1", 1 << 25)
    for data, found in ((0x1234, {}), (0x3412, {}), (0x1243, {"host.x3": (0x1234, 0x1243)})):
        after = but(S, sctlr_el1=1 << 25, x3=data)
        assert differs(turn(load, told, swapped, entry(after, SKIP, mmio_data=0x1234))) == found
    assert differs(turn(load, told, entry(but(S, x3=0x3412), SKIP, mmio_data=0x1234)))


def test_what_is_finished_early_completes_once() -> None:
    told, moved = user(S, 6), but(S, x3=0x77, pc=AT + 4)
    data = {"mmio_data": 0x77}
    assert not differs(turn(LOAD, told, did("finish"), entry(moved, **data)))
    assert not differs(turn(LOAD, told, did("finish"), host_set("x3", 5), entry(but(moved, x3=5), **data)))
    twice = turn(LOAD, told, did("finish"), entry(but(moved, pc=AT + 8), **data))
    assert differs(twice) == {"host.pc": (AT + 4, AT + 8)}
    assert twice.action.skip is False, "PC is not where one step leads"


def test_a_number_that_looks_like_a_register_is_no_write() -> None:
    """The data of ``complete`` may be any number, also the id of a register."""
    name = host_set("x9", 0)
    done = but(S, x3=name.a)
    assert not differs(turn(LOAD, user(S, 6), did("complete", name.a), entry(done, SKIP, mmio_data=name.a)))


@pytest.mark.parametrize(
    ("hosts", "before", "after", "required"),
    [
        ([did("serror")], 0, exceptions.HCR_VSE, None),
        ([did("serror")], 0, 0, exceptions.HCR_VSE),
        ([did("serror", error=22)], 0, exceptions.HCR_VSE, 0),
        ([did("irq_line", 0, 1)], 0, exceptions.HCR_VI, None),
        ([did("irq_line", 1, 1)], 0, exceptions.HCR_VI, exceptions.HCR_VF),
        ([did("irq_line", 0, 1), did("irq_line", 0, 0)], exceptions.HCR_VF, exceptions.HCR_VF, None),
        ([did("serror"), host_reset()], 0, exceptions.HCR_VSE, 0),
        ([host_reset()], exceptions.HCR_VI, exceptions.HCR_VI, None),
        ([], exceptions.HCR_VSE, 0, exceptions.HCR_VSE),
    ],
)
def test_virtual_interrupts_owed(hosts: list[Host], before: int, after: int, required: int | None) -> None:
    """Pending until taken; lines as they were set last; a line outlives a reset or not, an SError does not."""
    done = turn(trap(S, esr("HVC64"), hcr=before), *hosts, entry(S, hcr=after))
    found = differs(done).get("host.hcr_el2")
    assert found == (None if required is None else (required, after))


def test_a_secure_call() -> None:
    called = but(S, x0=0x8400_0000, x1=1)
    behind = but(called, pc=AT + 4)
    refused = but(behind, x0=NOT_SUPPORTED)
    answered = but(behind, x0=0x10001, x1=0, x2=0, x3=0)
    for result in (refused, answered):
        assert not differs(turn(trap(called, esr("SMC64")), entry(result))), "6.1 refuses, 6.4 answers immediate 0"
    assert differs(turn(trap(called, esr("SMC64", 1)), entry(answered))).keys() == {
        *("host.x0", "host.x1", "host.x2", "host.x3"),
    }
    assert differs(turn(trap(called, esr("SMC64")), entry(but(refused, pc=AT)))) == {"host.pc": (AT + 4, AT)}


def sys64(op: tuple[int, int, int, int, int], rt: int, read: int) -> int:
    op0, op1, crn, crm, op2 = op
    return esr("SYS64", op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | read)


def test_system_registers() -> None:
    moved = but(S, pc=AT + 4)
    write = trap(S, sys64((3, 0, 13, 0, 1), 5, 0))
    assert not differs(turn(write, entry(but(moved, contextidr_el1=S[5]))))
    assert differs(turn(write, entry(moved))) == {"host.contextidr_el1": (S[5], 0)}
    reserved = trap(S, sys64((3, 0, 0, 7, 7), 5, 1))
    assert not differs(turn(reserved, entry(but(moved, x5=0))))
    assert differs(turn(reserved, entry(but(moved, x5=1)))) == {"host.x5": (0, 1)}
    id_register = trap(S, sys64((3, 0, 0, 4, 0), 5, 1))
    assert not differs(turn(id_register, entry(but(moved, x5=0x1234))))
    assert not differs(turn(trap(S, sys64((3, 0, 0, 4, 0), 31, 1)), entry(moved))), "into XZR"
    counter = trap(S, sys64((3, 3, 9, 13, 0), 5, 1))
    undefined = but(S, esr_el1=0x200_0000)
    assert not differs(turn(counter, entry(undefined, EXCEPTION)))
    assert "host.pc" in differs(turn(counter, entry(but(moved, x5=0)))), "there is no PMU"


def test_an_abort_for_an_address_beyond_the_vms_has_the_virtual_one() -> None:
    """Which fault it is is not specified; where the guest was and what it touched is certain (Arm ARM D17.2.40)."""
    out = trap(S, load_esr(3), far=0x8_0000_0100, hpfar=(1 << 40) >> 12 << 4)
    for syndrome in (0x9600_0010, 0x9600_0004):
        assert not differs(turn(out, entry(but(S, esr_el1=syndrome, far_el1=0x8_0000_0100), EXCEPTION)))
    wrong = turn(out, entry(but(S, esr_el1=0x9600_0010, far_el1=0x100_0000_0100), EXCEPTION))
    assert differs(wrong) == {"host.far_el1": (0x8_0000_0100, 0x100_0000_0100)}
    taken = turn(out, user(S, 6), entry(but(S, x3=7), SKIP))
    assert [type(one) for one in compare_entry_state(taken, {})] == [Unchecked], "a VM with more bits"


def test_an_access_without_a_syndrome_completes_never() -> None:
    pair = trap(S, esr("DABT_LOW", 5), **PAGE)
    failed = turn(pair, user(S, 0, error=38), entry(S))
    assert (failed.action.outcome, differs(failed)) == ("fail:ENOSYS", {})
    told = turn(pair, user(S, 28), entry(but(S, x0=1)))
    assert (told.action.outcome, differs(told)) == ("user:ARM_NISV", {"host.x0": (S[0], 1)})


def test_forged_exits_are_marked() -> None:
    forged = turn(trap(S, load_esr(3), marks=FORGED_ESR, **PAGE), user(S, 6), entry(but(S, x3=0), SKIP))
    assert (forged.exit_class, forged.label) == ("DABT_LOW", "forged:DABT_LOW")
    assert not why_not_comparable(forged)
    odd = turn(trap(S, esr("DABT_LOW", 0x10), marks=FORGED_ESR, **PAGE), entry(S))
    assert why_not_comparable(odd)
    for no_cpu in (load_esr(3, size=8, wide=False), load_esr(3) | 1 << 12):  # a doubleword in 32 bits; FEAT_LS64
        assert why_not_comparable(turn(trap(S, no_cpu, marks=FORGED_ESR, **PAGE), entry(S)))
    assert not why_not_comparable(turn(trap(S, esr("DABT_LOW", 0x10), **PAGE), entry(S))), "a real one is judged"


@pytest.mark.parametrize("bit", [0, 1 << 25])
def test_a_forged_syndrome_passes_its_il_on(bit: int) -> None:
    """KVM copies IL from the exit's syndrome, where A64 always has 1."""
    fetch = esr("IABT_LOW", 5) & ~(1 << 25) | bit
    where = {"far": 0x5000_0000, "hpfar": 0x5000_0000 >> 12 << 4}
    taken = exceptions.take_exception(S, 0x21 << 26 | bit | 0x10, 0x5000_0000)
    forged = turn(trap(S, fetch, marks=FORGED_ESR, **where), entry(taken))
    assert not differs(forged)
    real = turn(trap(S, fetch, **where), entry(taken))
    assert ("host.esr_el1" in differs(real)) == (bit == 0)


def test_what_the_host_sees() -> None:
    """PSCI_VERSION reveals x0; plain KVM shows all."""
    called = but(S, x0=0x8400_0000)
    done = turn(trap(called, esr("HVC64"), far=0), entry(called))
    assert done.exit is not None
    run = predict_run(GuestRun(0, entry(called), done.exit), GuestContext({}, cpu_model("cortex-a72"), Memory()))
    (found,) = compare_reveal(done, run, predict(done, "spec"))
    assert isinstance(found, Divergence)
    assert (found.expected, found.observed) == (1, (1 << 31) - 1)


@pytest.mark.parametrize(("mark", "visible"), [(0, 0x7FFF_FFFF), (PROTECTED << FLAGS_VCPU_SHIFT, 0x7FFF_FF7F)])
def test_what_the_host_sees_of_a_register_that_is_not_the_guests(mark: int, visible: int) -> None:
    """There is no second copy of a plain vCPU: that x7 is wrong is a matter of relation switch alone."""
    called = but(S, x0=0x8400_0000)
    loaded = entry(but(called, pc=AT), marks=mark)
    _, done = rounds((loaded, trap(but(called, x7=1, pc=AT + 4), esr("HVC64"), far=0, marks=mark), loaded))
    assert done.exit is not None
    run = predict_run(
        GuestRun(0, loaded, done.exit), GuestContext({AT: encode("hvc", 0)}, cpu_model("cortex-a72"), Memory())
    )
    *left_out, found = compare_reveal(done, run, predict(done, "spec"))
    assert isinstance(found, Divergence) and found.observed == visible
    assert len(left_out) == (not mark), "counted"


def test_what_the_host_sees_after_a_race() -> None:
    """The guest may have taken its interrupt before the host's came, or not: nothing can be said."""
    before = but(S, pstate=S[INDEX["pstate"]] & ~exceptions.DAIF, x0=1)
    done = turn(irq(but(before, x0=2)), entry(but(before, x0=2)))
    assert done.exit is not None
    run = predict_run(
        GuestRun(0, entry(before, hcr=exceptions.HCR_VI), done.exit),
        GuestContext({}, cpu_model("cortex-a72"), Memory()),
    )
    assert list(compare_reveal(done, run, predict(done, "spec"))) == [Unchecked("save.reveal", RACE)]


def two(*events: Event) -> list[Round]:
    return [r for r in rounds(events) if r.entry.context == 2]


def of(context: int, *events: Event) -> list[Event]:
    """The same events of another vCPU."""
    return [e._replace(context=context) if isinstance(e, Host) else e._replace(marks=context << 8) for e in events]


@pytest.mark.parametrize(("ec", "starts"), [("HVC64", True), ("HVC32", True), ("SMC32", True), ("WFX", False)])
def test_a_forged_call_starts_another_vcpu(ec: str, starts: bool) -> None:
    call = but(S, x0=0xC400_0003, x1=1, x2=AT + 0x40, x3=7)
    forged = trap(call, esr(ec), marks=FORGED_ESR | 1 << 8)
    done = user(but(call, x0=0), 10, marks=1 << 8)
    *_, last = two(*of(2, entry(S), trap(S, esr("HVC64"))), *of(1, entry(call)), forged, done, *of(2, entry(S)))
    assert last.reset == starts


def test_each_vcpu_has_rounds_of_its_own() -> None:
    other = but(S, x5=0x99)
    events = (
        *of(1, entry(S), trap(S, esr("HVC64")), user(S, 10)),
        *of(2, entry(other), trap(other, esr("HVC64")), user(other, 10)),
        *of(1, entry(S)),
        *of(2, host_set("x6", 1), entry(but(other, x6=1, x7=2))),
    )
    first, again = two(*events)
    assert (first.exit, again.other_vcpu_ran) == (None, True)
    assert again.exit is not None
    assert again.exit.values == other
    assert again.world.vcpu == 1
    assert [(d.name, d.expected, d.observed) for d in compare_isolation(again)] == [("isolate.x7", other[7], 2)]


@pytest.mark.parametrize(("pstate", "found"), [(0x10, []), (0x3C0, ["isolate.x7"])])
def test_what_aarch32_state_drops_no_other_vcpu_has_touched(pstate: int, found: list[str]) -> None:
    wide, narrow = but(S, x7=1 << 32 | 5), but(S, x7=5, pstate=pstate)
    *_, again = two(
        *of(2, entry(wide), trap(wide, esr("HVC64")), user(wide, EXIT_INTR)),
        *of(1, entry(S)),
        *of(2, host_set("pstate", pstate), entry(narrow)),
    )
    assert [d.name for d in compare_isolation(again)] == found


def test_what_userspace_asks_for_no_other_vcpu_has_done() -> None:
    unmasked = but(S, pstate=exceptions.EL1T)
    taken = exceptions.take_exception(unmasked, 0xBF00_0000, offset=exceptions.SERROR_OFFSET)
    before = (*of(2, entry(unmasked), trap(unmasked, esr("HVC64")), user(unmasked, EXIT_INTR)), *of(1, entry(S)))
    for asked, found in ((of(2, did("serror")), set()), ([], {"pc", "pstate", "elr_el1", "spsr_el1", "esr_el1"})):
        *_, again = two(*before, *asked, *of(2, entry(taken)))
        assert {d.register for d in compare_isolation(again)} == found


@pytest.mark.parametrize("answer", [0, NOT_SUPPORTED])
def test_a_vcpu_that_is_called_on_starts_anew(answer: int) -> None:
    caller = but(S, x0=0xC400_0003, x1=1, x2=AT + 0x4000, x3=0x77)
    asleep = but(S, x5=0x99, vbar_el1=VECTORS.base)
    events = (
        *of(2, entry(asleep), trap(asleep, esr("HVC64")), user(asleep, 10)),
        *of(1, entry(caller), trap(caller, esr("HVC64")), user(but(caller, x0=answer), 10)),
        *of(2, entry(asleep)),
    )
    *_, woken = two(*events)
    assert woken.reset == (answer == 0)
    if answer == 0:
        found = differs(woken)
        assert found["host.pc"] == (AT + 0x4000, AT)
        assert found["host.x0"][0] == 0x77
        assert found["host.x5"] == (0, 0x99)
        assert found["host.mpidr_el1"][0] == 0x8000_0001
        assert INDEX["pc"] in woken.host_wrote


@pytest.mark.parametrize("function", [0x8400_0002, 0x8400_0000])
@pytest.mark.parametrize("answer", [0, -4, NOT_SUPPORTED, None])
def test_a_call_of_which_the_host_overwrote_the_result(function: int, answer: int | None) -> None:
    """The module writes x0 before any other record shows what CPU_ON gave, and keeps what was there.

    Whether the other vCPU had turned itself off does not matter: the call may still be refused, and it may be
    off without a record that says so.  A trace from before the answer was kept proves neither outcome.
    """
    caller = but(S, x0=0xC400_0003, x1=1, x2=AT + 0x4000, x3=0x77)
    asleep = but(S, x0=function, x5=0x99)
    x0 = BY_NAME["x0"].one_reg
    kept = [] if answer is None else [Host(HOST, 0, protocol.OP_HELD, x0, answer % (1 << 64), 0, False, 1)]
    events = (
        *of(2, entry(asleep), trap(asleep, esr("HVC64")), user(asleep, EXIT_INTR)),
        *of(1, entry(S), trap(S, esr("HVC64")), user(S, EXIT_INTR)),
        *of(1, entry(caller), trap(caller, esr("HVC64"))),
        *(*kept, host_set("x0", 0)._replace(context=1)),
        *of(1, entry(but(caller, x0=0))),
        *of(2, entry(asleep), trap(asleep, esr("HVC64")), user(asleep, EXIT_INTR), entry(asleep)),
    )
    *_, woken, later = two(*events)
    assert woken.reset is (answer == 0) and bool(woken.host_actions) is (answer == 0)
    assert woken.unproven == (OVERWRITTEN if answer is None else "")
    assert (later.unproven, later.reset) == ("", False), "what was not known is seen at the entry"
    asked_for = [r for r in rounds(events) if r.entry.context == 1][-1]
    assert [h.op for h in asked_for.host_actions] == [protocol.OP_SET], "a record of what was there is no action"
    if answer == 0:
        assert differs(woken)["host.pc"] == (AT + 0x4000, AT)


def test_a_reset_by_userspace_ends_what_a_call_left_open() -> None:
    """Whatever CPU_ON did before, KVM_ARM_VCPU_INIT resets the vCPU."""
    caller = but(S, x0=0xC400_0003, x1=1, x2=AT + 0x4000, x3=0x77)
    call = of(1, entry(caller), trap(caller, esr("HVC64")), host_set("x0", 5), entry(but(caller, x0=5)))
    before = of(2, entry(S), trap(S, esr("HVC64")), user(S, EXIT_INTR))
    *_, last = two(*before, *call, *of(2, host_reset(), entry(S)))
    assert (last.unproven, last.reset) == ("", True)
    *_, last = two(*before, *of(2, host_reset()), *call, *of(2, entry(S)))
    assert (last.unproven, last.reset) == (OVERWRITTEN, True)


@pytest.mark.parametrize(("x3", "is_wrong"), [(0x1_0000_0000, False), (0, False), (1, True)])
def test_a_guest_in_aarch32_state_whose_abort_is_pending_has_32_bits(x3: int, is_wrong: bool) -> None:
    """What userspace writes to its registers may be cut (set_core_reg in arch/arm64/kvm/guest.c)."""
    aarch32 = but(S, pstate=exceptions.AARCH32, esr_el1=0x9200_0010)
    exit_ = trap(aarch32, load_esr(5), **page(MMIO))
    after = but(aarch32, x3=x3, esr_el1=0x9200_0010, far_el1=MMIO)
    done = turn(exit_, user(aarch32, 6), did("abort"), host_set("x3", 0x1_0000_0000), entry(after, EXCEPTION))
    assert ("host.x3" in differs(done)) == is_wrong


def test_an_access_of_16_bits_is_completed_two_bytes_on() -> None:
    """AArch32: ESR_EL2.IL says how long the instruction is."""
    thumb = but(S, pstate=exceptions.AARCH32 | exceptions.THUMB)
    exit_ = trap(thumb, load_esr(3) & ~IL_BIT, **page(MMIO))
    moved = but(thumb, x3=0x55, pc=thumb[exceptions.PC] + 2)
    assert not differs(turn(exit_, user(thumb, 6), entry(moved, mmio_data=0x55)))
    assert "host.pc" in differs(turn(exit_, user(thumb, 6), entry(but(moved, pc=S[exceptions.PC] + 4), mmio_data=0x55)))
