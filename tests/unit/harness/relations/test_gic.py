# SPDX-License-Identifier: Apache-2.0
"""A GIC in a trace: what KVM did is compared with what its registers say."""

from __future__ import annotations

from collections.abc import Iterable

from harness import protocol
from harness.arch import exceptions
from harness.findings.check import check
from harness.gic.registers import SPURIOUS
from harness.layout import GICD
from harness.protocol import OP_GIC_LINE, OP_RESET
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.gic import GicMonitor, line_fails
from harness.relations.host import compare_entry_state
from harness.scenario.requirements import uses_gic
from harness.scenario.scenario import parse
from harness.trace.events import HOST, Event, Host, Switch, Trace
from harness.trace.rounds import IN_KERNEL
from tests.support.gic import CATALOGUE, CPU, HERE, MARKS, SCENARIO, VCPU
from tests.support.traces import SKIP, but, entry, esr, host_set, load_esr, rounds, state, trap, user

SPI = protocol.GIC_LINES["spi"]


def access(values: exceptions.State, address: int, rt: int, size: int = 4, *, write: bool = False) -> Switch:
    """An exit of the guest for a register of the GIC."""
    return trap(
        values,
        load_esr(rt, size, wide=size == 8, write=write),
        far=address,
        hpfar=address >> 12 << 4,
        marks=MARKS,
    )


def after(exit_: Switch, values: exceptions.State, data: int = 0, **fields: int) -> Switch:
    """The entry after an access that KVM did itself."""
    return entry(values, SKIP, mmio_addr=exit_.far, mmio_data=data, marks=MARKS, **fields)


def line(number: int, level: int, error: int = 0) -> Host:
    return Host(HOST, 0, OP_GIC_LINE, SPI | number, level, error, True, VCPU)


def watched(events: Iterable[Event]) -> list[Divergence | Unchecked]:
    events, watch = tuple(events), GicMonitor()
    for index, event in enumerate(events):
        watch.see(index, event)
    return [found for round_ in rounds(events) for found in watch.compare(round_)]


def test_only_scenarios_that_go_there_are_watched() -> None:
    assert uses_gic(SCENARIO)
    assert not uses_gic(parse("shadowfuzz-scenario 1\nabout x\nhvc 0x0\nvcpu 1.0\nhvc 0x0\n"))


def test_a_read_that_gives_something_else_is_a_divergence() -> None:
    values = state(pc=HERE, x1=2)
    write = access(values, GICD.base, 1, write=True)
    read = access(but(values, pc=HERE + 4), GICD.base, 3)
    begin = [entry(values, marks=MARKS), write, after(write, values), read]
    assert watched([*begin, after(read, but(read.values, x3=0x52), 0x52)]) == [
        Unchecked("host", "unknown bits of a register of the GIC", 3)
    ]
    (found,) = watched([*begin, after(read, but(read.values, x3=0x50), 0x50)])
    assert isinstance(found, Divergence)
    assert (found.name, found.expected, found.observed) == ("host.gic_read", 2, 0x50)


def test_userspace_hears_nothing_of_an_access() -> None:
    values = state(pc=HERE, x1=2)
    read = access(values, GICD.base, 3)
    told = Switch._make((*read[:2], 6, *read[3:]))._replace(kind=3)
    (found,) = watched([entry(values, marks=MARKS), read, told, entry(values, SKIP, marks=MARKS)])
    assert isinstance(found, Divergence)
    assert (found.name, found.observed) == ("host.gic", "user:MMIO")


def test_kvm_completes_an_access_of_its_own_before_userspace_has_its_turn() -> None:
    values = state(pc=HERE, x1=2)
    read = access(values, GICD.base, 3)
    back = user(but(values, pc=HERE + 4, x3=0x52), 10, marks=MARKS)
    events = [entry(values, marks=MARKS), read, back]
    for name, value in (("x3", 7), ("pc", 0x4000_0000)):
        written = host_set(name, value)._replace(context=VCPU)
        after_it = but(back.values, **{name: value})
        last = entry(after_it, mmio_addr=GICD.base, mmio_data=0x52, marks=MARKS)
        round_ = list(rounds((*events, written, last)))[-1]
        assert round_.action.outcome == IN_KERNEL
        assert list(compare_entry_state(round_, {})) == [], name


def test_a_line_that_is_there_can_be_set_and_another_cannot() -> None:
    for host, gic, fails in (
        (line(32, 1), True, False),
        (line(63, 0), True, False),
        (line(31, 1), True, True),
        (line(64, 1), True, True),
        (line(32, 1), False, True),
        (Host(HOST, 0, OP_GIC_LINE, protocol.GIC_LINES["ppi"] | 16, 1, 0, True, VCPU), True, False),
        (Host(HOST, 0, OP_GIC_LINE, protocol.GIC_LINES["ppi"] | 15, 1, 0, True, VCPU), True, True),
        (Host(HOST, 0, OP_GIC_LINE, protocol.GIC_LINES["ppi"] | 27, 1, 0, True, VCPU), True, None),
    ):
        assert line_fails(host, gic) is fails
    values = state(pc=HERE)
    call = trap(but(values, pc=HERE + 4), esr("HVC64"), marks=MARKS)
    events = [entry(values, marks=MARKS), call, line(40, 1, 22), entry(call.values, marks=MARKS)]
    (found,) = watched(events)
    assert isinstance(found, Divergence)
    assert found.name == "host.gic_line"


def test_a_reset_loses_the_interface_and_a_forged_exit_all() -> None:
    watch = GicMonitor()
    reset = Host(HOST, 0, OP_RESET, 0, 0, 0, True, VCPU)
    watch.see(0, reset)
    first, other = watch.enters(VCPU), watch.enters(VCPU + 1)
    assert first is not None
    assert other is not None
    assert (bool(first.lost), bool(other.lost)) == (True, False)
    watch.see(1, access(state(), GICD.base, 1)._replace(marks=MARKS | protocol.FORGE["esr"]))
    other = watch.enters(VCPU + 1)
    assert other is not None
    assert other.lost
    assert watch.enters(0) is None, "a vCPU without a GIC"


def test_an_access_that_traps_is_done_by_kvm() -> None:
    """Whether ICC_* accesses trap is KVM's choice: what they do is the same."""
    gic_read = esr("SYS64", 3 << 20 | 0 << 17 | 0 << 14 | 12 << 10 | 7 << 5 | 12 << 1 | 1)  # mrs x7, icc_iar1_el1
    values = state(pc=HERE)
    read = trap(values, gic_read, marks=MARKS)
    for intid, names in ((SPURIOUS, []), (40, ["host.gic_read"])):
        events = [entry(values, marks=MARKS), read, entry(but(values, x7=intid), SKIP, marks=MARKS)]
        assert [found.name for found in watched(events) if isinstance(found, Divergence)] == names


def test_the_check_of_a_scenario_knows_of_its_gic() -> None:
    """An acknowledge of nothing gives 1023, and nothing else."""
    scenario = parse("shadowfuzz-scenario 1\nabout x\nhvc 0x0\nvcpu 2.0\nmrs x7, icc_iar1_el1\nhvc 0x0\n")
    values = state(pc=HERE)
    for intid, found in ((SPURIOUS, set()), (33, {"switch.x7"})):
        exit_ = trap(but(values, pc=HERE + 8, x7=intid), esr("HVC64"), marks=MARKS)
        trace = Trace((entry(values, marks=MARKS), exit_), "ok", 0, False, ())
        checked = check(scenario, trace, "spec", CPU, CATALOGUE)
        assert {d.name for d in checked.unexplained if d.relation == "switch"} == found
