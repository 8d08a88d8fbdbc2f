# SPDX-License-Identifier: Apache-2.0
"""Release against release on hand-made traces: what counts, what is intended to the bit, what cannot be decided."""

from __future__ import annotations

from harness.arch.exits import EXCEPTION_TRAP
from harness.arch.registers import INDEX, MASK64
from harness.findings.checked import CheckResult, signature
from harness.findings.compare_releases import Versions, compare
from harness.findings.intended_changes import Changes, between, load_changes
from harness.layout import DATA
from harness.protocol import FLAGS_VCPU_SHIFT, OPS
from harness.scenario.memory_slots import Slot, pack
from harness.scenario.scenario import Scenario, Step, load
from harness.trace.events import ENTRY, EXIT, FORGE_MASK, HOST, Event, Host, Switch, Trace
from harness.trace.tracefile import load_trace
from harness.vm.config import PROJECT
from tests.support.paths import GOLDEN
from tests.support.traces import but, entry, state, trap

SCENARIO = load(GOLDEN / "mixture.scn")
TRACE = load_trace(GOLDEN / "mixture.trace.json")
ROWS = load_changes(PROJECT / "corpus" / "known")
OLD, NEW = "6.1.192-2", "6.12.117-1"
NOTHING = (0,) * len(INDEX)


def differences(one: Trace, other: Trace, versions: Versions = Versions(OLD, OLD)) -> CheckResult:  # noqa: B008
    return compare(SCENARIO, one, other, between(ROWS, versions.one, versions.other), versions)


def unexplained(checked: CheckResult) -> list[str]:
    return [d.name for d in checked.unexplained]


def changed(at: int, **registers: int) -> Trace:
    """The golden trace with registers of one event replaced."""
    events = list(TRACE.events)
    event = events[at]
    assert isinstance(event, Switch)
    events[at] = with_registers(event, **registers)
    return Trace(tuple(events), TRACE.status, 0, TRACE.vhe)


def with_registers(event: Switch, **registers: int) -> Switch:
    values = list(event.values)
    for name, value in registers.items():
        values[INDEX[name]] = value
    return event._replace(values=tuple(values))


def places(kind: int) -> list[int]:
    """Where records of a kind are; of exits, those that are no interrupt."""
    switches = [(i, event) for i, event in enumerate(TRACE.events) if isinstance(event, Switch)]
    return [i for i, event in switches if event.kind == kind and (kind != EXIT or event.code == EXCEPTION_TRAP)]


def switch(kind: int, esr: int = 0, far: int = 0, **registers: int) -> Switch:
    code = EXCEPTION_TRAP if kind == EXIT else 0
    event = Switch._make((0,) * len(Switch._fields))
    event = event._replace(kind=kind, code=code, esr=esr, far=far, hpfar=far >> 12 << 4, values=NOTHING)
    return with_registers(event, **registers)


def trace(*events: Event) -> Trace:
    return Trace(events, "ok", 0, False)


def test_the_same_trace_has_no_difference() -> None:
    checked = differences(TRACE, TRACE)
    assert checked.judged == () and checked.unchecked == {} and checked.relations["against"] > 10


def test_only_the_first_pair_that_differs_counts() -> None:
    first, second = places(EXIT)[:2]
    events = list(changed(first, x3=0x1234).events)
    events[second] = changed(second, x9=1).events[second]
    checked = differences(TRACE, Trace(tuple(events), "ok", 0, TRACE.vhe))
    assert unexplained(checked) == ["against.exit.x3"]
    assert signature(checked.unexplained[0])[:2] == ("against", "exit.xN")
    assert checked.unexplained[0].observed == 0x1234


def test_registers_that_say_nothing_are_counted_as_unchecked() -> None:
    checked = differences(TRACE, changed(places(EXIT)[0], mdccint_el1=1, afsr0_el1=2))
    assert checked.judged == () and sum(checked.unchecked.values()) == 2


def test_interrupts_come_when_they_like() -> None:
    where = places(ENTRY)[1]
    entry = TRACE.events[where]
    assert isinstance(entry, Switch)
    interrupt = entry._replace(kind=EXIT, code=0, esr=0)
    events: list[Event] = [*TRACE.events[: where + 1], interrupt, entry, *TRACE.events[where + 1 :]]
    assert differences(TRACE, Trace(tuple(events), "ok", 0, TRACE.vhe)).judged == ()


def test_another_end_and_another_length() -> None:
    stuck = Trace(TRACE.events, "stuck", 0, TRACE.vhe)
    assert unexplained(differences(TRACE, stuck)) == ["against.run.status"]
    shorter = Trace(TRACE.events[: places(EXIT)[-1]], TRACE.status, 0, TRACE.vhe)
    assert unexplained(differences(TRACE, shorter)) == ["against.run.event"]
    runaway = differences(TRACE, Trace(TRACE.events, "runaway", 0, TRACE.vhe))
    assert runaway.judged == () and sum(runaway.unchecked.values()) == 1


VERSION_CALL = switch(EXIT, 0x5A00_0000, x0=0x8400_0000)


def called(x0: int, **others: int) -> Trace:
    """PSCI_VERSION answered, and the guest going on to another call with what it got."""
    after = {"x0": x0, **others}
    return trace(VERSION_CALL, switch(ENTRY, **after), switch(EXIT, 0x5A00_0000, **after))


def test_an_intended_change_has_values_versions_and_neighbours() -> None:
    both = Versions("6.12.117-1", "7.3.4-1~bpo13+1")
    checked = differences(called(0x10001), called(0x10003), both)
    assert [j.known.id for j in checked.judged if j.known] == ["psci-1.3"]  # once: later entries only carry the value
    assert checked.unexplained == ()
    # The other way round the older release's value still comes first in the row.
    assert differences(called(0x10003), called(0x10001), Versions(both.other, both.one)).unexplained == ()
    assert unexplained(differences(called(0x10001), called(0x10004), both)) == ["against.entry.x0"]
    assert unexplained(differences(called(0x10003), called(0x10001), both)) == ["against.entry.x0"]
    assert unexplained(differences(called(0x10001), called(0x10003), Versions(OLD, NEW))) == ["against.entry.x0"]
    # A neighbour of an intended change in the same record stays what it is.
    assert unexplained(differences(called(0x10001), called(0x10003, x1=1), both)) == ["against.entry.x1"]


def test_behind_an_intended_change_that_the_guest_may_read_nothing_is_a_finding() -> None:
    both = Versions("6.12.117-1", "7.3.4-1")
    one, other = called(0x10001), called(0x10003)
    later = switch(EXIT, 0x5A00_0000, x0=0x10003, x9=7)
    checked = differences(one, trace(*other.events[:2], later), both)
    assert checked.unexplained == ()
    assert checked.unchecked == {"against: after psci-1.3, which it may follow from": 1}


def test_behind_a_syndrome_that_nobody_reads_it_is() -> None:
    fault = switch(EXIT, 0x8200_0005, 0x9000_0000)
    taken = {"esr_el1": 0x8600_0010}
    one = trace(fault, switch(ENTRY, esr_el1=0xFFFF_FFFF_8600_0010), switch(EXIT, 0x5A00_0000, **taken))
    other = trace(fault, switch(ENTRY, **taken), switch(EXIT, 0x5A00_0000, x4=1, **taken))
    checked = differences(one, other, Versions(OLD, NEW))
    assert [j.known.id for j in checked.judged if j.known] == ["injected-esr-not-sign-extended"]
    assert unexplained(checked) == ["against.exit.x4"]


def test_random_results_are_no_difference() -> None:
    call = switch(EXIT, 0x5A00_0000, x0=0x8400_0053)
    one, other = (trace(call, switch(ENTRY, x1=n), switch(EXIT, 0x5A00_0000, x1=n)) for n in (5, 6))
    checked = differences(one, other)
    assert checked.judged == () and sum(checked.unchecked.values()) == 1


STORE, LOAD, PAGE = 0x9382_0040, 0x9382_0000, 0x4006_0000


def faults(*statuses: int) -> Trace:
    """Data aborts on one page, each at an instruction of its own, retried."""
    events: list[Event] = []
    for i, status in enumerate(statuses):
        pc = 0x4000_0000 + 4 * i
        events += [switch(EXIT, status, PAGE, pc=pc), switch(ENTRY, pc=pc)]
    return trace(*events, switch(EXIT, 0x5A00_0000, pc=0x4000_0100))


def test_a_copied_page_explains_faults_on_that_page_only() -> None:
    both = Versions(OLD, NEW)
    copied = (STORE | 0xF, STORE | 0xF)
    checked = differences(faults(*copied), faults(copied[0], STORE | 0x7), both)
    assert checked.unexplained == () and len(checked.judged) == 1
    assert unexplained(differences(faults(STORE | 0xF), faults(STORE | 0x7), both)) == ["against.exit.esr_el2"]
    assert unexplained(differences(faults(*copied), faults(copied[0], STORE | 0x6), both)) == ["against.exit.esr_el2"]
    assert unexplained(differences(faults(*copied), faults(copied[0], STORE | 0x7))) == ["against.exit.esr_el2"]


def test_only_one_of_two_may_fault_on_a_copied_page() -> None:
    both = Versions(OLD, NEW)
    checked = differences(faults(STORE | 0xF), faults(STORE | 0xF, LOAD | 0x7), both)
    assert checked.unexplained == ()
    assert [j.divergence.name for j in checked.judged] == ["against.run.fault"]
    # A permission fault that only one has is not the host's business, and on this page nothing was copied.
    assert unexplained(differences(faults(LOAD | 0x7), faults(LOAD | 0x7, STORE | 0xF), both)) == ["against.run.exit"]


def test_when_a_page_is_mapped_is_the_hosts_business() -> None:
    checked = differences(faults(LOAD | 0x7), faults(LOAD | 0x7, LOAD | 0x5))
    assert checked.judged == () and sum(checked.unchecked.values()) == 1
    changed_by_it = faults(LOAD | 0x7, LOAD | 0x5)
    events = list(changed_by_it.events)
    events[3] = switch(ENTRY, pc=0x4000_0004, x5=1)
    assert unexplained(differences(faults(LOAD | 0x7), trace(*events))) == ["against.run.exit"]


def test_a_copy_and_a_counter_are_no_difference() -> None:
    scenario = Scenario("A counter.", (), (Step("mrs", ("x10", "cntvct_el0")), Step("hvc", (0,))))
    start = switch(ENTRY, pc=0x4000_0000)
    one, other = (trace(start, switch(EXIT, 0x5A00_0000, pc=0x4000_0008, x2=n, x10=n)) for n in (5, 6))
    checked = compare(scenario, one, other, Changes(()), Versions(OLD, OLD))
    assert checked.judged == () and sum(checked.unchecked.values()) == 2
    elsewhere = trace(start, switch(EXIT, 0x5A00_0000, pc=0x4000_0008, x2=7, x10=6))
    assert unexplained(compare(scenario, one, elsewhere, Changes(()), Versions(OLD, OLD))) == ["against.exit.x2"]


def test_a_secure_call_is_refused_or_answered() -> None:
    call = switch(EXIT, 0x5E00_0000, x0=0x8000_0000, x1=5)
    refused, answered = (trace(call, switch(ENTRY, **r)) for r in ({"x0": MASK64, "x1": 5}, {"x0": 0x10001}))
    both = Versions(OLD, NEW)
    assert differences(refused, answered, both).unexplained == ()
    assert unexplained(differences(answered, refused, both)) == ["against.entry.x0", "against.entry.x1"]
    wrong = trace(call, switch(ENTRY, x0=0x10002))
    assert unexplained(differences(refused, wrong, both)) == ["against.entry.x0"]
    immediate = trace(call._replace(esr=0x5E00_0001), answered.events[1])
    refused_too = trace(call._replace(esr=0x5E00_0001), refused.events[1])
    assert unexplained(differences(refused_too, immediate, both)) == ["against.entry.x0", "against.entry.x1"]


def test_a_field_of_an_id_register() -> None:
    trap = switch(EXIT, 0x6230_0069)  # MRS x3, ID_AA64PFR0_EL1
    both = Versions(OLD, NEW)
    one, other, more = (trace(trap, switch(ENTRY, x3=value)) for value in (0x1000222, 0x222, 0x223))
    assert differences(one, other, both).unexplained == ()
    assert unexplained(differences(one, more, both)) == ["against.entry.x3"]
    assert unexplained(differences(other, one, both)) == ["against.entry.x3"]


def test_a_trap_that_only_the_newer_release_has() -> None:
    start, goes_on = switch(ENTRY, pc=0x4000_0000), switch(EXIT, 0x5A00_0000, pc=0x4000_0010)
    reads = switch(EXIT, 0x6232_4001, pc=0x4000_0004)  # MRS x0, CCSIDR_EL1
    with_trap, without = trace(start, reads, switch(ENTRY, pc=0x4000_0008), goes_on), trace(start, goes_on)
    assert differences(without, with_trap, Versions(OLD, NEW)).unexplained == ()
    assert unexplained(differences(without, with_trap)) == ["against.run.exit"]
    assert unexplained(differences(with_trap, without, Versions(OLD, NEW))) == ["against.run.exit"]


def test_each_vcpu_carries_its_own() -> None:
    """What one vCPU carries is not forgotten while another one runs, and says nothing about that one."""
    both = Versions("6.12.117-1", "7.3.4-1")
    second = switch(EXIT, 0x5A00_0000)._replace(marks=1 << FLAGS_VCPU_SHIFT)
    one, other = (
        trace(VERSION_CALL, switch(ENTRY, x0=n), second, switch(EXIT, 0x5A00_0000, x0=n)) for n in (0x10001, 0x10003)
    )
    checked = differences(one, other, both)
    assert checked.unexplained == () and len(checked.judged) == 1 and checked.relations["against"] == 4


def test_the_level_of_an_abort_on_a_walk() -> None:
    both = Versions("6.12.117-1", "7.3.4-1")
    fault = switch(EXIT, 0x9200_00C6)  # S1PTW, level 2
    one, other, wrong = (trace(fault, switch(ENTRY, esr_el1=0x9600_0000 | fsc)) for fsc in (0x10, 0x16, 0x15))
    assert differences(one, other, both).unexplained == ()
    assert unexplained(differences(one, wrong, both)) == ["against.entry.esr_el1"]


def test_an_serror_is_taken_at_once_or_pending() -> None:
    both = Versions("6.12.117-1", "7.3.4-1")
    before = {"pc": 0x4000_0008, "pstate": 0x5, "vbar_el1": 0x4001_0000}
    after = {**before, "pc": 0x4001_0380, "pstate": 0x4003C5, "elr_el1": 0x4000_0008, "spsr_el1": 0x5}
    one, other = trace(switch(ENTRY, **before)), trace(switch(ENTRY, **after, esr_el1=0xBF00_0000))
    assert differences(one, other, both).unexplained == ()
    assert unexplained(differences(one, other, Versions(OLD, NEW)))
    elsewhere = trace(switch(ENTRY, **{**after, "pc": 0x4001_0200}, esr_el1=0xBF00_0000))
    assert unexplained(differences(one, elsewhere, both)) == ["against.entry.pc"]
    sync = trace(switch(ENTRY, **after, esr_el1=0x9600_0010))
    assert "against.entry.esr_el1" in unexplained(differences(one, sync, both))


def test_one_forged_exit_says_nothing() -> None:
    exit_ = switch(EXIT, 0x5A00_0000)
    forged = exit_._replace(esr=0xC000_0000, marks=FORGE_MASK)
    checked = differences(trace(exit_), trace(forged))
    assert checked.judged == () and sum(checked.unchecked.values()) == 1


def test_a_sign_extending_load_was_zero_extended() -> None:
    load = switch(EXIT, 0x93E3_0005 & ~(3 << 22) | 1 << 15, 0x900_0000)  # LDRSB x3
    one, other = (
        trace(load, switch(ENTRY, x3=value)._replace(mmio_data=0x80)) for value in (0x80, 0xFFFF_FFFF_FFFF_FF80)
    )
    both = Versions("7.1.13-1", "7.2.6-1")
    assert differences(one, other, both).unexplained == () != differences(one, other, both).judged
    assert unexplained(differences(other, one, both)) == ["against.entry.x3"]


def test_a_page_of_a_slot_that_the_scenario_made_may_fault_once_more() -> None:
    """When a page is mapped is the host's business, wherever the slot is; a device is no such page."""
    far, before = 0x8000_0000, state()
    fault = trap(before, 0x93C3_8007, far=far, hpfar=far >> 12 << 4)
    asked = Host(HOST, 0, OPS["slot"][0], *pack(Slot(2, "rw", far, 0x1000, DATA.base)), 0, True)
    call = trap(but(before, pc=before[INDEX["pc"]] + 4), 0x5A00_0000)
    short: tuple[Event, ...] = (entry(before), call, entry(before))
    long: tuple[Event, ...] = (entry(before), fault, *short)
    for slot, shown in (((asked,), False), ((), True)):
        one, other = (Trace((*slot, *events), "ok", 0, False) for events in (long, short))
        assert bool(unexplained(differences(one, other))) is shown
