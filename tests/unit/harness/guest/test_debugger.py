# SPDX-License-Identifier: Apache-2.0
"""A guest that userspace debugs: where it stops, what it must have, whose PSTATE.SS and MDSCR_EL1 a record has."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX, MASK64
from harness.guest.context import GuestContext
from harness.guest.debugger import Debugger
from harness.guest.memory import Memory
from harness.guest.predict_run import predict_run
from harness.layout import CODE, DATA
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.guest_debug import compare_debugged
from harness.relations.host import compare_entry_state
from harness.relations.switch import compare_run
from harness.scenario.agent_operations import host_arguments
from harness.scenario.scenario import parse
from harness.trace.debug_state import undo_debug_state
from harness.trace.events import HOST, Event, Host, Switch
from harness.trace.rounds import GuestRun, Round
from tests.support.traces import (
    MMIO_EXIT,
    SKIP,
    but,
    entry,
    esr,
    host_set,
    irq,
    load_esr,
    rounds,
    runs,
    state,
    trap,
    turn,
    user,
)

AT = CODE.base
DEBUGGED = protocol.DEBUG["debugged"]
STEPPED = DEBUGGED | protocol.DEBUG["stepped"]
S = state(sctlr_el1=1 << 23, x1=DATA.base)
STEP_ESR = esr("SOFTSTP_LOW", 0x100_0022)
PENDING_ESR = esr("SOFTSTP_LOW", 0x22)
MOV, HVC, BRK = encode("mov", "x4", "x5"), encode("hvc", 0), encode("brk", 7)
LDR, STRB = encode("ldr", "x6", "x1", 0), encode("strb", "w6", "x1", 9)
CPU = cpu_model("cortex-a72")
EXIT_DEBUG = 4


def asked(line: str, error: int = 0) -> Host:
    """What the agent records for a step of userspace's."""
    (step,) = parse(f"shadowfuzz-scenario 1\nabout A test.\n{line}\n").steps
    return Host(HOST, 0, protocol.OPS[step.kind][0], *host_arguments(step), error, True)


def debugger(*lines: str) -> Debugger:
    found = Debugger()
    for line in lines:
        found = found.after(asked(line))
    return found


def ss(values: exceptions.State) -> exceptions.State:
    return but(values, pstate=values[exceptions.PSTATE] | exceptions.SS)


def ran(found: Debugger, start: Switch, end: Switch, *words: int) -> list[str]:
    """The divergences of a run from entry to exit, with these instructions from the first on."""
    first = asked("debug step" if found.steps else "debug brk")
    (guest_run,) = runs((first, start, end))
    code = {AT + 4 * i: word for i, word in enumerate(words)}
    context = GuestContext(code, CPU, Memory(), debugger=found)
    run = predict_run(guest_run, context)
    return [d.name for d in compare_run(run, context) if isinstance(d, Divergence)]


def test_what_stays_set_and_what_ends_all() -> None:
    found = debugger("debug step_brk", "breakpoint 1 0x40000010 el0", "watchpoint 0 0x40020000 4 store", "debug brk")
    assert (found.steps, found.takes_brk) == (False, True)
    assert found.breaks_at(AT + 16, at_el0=True)
    assert not found.breaks_at(AT + 16, at_el0=False)
    assert found.after(asked("breakpoint 1 0x40000010 off")).breakpoints == {}
    assert found.after(asked("debug off")) == Debugger()


@pytest.mark.parametrize(
    ("address", "size", "is_store", "hit"),
    [
        (DATA.base, 8, True, (DATA.base, DATA.base + 3)),
        (DATA.base + 3, 1, True, (DATA.base + 3, DATA.base + 3)),
        (DATA.base - 8, 16, True, (DATA.base, DATA.base + 3)),
        (DATA.base + 4, 4, True, None),
        (DATA.base - 8, 8, True, None),
        (DATA.base, 8, False, None),
    ],
)
def test_what_a_watchpoint_is_hit_by(address: int, size: int, is_store: bool, hit: tuple[int, int] | None) -> None:
    assert debugger("watchpoint 2 0x40020000 4 store").watched(address, size, is_store) == hit


STEPS = debugger("debug step")
AFTER_MOV = but(S, pc=AT + 4, x4=S[5])
NEXT = but(AFTER_MOV, pc=AT + 8)


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (entry(ss(S), marks=STEPPED), trap(AFTER_MOV, STEP_ESR, marks=STEPPED), []),
        (entry(ss(S), marks=STEPPED), trap(NEXT, STEP_ESR, marks=STEPPED), ["switch.pc"]),
        (entry(ss(S), marks=STEPPED), trap(S, PENDING_ESR, marks=STEPPED), ["switch.pc"]),
        (entry(ss(S), marks=STEPPED), trap(AFTER_MOV, PENDING_ESR, marks=STEPPED), ["switch.esr_el2"]),
        (entry(S, marks=STEPPED), trap(S, PENDING_ESR, marks=STEPPED), []),
        (entry(S, marks=STEPPED), trap(AFTER_MOV, STEP_ESR, marks=STEPPED), ["switch.pc"]),
        (entry(ss(S), SKIP, marks=STEPPED), trap(but(S, pc=AT + 4), PENDING_ESR, marks=STEPPED), []),
        (entry(ss(S), marks=STEPPED), irq(ss(S), marks=STEPPED), []),
        (entry(ss(S), marks=STEPPED), trap(but(AFTER_MOV, pc=AT + 12), esr("HVC64"), marks=STEPPED), ["switch.pc"]),
    ],
    ids=["one", "two", "none", "syndrome", "pending", "missed", "emulated", "interrupt", "trap"],
)
def test_a_step_is_one_instruction(start: Switch, end: Switch, shown: list[str]) -> None:
    assert ran(STEPS, start, end, MOV, MOV, HVC) == shown


@pytest.mark.parametrize(
    ("lines", "word", "syndrome", "shown"),
    [
        (["debug brk"], BRK, esr("BRK64", 7), []),
        (["debug brk"], BRK, esr("BRK64", 8), ["switch.esr_el2"]),
        (["breakpoint 0 0x40000000 el1"], MOV, esr("BREAKPT_LOW", 0x22), []),
        (["breakpoint 0 0x40000000 el0"], MOV, esr("BREAKPT_LOW", 0x22), ["switch.esr_el2"]),
        (["breakpoint 0 0x40000004 el1"], MOV, esr("BREAKPT_LOW", 0x22), ["switch.esr_el2"]),
        (["watchpoint 0 0x40020000 8 load"], LDR, esr("WATCHPT_LOW", 0x22), []),
        (["watchpoint 0 0x40020000 8 load"], LDR, esr("WATCHPT_LOW", 0x62), ["switch.esr_el2"]),
        (["watchpoint 0 0x40020000 8 store"], LDR, esr("WATCHPT_LOW", 0x22), ["switch.esr_el2"]),
    ],
)
def test_a_stop_is_where_userspace_wants_it(lines: list[str], word: int, syndrome: int, shown: list[str]) -> None:
    stop = trap(S, syndrome, marks=DEBUGGED, far=DATA.base)
    assert ran(debugger(*lines), entry(S, marks=DEBUGGED), stop, word) == shown


def test_a_watchpoint_tells_an_address_that_is_watched_and_accessed() -> None:
    found = debugger("watchpoint 0 0x40020008 4 any")
    for far, shown in ((DATA.base + 9, []), (DATA.base + 8, ["switch.far_el2"]), (DATA.base + 12, ["switch.far_el2"])):
        stop = trap(S, esr("WATCHPT_LOW", 0x62), marks=DEBUGGED, far=far)
        assert ran(found, entry(S, marks=DEBUGGED), stop, STRB) == shown


def test_what_hits_where_an_access_is_not_aligned_is_not_judged() -> None:
    odd = but(S, x1=DATA.base + 1)
    stop = trap(odd, esr("WATCHPT_LOW", 0x22), marks=DEBUGGED, far=DATA.base)
    assert ran(debugger("watchpoint 0 0x40020000 1 any"), entry(odd, marks=DEBUGGED), stop, LDR) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["debug brk"], (BRK, HVC)),
        (["breakpoint 0 0x40000000 any"], (MOV, HVC)),
        (["watchpoint 0 0x40020000 8 any"], (LDR, HVC)),
    ],
)
def test_a_stop_that_is_missed_is_seen(lines: list[str], words: tuple[int, ...]) -> None:
    call = trap(but(S, pc=AT + 8), esr("HVC64"), marks=DEBUGGED)
    assert ran(debugger(*lines), entry(S, marks=DEBUGGED), call, *words) == ["switch.pc"]
    assert "switch.pc" not in ran(Debugger(), entry(S, marks=DEBUGGED), call, MOV, HVC)


def test_a_store_that_a_watchpoint_stops_may_have_been_made_in_part() -> None:
    """QEMU stores the first half of a pair before it looks at the second."""
    memory = Memory({AT: encode("stp", "x4", "x5", "x1", 0)})
    memory.write(DATA.base, 1)
    stop = trap(S, esr("WATCHPT_LOW", 0x62), marks=DEBUGGED, far=DATA.base + 8)
    code = {AT: encode("stp", "x4", "x5", "x1", 0)}
    found = debugger("watchpoint 0 0x40020008 8 store")
    context = GuestContext(code, CPU, memory, debugger=found)
    assert predict_run(GuestRun(1, entry(S, marks=DEBUGGED), stop), context).path.state == S
    assert (memory.read(DATA.base), memory.read(DATA.base + 16)) == (None, 0)


def test_a_fault_inside_a_step_and_a_call_without_tables_are_steps_too() -> None:
    vector = exceptions.take_exception(S, esr("UNKNOWN"))
    faulted = trap(vector, PENDING_ESR, marks=STEPPED)
    assert ran(STEPS, entry(ss(S), marks=STEPPED), faulted, encode("udf", 0)) == []
    translated = but(S, sctlr_el1=1 << 23 | exceptions.SCTLR_M)
    called = trap(but(translated, pc=AT + 4), esr("HVC64"), marks=STEPPED)
    assert ran(STEPS, entry(ss(translated), marks=STEPPED), called, HVC) == []


def test_an_exception_return_while_stepped() -> None:
    """SPSR_EL1.SS is the guest's own step, which is off."""
    start = but(S, elr_el1=AT + 0x40, spsr_el1=S[exceptions.PSTATE] | exceptions.SS)
    end = but(start, pc=AT + 0x40)
    assert ran(STEPS, entry(ss(start), marks=STEPPED), trap(end, PENDING_ESR, marks=STEPPED), encode("eret")) == []


def test_an_exception_that_kvm_injects_shows_the_step() -> None:
    aborted = trap(S, esr("IABT_LOW", 5), far=AT, hpfar=0x9000000 >> 12 << 4, marks=STEPPED)
    taken = exceptions.take_exception(S, 0x8600_0010, AT)
    at_once = user(but(taken, spsr_el1=taken[exceptions.SPSR] | exceptions.SS), 10, error=4, marks=STEPPED)
    done = stepping(aborted, at_once, entry(ss(at_once.values), marks=STEPPED))
    assert done.action.inject
    assert differs(done) == set()
    wrong = but(at_once.values, spsr_el1=taken[exceptions.SPSR] ^ exceptions.PAN)
    assert differs(stepping(aborted, at_once._replace(values=wrong), entry(ss(wrong), marks=STEPPED))) == {
        "host.spsr_el1"
    }


def test_an_serror_that_is_taken_at_once_after_userspace_moved_pc() -> None:
    start = but(S, pstate=0x2C5)  # PSTATE.A clear
    stopped, told = trap(start, STEP_ESR, marks=STEPPED), user(start, EXIT_DEBUG, mmio_addr=STEP_ESR, marks=STEPPED)
    at = but(start, pc=AT + 8)
    taken = but(exceptions.take_exception(at, offset=exceptions.SERROR_OFFSET), esr_el1=esr("SERROR"))
    serror = Host(HOST, 0, protocol.OPS["serror"][0], 0, 0, 0, True)
    done = stepping(stopped, told, host_set("pc", AT + 8), serror, entry(ss(taken), marks=STEPPED))
    assert done.action.inject
    assert differs(done) == set()


def differs(round_: Round) -> set[str]:
    found = (*compare_entry_state(round_, {}), *compare_debugged(round_))
    return {d.name for d in found if isinstance(d, Divergence)}


def test_a_stop_changes_nothing_and_userspace_is_told() -> None:
    stopped = trap(S, esr("BRK64", 7), marks=DEBUGGED)
    told = user(S, EXIT_DEBUG, mmio_addr=esr("BRK64", 7), marks=DEBUGGED)
    assert differs(turn(stopped, told, entry(S, marks=DEBUGGED))) == set()
    moved = turn(stopped, told, host_set("pc", AT + 4), entry(but(S, pc=AT + 4), marks=DEBUGGED))
    assert differs(moved) == set()
    assert differs(turn(stopped, told, entry(but(S, pc=AT + 4), marks=DEBUGGED))) == {"host.pc"}
    assert differs(turn(stopped, user(S, EXIT_DEBUG), entry(S, marks=DEBUGGED))) == {"host.debug_hsr"}
    assert differs(turn(stopped, entry(S, marks=DEBUGGED))) == {"host.exit_reason"}
    watched = trap(S, esr("WATCHPT_LOW", 0x22), marks=DEBUGGED, far=DATA.base)
    told = user(S, EXIT_DEBUG, mmio_addr=esr("WATCHPT_LOW", 0x22), mmio_data=DATA.base + 1, marks=DEBUGGED)
    assert differs(turn(watched, told, entry(S, marks=DEBUGGED))) == {"host.debug_far"}


def stepping(*events: Event) -> Round:
    """The last turn of a vCPU that userspace steps from the first one on."""
    return list(rounds((asked("debug step"), *events)))[-1]


@pytest.mark.parametrize(
    ("exit_", "begins"),
    [
        (trap(S, STEP_ESR, marks=STEPPED), True),
        (trap(S, esr("HVC64"), marks=STEPPED), False),
        (trap(S, load_esr(3), far=DATA.base, hpfar=DATA.base >> 12 << 4, marks=STEPPED), True),
        (trap(S, esr("HVC64")), True),
    ],
    ids=["next", "call", "mapped", "new"],
)
def test_a_step_begins_or_its_exception_is_pending(exit_: Switch, begins: bool) -> None:
    told = [user(S, EXIT_DEBUG, mmio_addr=STEP_ESR, marks=STEPPED)] if exit_.esr == STEP_ESR else []
    called = but(S, x0=MASK64, x1=0, x2=0, x3=0) if exit_.exit_class == "HVC64" else S
    right, wrong = (ss(called), called) if begins else (called, ss(called))
    assert "host.step_begins" not in differs(stepping(exit_, *told, entry(right, marks=STEPPED)))
    assert "host.step_begins" in differs(stepping(exit_, *told, entry(wrong, marks=STEPPED)))


def test_a_record_has_the_guests_own_registers() -> None:
    """Up to 6.12 KVM's own values are in entries, from 6.14 on in exits too; the guest's come back later."""
    lent = but(ss(S), mdscr_el1=0x8001)
    old = (asked("debug step"), entry(lent, marks=STEPPED), trap(S, STEP_ESR, marks=STEPPED), user(S, EXIT_DEBUG))
    new = (asked("debug step"), entry(ss(S), marks=STEPPED), trap(ss(S), esr("SMC64"), marks=STEPPED))
    for events in (old, new):
        own = [event for event in undo_debug_state(events) if isinstance(event, Switch)]
        assert {(e.values[exceptions.PSTATE], e.values[exceptions.MDSCR]) for e in own} == {(S[exceptions.PSTATE], 0)}
        assert own[0].marks == STEPPED | protocol.MARK_STEP_BEGINS
    assert undo_debug_state(old[1:]) == old[1:], "without debugging nothing is touched"


@pytest.mark.parametrize(("between", "left"), [((), True), (("finish",), False), (("abort", "finish"), False)])
def test_what_a_run_without_a_record_makes_of_the_guests_own_ss(between: tuple[str, ...], left: bool) -> None:
    """PSTATE.SS is set in an entry because userspace steps; the guest's own is gone after the finished access."""
    fault = trap(ss(S), load_esr(3), far=0x900_0000, hpfar=0x900_0000 >> 8, marks=STEPPED)
    told = user(ss(S), MMIO_EXIT, marks=DEBUGGED)
    events = (asked("debug step"), fault, told, *map(asked, between), entry(ss(but(S, pc=AT + 4)), marks=STEPPED))
    own = undo_debug_state(events)[-1]
    assert isinstance(own, Switch) and bool(own.values[exceptions.PSTATE] & exceptions.SS) == left
    for reason, ended in ((4, True), (MMIO_EXIT, False)):
        nothing = (asked("debug step"), fault, told._replace(code=reason), asked("finish"), events[-1])
        last = undo_debug_state(nothing)[-1]
        assert isinstance(last, Switch) and bool(last.values[exceptions.PSTATE] & exceptions.SS) == ended


def test_a_guests_own_step_waits_while_userspace_steps_it() -> None:
    """Since 6.14 KVM gives PSTATE.SS back as it was: after what it did for the guest, and after a finished access."""
    held = ss(S)
    stepped = trap(held, esr("WFX"), marks=STEPPED)
    for behind in (S, held):
        told = user(but(behind, pc=AT + 4), 10, marks=STEPPED)
        done = stepping(user(held, 10, marks=STEPPED), stepped, told, entry(but(S, pc=AT + 4), marks=STEPPED))
        found = {type(one) for one in compare_entry_state(done, {})}
        assert found == ({Unchecked} if behind == held else set())
    # Userspace may begin to step it after the access only.
    store = trap(S, load_esr(3, write=True), far=0x900_0000, hpfar=0x900_0000 >> 8)
    later = (asked("debug step"), host_set("pstate", held[exceptions.PSTATE]), asked("finish"))
    for waits, marks in ((True, STEPPED), (False, 0)):
        after = entry(but(held, pc=AT + 4), marks=marks)
        (*_, done) = rounds((entry(S), store, user(S, MMIO_EXIT), *later, after, user(held, 10, marks=marks)))
        found = {type(one) for one in compare_entry_state(done, {})}
        assert found == ({Unchecked} if waits else {Divergence})
    fault = trap(held, load_esr(3), far=0x900_0000, hpfar=0x900_0000 >> 8, marks=STEPPED)
    finished = (asked("debug step"), fault, user(held, MMIO_EXIT, marks=DEBUGGED), asked("finish"))
    stop = (entry(S, marks=STEPPED), trap(S, STEP_ESR, marks=STEPPED))
    own = undo_debug_state((*finished, *stop, user(held, EXIT_DEBUG, marks=STEPPED)))[len(finished) :]
    assert {bool(e.values[exceptions.PSTATE] & exceptions.SS) for e in own if isinstance(e, Switch)} == {True}


@pytest.mark.parametrize(("op", "offset"), [("abort", 0), ("serror 0x0", exceptions.SERROR_OFFSET)])
def test_an_exception_that_userspace_asked_for_ends_the_guests_own_step(op: str, offset: int) -> None:
    """KVM enters it outside the guest (from 6.17 on), before it puts the guest's own PSTATE.SS aside."""
    held = ss(S)
    taken = exceptions.take_exception(held, 0xBF00_0000, offset=offset)
    told = (asked("debug step"), trap(held, load_esr(3), marks=STEPPED), user(held, MMIO_EXIT, marks=STEPPED))
    for after, own in ((ss(taken), 0), (held, exceptions.SS)):
        last = undo_debug_state((*told, asked(op), entry(after, marks=STEPPED)))[-1]
        assert isinstance(last, Switch) and last.values[exceptions.PSTATE] & exceptions.SS == own


@pytest.mark.parametrize(("starts", "answer", "anew"), [(AT, 0, True), (AT + 8, 0, False), (AT, -4, False)])
def test_a_vcpu_that_is_called_on_has_no_step_of_its_own(starts: int, answer: int, anew: bool) -> None:
    """PSCI CPU_ON resets a vCPU whose own PSTATE.SS was put aside; it enters where the call says."""
    off, began = ss(but(S, x0=0x8400_0002)), ss(but(S, pc=AT, x0=7))
    call = but(S, x0=0xC400_0003, x1=1, x2=starts, x3=7)
    own = undo_debug_state(
        (
            *(asked("debug step")._replace(context=2), entry(off, marks=2 << 8 | STEPPED)),
            *(trap(off, esr("HVC64"), marks=2 << 8 | STEPPED), user(off, 10, marks=2 << 8 | STEPPED)),
            *(entry(S, marks=1 << 8), trap(call, esr("HVC64"), marks=1 << 8), _gave(call, answer)),
            entry(began, marks=2 << 8 | STEPPED),
        )
    )
    assert isinstance(own[-1], Switch) and bool(own[-1].values[exceptions.PSTATE] & exceptions.SS) != anew


@pytest.mark.parametrize(("starts", "anew"), [(AT, True), (AT + 8, False)])
def test_a_call_whose_answer_was_overwritten_may_have_succeeded(starts: int, anew: bool) -> None:
    """The module writes x0 before any record shows it; where the other vCPU enters decides."""
    began, call = ss(but(S, pc=AT, x0=7)), but(S, x0=0xC400_0003, x1=1, x2=starts, x3=7)
    own = undo_debug_state(
        (
            *(asked("debug step")._replace(context=2), entry(S, marks=2 << 8 | STEPPED)),
            *(trap(ss(S), esr("HVC64"), marks=2 << 8 | STEPPED), user(ss(S), 10, marks=2 << 8 | STEPPED)),
            *(entry(S, marks=1 << 8), trap(call, esr("HVC64"), marks=1 << 8)),
            *(host_set("x0", 0x55)._replace(context=1), entry(but(call, x0=0x55), marks=1 << 8)),
            entry(began, marks=2 << 8 | STEPPED),
        )
    )
    assert isinstance(own[-1], Switch) and bool(own[-1].values[exceptions.PSTATE] & exceptions.SS) != anew


@pytest.mark.parametrize(("answer", "anew"), [(0, True), (-4, False)])
def test_an_answer_that_the_module_kept_says_whether_the_call_succeeded(answer: int, anew: bool) -> None:
    """It would enter at the same place either way."""
    began, call = ss(but(S, pc=AT, x0=7)), but(S, x0=0xC400_0003, x1=1, x2=AT, x3=7)
    kept = host_set("x0", answer % (1 << 64))._replace(op=protocol.OP_HELD, asked=False, context=1)
    own = undo_debug_state(
        (
            *(asked("debug step")._replace(context=2), entry(S, marks=2 << 8 | STEPPED)),
            *(trap(ss(S), esr("HVC64"), marks=2 << 8 | STEPPED), user(ss(S), 10, marks=2 << 8 | STEPPED)),
            *(entry(S, marks=1 << 8), trap(call, esr("HVC64"), marks=1 << 8), kept),
            *(host_set("x0", 0x55)._replace(context=1), entry(but(call, x0=0x55), marks=1 << 8)),
            entry(began, marks=2 << 8 | STEPPED),
        )
    )
    assert isinstance(own[-1], Switch) and bool(own[-1].values[exceptions.PSTATE] & exceptions.SS) != anew


def _gave(call: tuple[int, ...], answer: int) -> Switch:
    return user(but(call, x0=answer % (1 << 64)), 10, marks=1 << 8)


def test_what_kvm_leaves_in_the_guests_registers_is_seen() -> None:
    stopped, told = trap(S, STEP_ESR, marks=STEPPED), user(ss(S), EXIT_DEBUG, mmio_addr=STEP_ESR, marks=STEPPED)
    left = stepping(stopped, told, asked("debug off"), entry(ss(S)))
    assert differs(left) == {"host.pstate"}
    kept = stepping(stopped, told._replace(values=S), asked("debug off"), entry(but(S, mdscr_el1=0x8000)))
    assert differs(kept) == {"host.mdscr_el1"}
    assert INDEX["mdscr_el1"] == exceptions.MDSCR
