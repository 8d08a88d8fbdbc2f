# SPDX-License-Identifier: Apache-2.0
"""What a GIC with a departure does otherwise than one without, and that nothing else of it changes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.gic.departures import ACTIVE_FILL_LISTS, COMES_AFTER_END, ENABLE_LOSES, NONE
from harness.gic.distributor import Gic
from harness.gic.registers import LIST_REGISTERS, SPURIOUS
from harness.layout import GICD
from tests.support.gic import opened, spi

ALL = frozenset({ENABLE_LOSES, COMES_AFTER_END, ACTIVE_FILL_LISTS})
OFF, ON, DISABLE, ENABLE = (0, 4, 0), (0, 4, 2), (0x184, 4, 256), (0x104, 4, 256)


def gic_with(*names: str, edge: bool = True) -> Gic:
    """A GIC whose SPI 40 is let through to vCPU 0."""
    gic = Gic(2, frozenset(names))
    opened(gic)
    spi(gic, 40, edge=edge)
    return gic


def write(gic: Gic, *writes: tuple[int, int, int]) -> None:
    """Stores of the guest of vCPU 0, each after an exit and before an entry."""
    for offset, size, value in writes:
        gic.prune(0)
        gic.write(GICD.base + offset, size, value)
        gic.enter(0)


def pulse(gic: Gic, *intids: int) -> None:
    for intid in intids or (40,):
        gic.set_line(0, intid, True)
        gic.set_line(0, intid, False)


def signalled(gic: Gic) -> list[bool | None]:
    return [gic.enter(vcpu).signals() for vcpu in (0, 1)]


@pytest.mark.parametrize("names", [NONE, ALL])
def test_what_is_ordinary_is_not_changed(names: Iterable[str]) -> None:
    gic = gic_with(*names)
    pulse(gic)
    assert signalled(gic) == [True, False]
    assert gic.enter(0).acknowledge() == 40
    gic.leave(0)
    gic.prune(0)
    assert gic.enter(0).acknowledge() == SPURIOUS
    gic.interfaces[0].write("icc_eoir1_el1", 40)
    gic.leave(0)
    write(gic, DISABLE)
    pulse(gic)
    assert signalled(gic) == [False, False]
    write(gic, ENABLE)
    assert signalled(gic) == [True, False], "the enable bit of an interrupt queues it again"


@pytest.mark.parametrize("edge", [True, False])
def test_enabling_the_distributor_loses_what_is_pending(edge: bool) -> None:
    for names, comes in ((NONE, True), ({ENABLE_LOSES}, False), (ALL - {ENABLE_LOSES}, True)):
        gic = gic_with(*names, edge=edge)
        write(gic, OFF)
        gic.set_line(0, 40, True)
        write(gic, ON)
        assert signalled(gic) == [comes, False], names


def test_what_was_listed_leaves_its_list_at_an_exit_while_the_distributor_is_disabled() -> None:
    gic = gic_with(ENABLE_LOSES)
    pulse(gic)
    gic.prune(0)
    gic.write(GICD.base, 4, 0)
    gic.write(GICD.base, 4, 2)
    assert signalled(gic) == [True, False], "no exit in between"
    write(gic, OFF)
    write(gic, ON)
    assert signalled(gic) == [False, False]


def test_what_another_vcpu_enables_is_lost_as_well() -> None:
    """The vCPU that has the interrupt has not exited since."""
    gic = gic_with(ENABLE_LOSES)
    write(gic, OFF)
    pulse(gic)
    gic.write(GICD.base, 4, 2)
    assert signalled(gic) == [False, False]


def test_an_active_one_stays_listed() -> None:
    gic = gic_with(ENABLE_LOSES)
    pulse(gic)
    gic.enter(0).acknowledge()
    gic.leave(0)
    pulse(gic)
    write(gic, OFF, ON)
    gic.enter(0).write("icc_eoir1_el1", 40)
    gic.leave(0)
    assert signalled(gic) == [True, False]


@pytest.mark.parametrize("again", ["line", "enable", "pend", "group"])
def test_what_puts_it_back(again: str) -> None:
    gic = gic_with(ENABLE_LOSES)
    write(gic, OFF)
    pulse(gic)
    write(gic, ON)
    assert signalled(gic) == [False, False]
    if again == "line":
        pulse(gic)
    else:
        offset = {"enable": 0x104, "pend": 0x204, "group": 0x84}[again]
        write(gic, (offset, 4, 0xFFFF_FFFF))
    assert signalled(gic) == [True, False]


def test_a_line_that_does_not_change_puts_nothing_back() -> None:
    gic = gic_with(ENABLE_LOSES, edge=False)
    write(gic, OFF)
    gic.set_line(0, 40, True)
    write(gic, ON)
    gic.set_line(0, 40, True)
    assert signalled(gic) == [False, False], "a level that was high"
    gic.set_line(0, 40, False)
    gic.set_line(0, 40, True)
    assert signalled(gic) == [True, False]
    edge = gic_with(ENABLE_LOSES)
    write(edge, OFF)
    edge.set_line(0, 40, True)
    write(edge, ON)
    edge.irq(0, 40).line = True
    edge.set_line(0, 40, True)
    assert edge.irq(0, 40).listed is True, "an edge is one whatever the line was"
    unknown = gic_with(ENABLE_LOSES)
    write(unknown, OFF)
    unknown.irq(0, 40).edge = None
    unknown.set_line(0, 40, True)
    write(unknown, ON)
    unknown.set_line(0, 40, True)
    assert signalled(unknown) == [None, False], "whether an edge or a level"


def active_again(*names: str, edge: bool = True, off: bool = False, pend: bool = True) -> Gic:
    """An interrupt that is active and pending, and disabled."""
    gic = gic_with(*names, edge=edge)
    pulse(gic) if edge else gic.set_line(0, 40, True)
    gic.enter(0).acknowledge()
    gic.leave(0)
    write(gic, OFF if off else DISABLE)
    if pend:
        pulse(gic) if edge else gic.set_line(0, 40, True)
    return gic


@pytest.mark.parametrize("off", [True, False])
def test_the_end_of_an_active_one_signals_it_though_it_is_disabled(off: bool) -> None:
    for names, comes in ((NONE, False), ({COMES_AFTER_END}, True), (ALL, True), (ALL - {COMES_AFTER_END}, False)):
        interface = active_again(*names, off=off).enter(0)
        assert interface.signals() is False, "not before the end"
        interface.write("icc_eoir1_el1", 40)
        assert (interface.signals(), interface.late) == (comes, not comes), "at once"
        assert interface.acknowledge() == (40 if comes else SPURIOUS)
        if comes:
            interface.write("icc_eoir1_el1", 40)
            assert interface.signals() is False, "it comes once"


def test_only_an_edge_that_is_active_and_pending_does_so() -> None:
    for gic in (active_again(COMES_AFTER_END, edge=False), active_again(COMES_AFTER_END, pend=False)):
        interface = gic.enter(0)
        interface.write("icc_eoir1_el1", 40)
        assert interface.signals() is False
    gic = active_again(COMES_AFTER_END)
    gic.enter(0).write("icc_eoir1_el1", 40)
    gic.leave(0)
    assert signalled(gic) == [False, False], "at an exit it leaves its list register"
    gic = active_again(COMES_AFTER_END)
    gic.irq(0, 40).edge = None
    interface = gic.enter(0)
    assert interface.maybe and not interface.doubled, "whether it is an edge"


def filled(*names: str, active: int = LIST_REGISTERS, route: int = 0) -> Gic:
    """SPIs that are active, their priority dropped, and another that is pending."""
    gic = Gic(2, frozenset(names))
    for vcpu in (0, 1):
        opened(gic, vcpu)
        gic.interfaces[vcpu].write("icc_ctlr_el1", 2)
    for number in range(active):
        spi(gic, 41 + number, 0x80 - 0x10 * number, edge=True, route=route)
        pulse(gic, 41 + number)
        interface = gic.enter(route)
        assert interface.acknowledge() == 41 + number
        interface.write("icc_eoir1_el1", 41 + number)
        gic.leave(route)
    spi(gic, 40, 0x10, edge=True)
    pulse(gic)
    return gic


def test_as_many_active_ones_as_list_registers_keep_all_others_away() -> None:
    for names, comes in ((NONE, True), ({ACTIVE_FILL_LISTS}, False), (ALL, False), (ALL - {ACTIVE_FILL_LISTS}, True)):
        gic = filled(*names)
        assert signalled(gic) == [comes, False]
        interface = gic.enter(0)
        assert interface.acknowledge() == (40 if comes else SPURIOUS)
        assert interface.kept_away == ({} if comes else {40: 0x10})
    gic = filled(ACTIVE_FILL_LISTS)
    gic.enter(0).write("icc_dir_el1", 42)
    assert gic.interfaces[0].signals() is False, "before the next entry"
    gic.leave(0)
    assert signalled(gic) == [True, False], "one list register is free"


def test_fewer_or_another_vcpus_keep_nothing_away() -> None:
    assert signalled(filled(ACTIVE_FILL_LISTS, active=LIST_REGISTERS - 1)) == [True, False]
    assert signalled(filled(ACTIVE_FILL_LISTS, route=1)) == [True, False]
