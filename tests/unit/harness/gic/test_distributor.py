# SPDX-License-Identifier: Apache-2.0
"""The GICv3 that a guest has: what is certain of it is predicted, what is not is said to be unknown."""

from __future__ import annotations

import pytest

from harness.arch import exceptions
from harness.arch.a64 import encode
from harness.arch.registers import MASK64
from harness.arch.sysregs import BY_NAME
from harness.gic.cpu_interface import below
from harness.gic.distributor import Gic
from harness.gic.registers import BANKS, SPURIOUS, place
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import RACE, predict_run
from harness.guest.walk import Goal, walk
from harness.layout import GICD, GICR, VECTORS
from harness.trace.rounds import GuestRun
from tests.support.gic import AT, CPU, HVC, made, opened, spi
from tests.support.traces import but, entry, irq, state

SGI_PAGE = GICR.base + 0x1_0000
UNMASKED, MASKED = 0x345, 0x3C5
ICC = {name: BY_NAME[name].encoding for name in BY_NAME if name.startswith("icc_")}


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


def test_an_input_left_at_1_means_nothing_once_it_is_configured_otherwise() -> None:
    """KVM API 4.25: of an edge userspace raises and lowers the input; what a 1 is for a level then, it does not say."""
    gic = Gic(1)
    gic.write(GICD.base + 0xC08, 4, 8)  # SPI 33: an edge
    gic.set_line(0, 33, True)
    assert gic.irq(0, 33).pending is True
    gic.write(GICD.base + 0x284, 4, 2)
    assert gic.irq(0, 33).pending is False
    gic.write(GICD.base + 0xC08, 4, 0)
    assert gic.irq(0, 33).edge is False and gic.irq(0, 33).pending is None
    assert gic.read(GICD.base + 0x204, 4)[1] & 2
    gic.set_line(0, 33, False)
    gic.set_line(0, 33, True)
    assert gic.irq(0, 33).pending is True


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
        assert interface.signals() is None, "what it has acknowledged is unknown"
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
