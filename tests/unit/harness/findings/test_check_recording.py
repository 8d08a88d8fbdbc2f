# SPDX-License-Identifier: Apache-2.0
"""Recordings of other projects' programs: a vCPU's environment is read from them, and a fault in them is found."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.cpu_models import cpu_model
from harness.findings.check_recording import (
    ABSENT,
    DEBUGGED,
    FOREIGN,
    NEVER_LEFT,
    NO_VECTORS,
    WAS_RESET,
    Against,
    Tally,
    check_records,
)
from harness.findings.known_divergences import Catalogue
from harness.relations import contract
from harness.relations.errata import LOSES_SIGN, TargetErrata
from harness.trace import recorded_resets
from harness.trace.environment import POWER_OFF, PSCI_0_2
from harness.trace.events import Switch
from harness.trace.recorded_resets import name_resets
from harness.trace.recorded_rounds import (
    BEFORE_ANSWER,
    CALL_NOT_RECORDED,
    FEATURE_BITMAPS,
    PROTECTED,
    PSCI_VERSION,
    SYSTEM_SUSPEND,
    RecordedRound,
    Run,
    split,
)
from harness.trace.recording import Api, Recorded
from harness.vm.config import PROJECT
from tests.support.foreign import GIC, MACHINE, RAM, SIZE, UART, S, call, load, of, reset_state, sets, started
from tests.support.traces import SKIP, but, entry, esr, irq, load_esr, trap, user

KNOWN = PROJECT / "corpus" / "known"
CATALOGUE = Catalogue.load(KNOWN, "spec")
PMU = 1 << 3
HVC = esr("HVC64")
CPU_ON, CPU_ON32, AFFINITY_INFO = 0xC400_0003, 0x8400_0003, 0xC400_0004
READ_PMCR = esr("SYS64", 3 << 20 | 3 << 14 | 9 << 10 | 12 << 1 | 2 << 5 | 1)  # mrs x2, pmcr_el0


PAGE = {"far": UART, "hpfar": UART >> 8}


AGAINST = Against({"spec": CATALOGUE}, cpu_model("cortex-a72"), vhe=False)


def check(records: Iterable[Recorded], against: Against = AGAINST, absent: Iterable[str] = ()) -> Tally:
    """Check records on the first level, as of an nVHE host."""
    tallies = {level: Tally() for level in against.catalogues}
    check_records(records, against, tallies, frozenset(absent))
    return next(iter(tallies.values()))


def found(tally: Tally) -> set[tuple[str, str]]:
    """Relation and register of each cluster."""
    return {key[:2] for key in tally.clusters}


def test_a_call_an_interrupt_and_a_first_touch() -> None:
    after = but(S, pc=RAM + 4, x0=0x8400_0000)
    answered = but(after, x0=0x10001, x1=0, x2=0, x3=0)
    touch = trap(answered, load_esr(3), far=RAM + 0x1000, hpfar=(RAM + 0x1000) >> 8)
    tally = check(started(trap(after, HVC), entry(answered), touch, entry(answered), irq(answered), entry(answered)))
    assert not tally.clusters
    assert tally.exits == {"HVC64": 1, "DABT_LOW": 1, "IRQ": 1}
    assert tally.relations == {"save": 4, "restore": 4, "host": 4, "switch": 3}
    assert tally.unchecked == {f"switch: {FOREIGN}": 3, f"save.reveal: {FOREIGN}": 3}


LOSSES = (
    # the register that KVM lost in a turn of the host, the relations that must say so
    ("x19", {("save", "dirty.xN"), ("restore", "xN"), ("host", "xN")}),
    ("tpidr_el1", {("restore", "tpidr_el1"), ("host", "tpidr_el1")}),
    ("pc", {("restore", "pc"), ("host", "pc")}),
)


@pytest.mark.parametrize(("name", "wanted"), LOSSES)
def test_a_register_that_kvm_loses_is_found(name: str, wanted: set[tuple[str, str]]) -> None:
    exit_ = irq(but(S, x19=5, tpidr_el1=7, pc=RAM + 0x100))
    tally = check(started(exit_, entry(but(exit_.values, **{name: 0x1234})), irq(exit_.values)))
    assert found(tally) == wanted
    (cluster, *_) = tally.clusters.values()
    assert (cluster.count, cluster.example.divergence.event) == (1, len(MACHINE) + 3)
    assert tally.unexplained == len(wanted)


def test_what_no_guest_can_change_is_compared() -> None:
    tally = check(started(irq(but(S, x5=1, mpidr_el1=0x8000_0007))))
    assert found(tally) == {("switch", "mpidr_el1")}


def test_devices_of_the_kernel_and_of_userspace() -> None:
    tally = check(load(3, 0x55, UART, users=True, kernel=False))
    assert not tally.clusters
    assert tally.relations["host.mmio"] == 1 and tally.unchecked[f"switch.v*: {NO_VECTORS}"] == 1
    assert not check(load(3, 0x55, GIC + 8, users=False, kernel=True)).clusters


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ({}, None),
        ({"mmio_addr": UART + 4}, "mmio_addr"),
        ({"mmio_len": 0x101}, "mmio_len"),
        ({"mmio_data": 0x1234_5678}, "mmio_data"),
    ],
)
def test_what_is_reported_to_userspace_of_a_store(reported: dict[str, int], name: str | None) -> None:
    at = but(S, x3=0xAABB_CCDD_0011_2233)
    exit_ = trap(at, load_esr(3, 4, wide=False, write=True), **PAGE)
    mmio = {"mmio_addr": UART, "mmio_len": 0x104, "mmio_data": 0x0011_2233} | reported
    tally = check(started(exit_, user(at, 6, **mmio), entry(at, SKIP, **mmio)))
    assert found(tally) == ({("host", name)} if name else set())


STOPPED = {"error": errno.EINTR}


@pytest.mark.parametrize("write", [False, True], ids=["load", "store"])
def test_an_access_that_a_run_without_a_guest_completes(write: bool) -> None:
    at = but(S, x3=0x55)
    exit_ = trap(at, load_esr(3, 4, wide=False, write=write), **PAGE)
    mmio = {"mmio_addr": UART, "mmio_len": 0x104 if write else 4, "mmio_data": 0x55}
    done = but(at, pc=RAM + 4)
    stopped = user(done, 6, **mmio, **STOPPED)
    clean = check(started(exit_, user(at, 6, **mmio), stopped, entry(done, **mmio)))
    assert not clean.clusters and clean.relations["host.mmio"] == 1
    # What userspace writes after that is not overwritten by the completion.
    moved = started(exit_, user(at, 6, **mmio), stopped, sets("pc", RAM), sets("x3", 1), entry(but(at, x3=1), **mmio))
    assert ("host", "xN") not in found(check(moved)) and ("host", "pc") not in found(check(moved))
    twice = started(exit_, user(at, 6, **mmio), stopped, entry(done, SKIP, **mmio))
    assert ("host", "pc") in found(check(twice))


def test_a_run_that_fails_before_the_first_entry() -> None:
    assert not check(MACHINE + of(0, user(S, 0, error=errno.ENOEXEC), entry(S))).clusters


def test_a_vcpu_that_changes_while_others_run() -> None:
    exit_ = trap(S, load_esr(3, 4, wide=False), **PAGE)
    mmio = {"mmio_addr": UART, "mmio_len": 4, "mmio_data": 0x55}
    other = of(1, entry(reset_state(1)), irq(reset_state(1)))
    for register, value, clean in (("x3", 0x55, True), ("x4", 0x55, False), ("tpidr_el1", 1, False)):
        back = of(0, entry(but(S, **{"x3": 0x55, register: value}), SKIP, **mmio))
        tally = check(second(exit_, user(S, 6, esr=exit_.esr, **mmio)) + other + back)
        assert (("isolate", register if register[0] != "x" else "xN") not in found(tally)) is clean
        assert tally.relations["isolate"] == 1
    written = of(0, sets("x4", 0x55), entry(but(S, x3=0x55, x4=0x55), SKIP, **mmio))
    assert not check(second(exit_, user(S, 6, esr=exit_.esr, **mmio)) + other + written).clusters


def test_a_vcpu_that_nobody_can_compare_while_others_run() -> None:
    other = of(1, entry(reset_state(1)), irq(reset_state(1)))
    stayed = check(second(irq(S)) + other + of(0, entry(S)))
    assert stayed.unchecked[f"isolate: {NEVER_LEFT}"] == 1 and not stayed.relations["isolate"]
    again = of(0, call("reset", PSCI_0_2), sets("pc", RAM), entry(S))
    was_reset = check(second(irq(S), user(S, 10, **STOPPED)) + other + again)
    assert not was_reset.clusters
    assert was_reset.unchecked[f"isolate: {WAS_RESET}"] == 1 and not was_reset.relations["isolate"]


def test_a_device_is_one_only_where_kvm_has_it() -> None:
    tally = check(load(3, 0x55, UART, users=False, kernel=True))
    assert ("save", "class") in found(tally)
    assert tally.unchecked["host: an MMIO access that did not reach userspace"] == 1
    forgotten = check(load(3, 0x55, GIC + 8, users=False, kernel=False))
    assert ("save", "class") in found(forgotten)


def test_a_device_that_comes_between_exit_and_entry() -> None:
    machine = [r for r in MACHINE if not (isinstance(r.event, Api) and r.event.name == "device")]
    before = machine + of(0, entry(S), irq(S), call("device", GIC, 0x10000), entry(S))
    assert not check(before + load(3, 0x55, GIC + 8, users=False, kernel=True)[-2:]).clusters


@pytest.mark.parametrize(("kind", "bits", "protected"), [(0, 40, False), (36, 36, False), (PROTECTED | 40, 40, True)])
def test_the_type_of_a_vm(kind: int, bits: int, protected: bool) -> None:
    beyond = 1 << bits
    exit_ = trap(S, load_esr(3, 4, wide=False), far=beyond, hpfar=beyond >> 12 << 4)
    records = of(0, call("create", kind), *(r.event for r in MACHINE), entry(S), exit_, entry(S))
    worlds = {
        (at.round.world.ipa_bits, at.round.world.protected) for at in split(records) if isinstance(at, RecordedRound)
    }
    assert worlds == {(bits, protected)}
    assert check(records).unchecked["host: an address beyond the guest's physical address space"] == 1


def test_slots_come_and_go() -> None:
    fault = trap(S, load_esr(3), **PAGE)
    assert ("save", "class") in found(check(started(fault, entry(S))))
    more = MACHINE + of(0, call("slot", 1, 0, UART, 0x1000), entry(S), fault, entry(S))
    gone = MACHINE + of(0, call("slot", 1, 0, UART, 0x1000), call("slot", 1, 0, UART, 0), entry(S))
    failed = MACHINE + of(0, call("slot", 1, 0, UART, 0x1000, error=22), entry(S))
    worlds = [
        [at.round.world for at in split(records) if isinstance(at, RecordedRound)][-1]
        for records in (more, gone, failed)
    ]
    assert [world.slot(UART) is not None for world in worlds] == [True, False, False]


def second(*events: Switch | Api) -> list[Recorded]:
    """A machine with a second vCPU that waits, which the first one starts with ``events``."""
    return MACHINE + of(1, call("reset", PSCI_0_2 | POWER_OFF)) + of(0, entry(S), *events)


@pytest.mark.parametrize(("function", "kept"), [(CPU_ON, (1 << 64) - 1), (CPU_ON32, 0xFFFF_FFFF)])
def test_a_vcpu_that_another_starts(function: int, kept: int) -> None:
    start, context = 0x7_4000_2000, 0x1234_5678_9ABC_DEF0
    asks = but(S, pc=RAM + 4, x0=function, x1=1, x2=start, x3=context)
    first = reset_state(1, pc=start & kept, x0=context & kept)
    records = second(trap(asks, HVC)) + of(1, call("reset", PSCI_0_2 | POWER_OFF), entry(first))
    answered = records + of(0, entry(but(asks, x0=0, x1=0, x2=0, x3=0)))
    tally = check(answered)
    assert not tally.clusters and tally.vcpus == {(1, 0), (1, 1)}
    wrong = second(trap(asks, HVC)) + of(1, call("reset", PSCI_0_2), entry(but(first, x0=1)))
    answer = of(0, entry(but(asks, x0=0, x1=0, x2=0, x3=0)))
    assert ("host", "xN") in found(check(wrong + answer))
    assert not check(wrong).clusters and check(wrong).unchecked[f"save, restore, host, isolate: {BEFORE_ANSWER}"] == 1


BY_INIT, BY_CPU_ON = (protocol.RESET_BY[name] for name in ("init", "cpu_on"))
REFUSED = (1 << 64) - 4


@pytest.mark.parametrize("answer", [0, REFUSED])
@pytest.mark.parametrize("answered_first", [True, False])
@pytest.mark.parametrize("by", [0, BY_INIT, BY_CPU_ON])
def test_a_reset_is_what_the_record_says_or_the_answer_proves(answer: int, answered_first: bool, by: int) -> None:
    """A CPU_ON that was refused starts nothing: a reset after it is userspace's own."""
    asks = but(S, pc=RAM + 4, x0=CPU_ON, x1=1, x2=RAM + 0x2000, x3=7)
    answered = of(0, entry(but(asks, x0=answer, x1=0, x2=0, x3=0), 0), irq(but(asks, x0=answer, x1=0, x2=0, x3=0)))
    reset = of(1, call("reset", PSCI_0_2 | POWER_OFF, by))
    between = answered + reset if answered_first else reset + answered[:1]
    records = second(trap(asks, HVC)) + between
    started, plain = reset_state(1, pc=RAM + 0x2000, x0=7), reset_state(1)
    by_call = by == BY_CPU_ON or (by == 0 and answer == 0)
    no_call = by == BY_CPU_ON and answered_first and answer == REFUSED
    for state, right in ((started, by_call), (plain, not by_call)):
        tally = check(records + of(1, entry(state)))
        assert bool(tally.clusters) is not (right or no_call)
        assert tally.unchecked[f"save, restore, host, isolate: {CALL_NOT_RECORDED}"] == no_call


def test_a_later_reset_is_not_taken_for_that_of_a_call_long_done() -> None:
    asks = but(S, pc=RAM + 4, x0=CPU_ON, x1=1, x2=RAM + 0x2000, x3=7)
    done = but(asks, x0=0, x1=0, x2=0, x3=0)
    started = reset_state(1, pc=RAM + 0x2000, x0=7)
    records = second(trap(asks, HVC)) + of(1, call("reset", PSCI_0_2), entry(started), irq(started))
    records += of(0, entry(done)) + of(1, call("reset", PSCI_0_2), entry(reset_state(1)))
    assert not check(records).clusters


def test_records_are_held_back_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = but(S, pc=RAM + 4, x0=CPU_ON, x1=1)
    records = second(trap(asks, HVC)) + of(1, call("reset", PSCI_0_2), entry(S), irq(S)) + of(0, entry(but(asks, x0=0)))
    named = list(name_resets(records))
    assert [r for r in named if r.event != call("reset", PSCI_0_2, BY_CPU_ON)] == [
        r for r in records if r != Recorded(1, 1, call("reset", PSCI_0_2))
    ]
    assert Recorded(1, 1, call("reset", PSCI_0_2, BY_CPU_ON)) in named
    monkeypatch.setattr(recorded_resets, "MOST_HELD", 2)
    assert list(name_resets(records)) == records


def test_each_vcpu_has_its_own_number() -> None:
    records = second(irq(S)) + of(1, entry(reset_state(0)))
    assert ("host", "mpidr_el1") in found(check(records))
    assert not check(second(irq(S)) + of(1, entry(reset_state(1)))).clusters


def test_results_about_other_vcpus_may_be_any_that_the_function_has() -> None:
    asks = but(S, pc=RAM + 4, x0=AFFINITY_INFO, x1=1)
    for x0, clean in ((0, True), (1, True), (3, False)):
        tally = check(second(trap(asks, HVC), entry(but(asks, x0=x0, x1=0, x2=0, x3=0))))
        assert (("host", "xN") not in found(tally)) is clean


@pytest.mark.parametrize(
    ("register", "value", "judged"),
    [(PSCI_VERSION, 0x10002, True), (PSCI_VERSION, 0x2, False), (FEATURE_BITMAPS + 2, 0, False)],
)
def test_calls_of_a_firmware_that_userspace_chose(register: int, value: int, judged: bool) -> None:
    chosen = of(0, call("set_register", register, value))
    call_ = trap(but(S, pc=RAM + 4, x0=0x8400_0000), HVC)
    answer = entry(but(call_.values, x0=2, x1=0, x2=0, x3=0))
    tally = check(MACHINE + chosen + of(0, entry(S), call_, answer))
    assert (("host", "xN") in found(tally)) is judged
    assert tally.unchecked["host: a call of a VM whose userspace chose its firmware"] == (not judged)


def test_a_vcpu_that_userspace_debugs_is_unchecked() -> None:
    marks = {"marks": protocol.DEBUG["debugged"] | protocol.DEBUG["stepped"]}
    step = trap(but(S, pc=RAM + 4), esr("SOFTSTP_LOW", 0x22), **marks)
    debugged = started(irq(S), entry(S, **marks), step, user(step.values, 4, **marks), entry(step.values))
    tally = check(debugged + of(0, irq(step.values), entry(step.values)))
    assert not tally.clusters
    assert tally.unchecked[f"save, restore, host, isolate: {DEBUGGED}"] == 2
    assert tally.relations["host"] == 2


def test_optional_features_are_unchecked_not_wrong() -> None:
    access = trap(S, READ_PMCR)
    emulated = entry(but(S, x2=0x4100), SKIP)
    with_pmu = of(0, call("slot", 0, 0, RAM, SIZE), call("reset", PSCI_0_2 | PMU), sets("pc", RAM), entry(S))
    tally = check(with_pmu + of(0, access, emulated))
    assert tally.unchecked["host: a system register of a feature that the vCPU may have"] == 1
    assert not tally.clusters
    assert ("host", "pc") in found(check(started(access, emulated)))


def test_exceptions_and_interrupts_that_userspace_pends() -> None:
    exit_ = trap(S, load_esr(3), **PAGE)
    told = user(S, 6, mmio_addr=UART, mmio_len=8)
    done = contract.external_abort(S, exit_)
    assert not {key for key in found(check(started(exit_, told, call("events", 2), entry(done)))) if key[0] == "host"}
    wrong = check(started(exit_, told, call("events", 2), entry(but(done, far_el1=0))))
    assert ("host", "far_el1") in found(wrong)
    line = call("irq_line", 1, 1)
    assert not check(started(irq(S), line, entry(S, hcr=exceptions.HCR_VF))).clusters
    assert found(check(started(irq(S), line, entry(S)))) == {("host", "hcr_el2")}


def test_registers_that_were_not_recorded_are_unchecked() -> None:
    tally = check(MACHINE + of(0, entry(but(S, par_el1=0, x5=1))), absent={"par_el1"})
    assert found(tally) == {("restore", "xN"), ("host", "xN")}
    assert tally.unchecked[f"host: {ABSENT}"] == 1


def test_vms_are_told_apart() -> None:
    other = [Recorded(2, r.vcpu, r.event) for r in MACHINE]
    records = MACHINE + other + of(0, entry(S)) + of(0, entry(S), vm=2) + of(0, irq(S)) + of(0, irq(S), vm=2)
    ends = [(at.vm, at.record) for at in split(records) if isinstance(at, Run)]
    assert ends == [(1, 11), (2, 12)]
    destroyed = records + of(0, call("destroy")) + of(0, entry(S))
    last = [at for at in split(destroyed) if isinstance(at, RecordedRound)][-1]
    assert last.round.exit is None and last.round.world.regions == ()


LOW = 0x0010_0000
"""Where KVM's selftests have their RAM: below the layer's MAX_MMIO_ADDR, where SeKVM's own machine has no RAM."""


@pytest.mark.parametrize("syndrome", [load_esr(3), load_esr(3, write=True), esr("IABT_LOW", 5)])
def test_memory_below_1_gib_is_known(syndrome: int) -> None:
    slot = of(0, call("slot", 1, 0, LOW, 0x10000))
    touch = trap(S, syndrome, far=LOW + 8, hpfar=LOW >> 8)
    for records in (slot + started(touch, entry(S)), slot + started(touch, entry(S), irq(S), entry(S))):
        for level in ("spec", "kernel"):
            tally = check(records, replace(AGAINST, catalogues={level: Catalogue.load(KNOWN, level)}))
            assert not tally.clusters
            assert {name for name in tally.known if name.startswith("ram-below")} >= {"ram-below-window-class"}
    # The guest must execute the access again: an instruction that is left out is found.
    moved = check(slot + started(touch, entry(but(S, pc=RAM + 4))))
    assert ("host", "pc") in found(moved)


def test_a_device_of_the_kernel_above_1_gib_is_known() -> None:
    at = RAM + SIZE + 0x1000
    device = of(0, call("device", at, 0x1000))
    assert not check(device + load(3, 0x55, at, users=False, kernel=True)).clusters
    # Data that the device did not give.
    wrong = device + load(3, 0x55, at, users=False, kernel=True)
    last = wrong[-1].event
    assert isinstance(last, Switch)
    wrong[-1] = wrong[-1]._replace(event=last._replace(values=but(last.values, x3=0x56)))
    assert ("host", "xN") in found(check(wrong))


SYSTEM_SUSPEND_CALL, VERSION_CALL, NOT_SUPPORTED = 0xC400_000E, 0x8400_0000, (1 << 64) - 1


@pytest.mark.parametrize(
    ("choice", "function", "argument", "is_chosen"),
    [
        (call("capability", SYSTEM_SUSPEND), SYSTEM_SUSPEND_CALL, 0, True),
        (call("capability", SYSTEM_SUSPEND), 0x8400_000A, SYSTEM_SUSPEND_CALL, True),  # PSCI_FEATURES
        (call("capability", SYSTEM_SUSPEND), VERSION_CALL, 0, False),
        (call("capability", SYSTEM_SUSPEND, error=errno.EINVAL), SYSTEM_SUSPEND_CALL, 0, False),
        (call("capability", 177), SYSTEM_SUSPEND_CALL, 0, False),
        (call("filter", VERSION_CALL, 2, 1), VERSION_CALL + 1, 0, True),
        (call("filter", VERSION_CALL, 2, 1), VERSION_CALL + 2, 0, False),
        (call("attribute", 2, 0, RAM), VERSION_CALL, 0, False),
    ],
)
def test_calls_that_userspace_decides_about(choice: Api, function: int, argument: int, is_chosen: bool) -> None:
    after = but(S, pc=RAM + 4, x0=function, x1=argument)
    answered = but(after, x0=0x1234, x1=0, x2=0, x3=0)
    asked = of(0, choice) + started(trap(after, HVC), entry(answered))
    for level in ("spec", "kernel"):
        tally = check(asked, replace(AGAINST, catalogues={level: Catalogue.load(KNOWN, level)}))
        assert bool(tally.unchecked["host: a call of a VM whose userspace chose its firmware"]) == is_chosen
        assert bool(tally.clusters) != is_chosen


def test_an_abort_before_the_first_run_is_known() -> None:
    vectors = RAM + 0x1000
    machine = MACHINE + of(0, sets("vbar_el1", vectors), call("events", protocol.EVENT["external_abort"]))
    first = but(S, vbar_el1=vectors, esr_el1=0x9400_0010, far_el1=0)
    pends = protocol.PENDING["exception"] | protocol.PENDING["sync_el1"]
    assert not check(machine + of(0, entry(first, pends))).clusters
    assert found(check(machine + of(0, entry(but(first, esr_el1=0x9400_0011), pends)))) >= {("host", "esr_el1")}
    assert ("host", "pc") in found(check(machine + of(0, entry(but(S, vbar_el1=vectors)))))


def test_what_an_erratum_predicts_has_it_as_its_cause() -> None:
    at, mmio = but(S, x2=UART), {"mmio_addr": UART, "mmio_len": 1, "mmio_data": 0x80}
    exit_ = trap(at, load_esr(3, 1, signed=True), far=UART, hpfar=UART >> 12 << 4)
    loads = started(exit_, user(at, 6, **mmio), entry(but(at, x3=0x80), SKIP, **mmio))
    tally = check(loads, replace(AGAINST, errata=TargetErrata(frozenset({LOSES_SIGN}))))
    assert {key[-1] for key in tally.clusters} == {LOSES_SIGN}
    assert check(loads).clusters.keys() == {key[:4] for key in tally.clusters}, "without errata: no cause"
    assert all(cluster.example.divergence.basis for cluster in check(loads).clusters.values())


def test_each_level_has_a_tally_and_the_contract_is_compared_once() -> None:
    read_ctr = esr("SYS64", 3 << 20 | 1 << 17 | 3 << 14 | 3 << 5 | 1)  # mrs x3, ctr_el0
    tallies = {level: Tally() for level in ("spec", "kernel")}
    against = replace(AGAINST, catalogues={level: Catalogue.load(KNOWN, level) for level in tallies})
    records = started(trap(S, read_ctr), entry(but(S, x3=0x8444_C004), SKIP), irq(but(S, pc=RAM + 4, x3=0x8444_C004)))
    check_records(records, against, tallies)
    spec, kernel = tallies.values()
    assert spec.rounds == kernel.rounds == spec.relations["host"] == 2
    assert (spec.relations["restore"], kernel.relations["restore"]) == (1, 2), "spec panics at the trap"
    assert spec.exits == kernel.exits and not spec.clusters and not kernel.clusters


def test_many_slots_take_linear_time() -> None:
    def seconds(count: int) -> float:
        slots = [Recorded(1, 0, call("slot", n + 1, 0, 1 << 36 | n << 12, 0x1000)) for n in range(count)]
        begin = time.process_time()
        assert not check(slots + started(irq(S), entry(S))).clusters
        return time.process_time() - begin

    few, many = seconds(4000), seconds(32_000)
    assert many < 24 * few, "eight times as many"
