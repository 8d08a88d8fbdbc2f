# SPDX-License-Identifier: Apache-2.0
"""The GICv3 that a guest has: what is certain of it is predicted, what is not is said to be unknown."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import MASK64
from harness.arch.sysregs import BY_NAME
from harness.findings.check import check
from harness.findings.known_divergences import Catalogue
from harness.gic.cpu_interface import below
from harness.gic.distributor import Gic
from harness.gic.registers import BANKS, SPURIOUS, place
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import RACE, predict_run
from harness.guest.walk import Goal, walk
from harness.layout import CODE, CONTEXTS, GIC_MACHINE, GICD, GICR, VECTORS
from harness.protocol import OP_GIC_LINE, OP_RESET
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.gic import GicMonitor, line_fails
from harness.relations.host import compare_entry_state
from harness.scenario.code_layout import base_of
from harness.scenario.requirements import uses_gic
from harness.scenario.scenario import parse
from harness.trace.events import HOST, Event, Host, Switch, Trace
from harness.trace.rounds import IN_KERNEL, GuestRun, rounds
from harness.vm.config import PROJECT
from tests.traces import SKIP, but, entry, esr, host_set, irq, load_esr, state, trap, user

CPU = cpu_model("cortex-a72")
AT = CODE.base
SGI_PAGE = GICR.base + 0x1_0000
VCPU = next(i for i, c in enumerate(CONTEXTS) if c.machine == GIC_MACHINE)
MARKS = VCPU << protocol.FLAGS_VCPU_SHIFT
SPI = protocol.GIC_LINES["spi"]
UNMASKED, MASKED = 0x345, 0x3C5
ICC = {name: BY_NAME[name].encoding for name in BY_NAME if name.startswith("icc_")}
HVC = encode("hvc", 0)
CATALOGUE = Catalogue.load(PROJECT / "corpus" / "known", "spec")


def spi(gic: Gic, intid: int, priority: int = 0x80, *, edge: bool = False, route: int = 0) -> None:
    """Let an SPI through, as a guest would."""
    gic.write(GICD.base, 4, 2)
    gic.write(GICD.base + 0x80 + intid // 32 * 4, 4, 0xFFFF_FFFF)
    gic.write(GICD.base + 0xC00 + intid // 16 * 4, 4, edge * 2 << intid % 16 * 2)
    gic.write(GICD.base + 0x400 + intid, 1, priority)
    gic.write(GICD.base + 0x6000 + 8 * intid, 8, route)
    gic.write(GICD.base + 0x100 + intid // 32 * 4, 4, 1 << intid % 32)


def opened(gic: Gic, vcpu: int = 0, mask: int = 0xF0) -> None:
    """Let interrupts through to a vCPU."""
    interface = gic.interfaces[vcpu]
    for name, value in (("icc_pmr_el1", mask), ("icc_igrpen1_el1", 1), ("icc_ctlr_el1", 0)):
        interface.write(name, value)


def made(*, edge: bool = False, raised: bool = True) -> Gic:
    """A GIC whose SPI 40 is let through to vCPU 0."""
    gic = Gic(2)
    opened(gic)
    spi(gic, 40, edge=edge)
    if raised:
        gic.irq(0, 40).set_line(True)
    return gic


def test_registers_are_where_the_architecture_has_them() -> None:
    assert place(GICD.base + 0x104, 4)[2:] == (32, 32)
    assert place(GICD.base + 0x421, 1)[2:] == (33, 1)
    assert place(GICD.base + 0x6108, 8)[2:] == (33, 1)
    assert place(SGI_PAGE + 0x2_0000 + 0x410, 4)[2:] == (16, 4)
    assert place(SGI_PAGE + 0x2_0000, 4)[0] == 1
    assert place(SGI_PAGE + 0x6108, 8).bank is None, "a redistributor routes nothing"
    assert place(GICR.base + 0x100, 4).bank is None, "its first page is another"
    for bank in BANKS:
        assert place(GICD.base + bank.offset, bank.sizes[0]).bank is bank


def test_a_raised_and_enabled_spi_is_signalled() -> None:
    gic = made()
    assert gic.enter(0).signals() is True
    assert gic.enter(1).signals() is False
    assert gic.enter(0).acknowledge() == 40
    assert gic.enter(0).signals() is False, "the running one does not interrupt itself"


@pytest.mark.parametrize(
    ("offset", "size", "value"), [(0, 4, 0), (0x184, 4, 1 << 8), (0x6000 + 320, 8, 1)], ids=["GIC", "enable", "route"]
)
def test_what_is_not_let_through_is_not_signalled(offset: int, size: int, value: int) -> None:
    gic = made(raised=False)
    gic.write(GICD.base + offset, size, value)
    gic.irq(0, 40).set_line(True)
    assert gic.enter(0).signals() is False


@pytest.mark.parametrize("name", ["icc_pmr_el1", "icc_igrpen1_el1"])
def test_the_interface_masks(name: str) -> None:
    gic = made()
    gic.interfaces[0].write(name, 0)
    assert gic.enter(0).signals() is False
    assert gic.enter(0).acknowledge() == SPURIOUS


def test_what_software_never_said_nobody_knows() -> None:
    """Group, priority and route of an SPI, and ICC_PMR_EL1, have no reset value that software may rely on."""
    for left_out in (0x84, 0x428, 0x6140):
        gic = Gic(2)
        opened(gic)
        for offset, size, value in ((0, 4, 2), (0x84, 4, MASK64), (0x428, 1, 0x80), (0x6140, 8, 0), (0x104, 4, 1 << 8)):
            if offset != left_out:
                gic.write(GICD.base + offset, size, value & (1 << 8 * size) - 1)
        gic.irq(0, 40).set_line(True)
        interface = gic.enter(0)
        assert interface.signals() is None, hex(left_out)
        assert interface.acknowledge() is None
        assert interface.signals() is None, "what it has acknowledged, nobody knows"
    gic = made()
    gic.interfaces[0].mask = None
    assert gic.enter(0).signals() is None


def test_priorities_and_the_bits_of_them_that_need_not_be_there() -> None:
    assert below(0x80, 0xF0) is True
    assert below(0x40, 0x40) is False
    assert below(0x44, 0x44) is None, "a GIC with 16 levels has 0x40 there"
    assert below(0x40, 0x44) is None, "so has an interface with 32"
    gic = made()
    spi(gic, 41, 0x20)
    gic.irq(0, 41).set_line(True)
    assert gic.enter(0).acknowledge() == 41
    gic.leave(0)
    assert gic.enter(0).signals() is False, "0x80 does not preempt 0x20"
    spi(gic, 42, 0x10)
    gic.irq(0, 42).set_line(True)
    assert gic.enter(0).signals() is None, "whether 0x10 does is up to ICC_BPR1_EL1"


def test_two_of_one_priority_come_in_any_order() -> None:
    gic = made()
    spi(gic, 41, 0x80)
    gic.irq(0, 41).set_line(True)
    interface = gic.enter(0)
    assert interface.signals() is True
    assert interface.acknowledge() is None


def test_a_level_comes_again_and_an_edge_does_not() -> None:
    for edge in (False, True):
        gic = made(edge=edge)
        assert gic.enter(0).acknowledge() == 40
        gic.interfaces[0].write("icc_eoir1_el1", 40)
        assert gic.interfaces[0].signals() is (False if edge else None), "a level does so in finite time"
        gic.leave(0)
        assert gic.enter(0).signals() is not edge
        gic.irq(0, 40).set_line(False)
        assert gic.enter(0).signals() is False


def test_an_end_in_two_steps() -> None:
    gic = made(edge=True)
    interface = gic.enter(0)
    interface.write("icc_ctlr_el1", 2)
    interface.acknowledge()
    interface.write("icc_eoir1_el1", 40)
    gic.leave(0)
    assert gic.read(GICD.base + 0x304, 4)[0] == 1 << 8
    gic.enter(0).write("icc_dir_el1", 40)
    gic.leave(0)
    assert gic.read(GICD.base + 0x304, 4)[0] == 0


@pytest.mark.parametrize("write", [("icc_eoir1_el1", 41), ("icc_dir_el1", 40), ("icc_eoir0_el1", 40)])
def test_an_end_that_is_none_loses_the_interface(write: tuple[str, int]) -> None:
    interface = made().enter(0)
    interface.acknowledge()
    interface.write(*write)
    assert interface.lost
    assert interface.signals() is None


def test_an_sgi_goes_to_those_that_it_names() -> None:
    for value, sender, reached in ((0x500_0003, 0, [True, True]), (0x500_0002, 0, [False, True])):
        gic = _with_sgi(5)
        gic.generate(value, sender)
        assert [gic.enter(vcpu).signals() for vcpu in (0, 1)] == reached
    gic = _with_sgi(5)
    gic.generate(1 << 40 | 0x500_0000, 1)
    assert [gic.enter(vcpu).signals() for vcpu in (0, 1)] == [True, False]
    gic = _with_sgi(5)
    gic.generate(0x501_0003, 0)
    assert [gic.enter(vcpu).signals() for vcpu in (0, 1)] == [False, False], "another cluster"


def _with_sgi(intid: int) -> Gic:
    gic = Gic(2)
    gic.write(GICD.base, 4, 2)
    for vcpu in (0, 1):
        opened(gic, vcpu)
        page = SGI_PAGE + vcpu * 0x2_0000
        for offset, size, value in ((0x80, 4, 0xFFFF), (0x400 + intid, 1, 0x80), (0x100, 4, 1 << intid)):
            gic.write(page + offset, size, value)
    return gic


def test_what_was_written_reads_back() -> None:
    gic = made()
    for offset, size, value, unknown in (
        (0x84, 4, 0xFFFF_FFFF, 0),
        (0x104, 4, 1 << 8, 0),
        (0x184, 4, 1 << 8, 0),
        (0x204, 4, 1 << 8, 0),
        (0x428, 1, 0x80, 0x0F),
        (0x6140, 8, 0, MASK64 & ~0xFF_00FF_FFFF),
        (0x110, 4, 0, 0),
    ):
        assert gic.read(GICD.base + offset, size) == (value, unknown), hex(offset)
    assert gic.read(GICD.base + 0x429, 1)[1] == MASK64 & 0xFF, "never written"
    assert gic.read(GICD.base + 4, 4)[1] == MASK64, "GICD_TYPER says what the implementation is like"
    gic.write(GICD.base + 0x104, 1, 0)
    assert gic.lost, "a byte of it need not be writable"
    assert gic.enter(0).signals() is None


# The guest.


def test_the_guest_takes_it_when_it_is_unmasked() -> None:
    code = {AT: HVC}
    masked = state(pstate=MASKED)
    assert walk(masked, Goal(AT), GuestContext(code, CPU, gic=made().enter(0))).state == masked
    for pstate, offset in ((UNMASKED, 0x280), (0x340, 0x480)):
        before = state(pstate=pstate)
        found = walk(before, Goal(VECTORS.base + offset), GuestContext(code, CPU, gic=made().enter(0)))
        assert found.state == exceptions.take_exception(before, offset=exceptions.IRQ_OFFSET)
        there = walk(before, Goal(AT), GuestContext(code, CPU, gic=made().enter(0)))
        assert there.state is None, "the HVC is not reached"


def test_the_guest_acknowledges_and_ends_it() -> None:
    words = [encode("mrs", "x7", ICC["icc_iar1_el1"]), encode("msr", ICC["icc_eoir1_el1"], "x7"), HVC]
    gic = made(edge=True)
    interface = gic.enter(0)
    found = walk(state(), Goal(AT + 8), GuestContext({AT + 4 * i: w for i, w in enumerate(words)}, CPU, gic=interface))
    assert found.state is not None
    assert found.state[7] == 40
    assert (interface.acknowledged, interface.ended) == ({40}, {40})
    gic.leave(0)
    assert gic.enter(0).acknowledge() == SPURIOUS


def test_what_the_guest_lets_through_itself_comes_in_finite_time() -> None:
    words = {AT: encode("msr", ICC["icc_pmr_el1"], "x1"), AT + 4: HVC}
    gic = made()
    gic.interfaces[0].write("icc_pmr_el1", 0)
    found = walk(state(x1=0xF0, pstate=UNMASKED), Goal(AT + 4), GuestContext(words, CPU, gic=gic.enter(0)))
    assert found.state is None
    assert not found.certain
    assert "finite time" in found.why


def test_what_cannot_be_accessed_so_is_undefined() -> None:
    for word in (encode("mrs", "x1", ICC["icc_eoir1_el1"]), encode("msr", ICC["icc_iar1_el1"], "x1")):
        found = walk(state(), Goal(VECTORS.base + 0x200), GuestContext({AT: word}, CPU, gic=made().enter(0)))
        assert found.state is not None
    code = {AT: encode("msr", ICC["icc_sgi1r_el1"], "x1")}
    sends = walk(state(), Goal(AT + 4), GuestContext(code, CPU, gic=made().enter(0)))
    assert (sends.state, sends.certain) == (None, True), "it must trap"


def test_an_interrupt_of_the_host_leaves_the_interface_alone() -> None:
    """Whichever came first: nothing of the guest's code ran."""
    before = state(pstate=UNMASKED)
    for after, lost in (
        (before, False),
        (exceptions.take_exception(before, offset=0x80), False),
        (but(before, pc=4), True),
    ):
        interface = made().enter(0)
        run = predict_run(GuestRun(1, entry(before), irq(after)), GuestContext({AT: HVC}, CPU, Memory(), interface))
        assert run.path.why == RACE
        assert bool(interface.lost) == lost


def test_bits_that_the_cpu_does_not_keep_are_no_sign_of_a_guest_that_ran_on() -> None:
    before = state(csselr_el1=0xFFF0)
    interface = made().enter(0)
    context = GuestContext({AT: HVC}, CPU, Memory(), interface)
    run = predict_run(GuestRun(1, entry(before), irq(but(before, csselr_el1=0))), context)
    assert run.path.state == before
    assert not interface.lost


# A trace.

SCENARIO = parse("shadowfuzz-scenario 1\nabout x\nhvc 0x0\nvcpu 2.0\nldr w3, [x1]\nhvc 0x0\n")
HERE = base_of(VCPU)


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
    """The entry behind an access that KVM did itself."""
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
        Unchecked("host", "bits of a register of the GIC that nobody knows")
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
