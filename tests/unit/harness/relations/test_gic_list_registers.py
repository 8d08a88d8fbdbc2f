# SPDX-License-Identifier: Apache-2.0
"""What a vCPU is shown of its GIC: in a record, in a file, and compared with distributor, guest and CPU interface."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import protocol
from harness.errors import AgentProtocolError, InputError
from harness.findings.check import check
from harness.findings.checked import CheckResult
from harness.gic.cpu_interface import Interface
from harness.gic.departures import ACTIVE_FILL_LISTS, COMES_AFTER_END
from harness.gic.distributor import Gic
from harness.gic.registers import LIST_REGISTERS
from harness.layout import GICD
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.gic_list_registers import (
    ACTIVE,
    GROUP_1,
    HW,
    PENDING,
    PRIORITY_SHIFT,
    STATE,
    View,
    Where,
    at_entry,
    at_exit,
    at_user,
    describe,
    view,
    written,
)
from harness.report.sites import sites
from harness.report.trace_text import trace_lines
from harness.scenario.code_layout import base_of
from harness.trace.decode import Records, decode
from harness.trace.events import Lists, Trace
from harness.trace.tracefile import format_trace, parse_trace
from tests.support import traces
from tests.support.gic import CATALOGUE, CPU, MARKS, SCENARIO, VCPU, made, opened, spi
from tests.support.traces import LAYOUT, entry, esr, state, trap, user

HERE = Where("HVC64", 1, 2)
WORDS = len(protocol.LIST_WORDS)
EOI = 1 << 41
JUDGED = [*range(6), *range(32, 41), *range(42, 45), *range(52, 56), 60, 61, 62, 63]
"""Bits of a list register with a pending interrupt of group 1 of which none may be otherwise."""


def shown(*lr: int, used: int | None = None, hcr: int = 1, vmcr: int = 0, active: int = 0) -> View:
    words = (*lr, *[0] * (protocol.LIST_REGISTERS - len(lr)))
    return View(len(lr) if used is None else used, hcr, vmcr, (0, 0, 0, 0, active, 0, 0, 0), words)


def lr(intid: int, state: int = PENDING, priority: int = 0x80, more: int = GROUP_1) -> int:
    return state | more | priority << PRIORITY_SHIFT | intid


def names(found: Iterable[Divergence | Unchecked]) -> list[str]:
    return [one.name if isinstance(one, Divergence) else one.why for one in found]


def entered(gic: Gic, now: View, vcpu: int = 0) -> list[str]:
    gic.enter(vcpu)
    return names(at_entry(now, gic, vcpu, HERE))


# The record.


def test_they_go_through_a_record_and_a_file() -> None:
    words = tuple(range(100, 100 + WORDS))
    head = struct.pack("<IIII", protocol.RECORD_TYPES["lists"], protocol.LIST_SIZE, 0, 0)
    record = head + struct.pack(f"<{WORDS}Q", *words)
    events = entry(state()), trap(state(), esr("HVC64")), user(state(), 0)
    area = b"".join(traces.record(event) + record for event in events)
    lists = tuple(Lists(i, words) for i in range(3))
    assert decode(area, LAYOUT) == Records(events, lists=lists)
    trace = Trace(events, "ok", 0, False, lists=lists)
    assert parse_trace(format_trace(trace)) == trace
    seen = view(words)
    assert (seen.used, seen.hcr, seen.vmcr, seen.active, seen.lr) == (100, 101, 102, words[3:11], words[11:])
    with pytest.raises(AgentProtocolError, match="interrupt lists"):
        decode(record, LAYOUT)


def test_a_file_with_others_is_no_trace() -> None:
    text = format_trace(Trace((entry(state()),), "ok", 0, False))
    for rows in ("7", "[[0]]", "[[9" + ', "0x0"' * WORDS + "]]", "[[0" + ", 0" * WORDS + "]]"):
        with pytest.raises(InputError, match="lists"):
            parse_trace(text.replace('"vhe"', f'"lists": {rows}, "vhe"'))


# The entry: what the distributor has.


def test_what_is_pending_is_shown_as_it_is_configured() -> None:
    assert entered(made(), shown(lr(40))) == []
    assert entered(made(), shown(lr(40, more=GROUP_1 | EOI))) == [], "the hypervisor's own choice"
    assert entered(made(), shown(lr(40, priority=0x87))) == [], "bits that a GIC need not have"
    for wrong in (lr(40, priority=0x40), lr(40, more=0), lr(40, more=GROUP_1 | HW), lr(40, more=GROUP_1 | 40 << 32)):
        assert entered(made(), shown(wrong)) == ["host.gic_list"], hex(wrong)


def test_nothing_else_is_shown() -> None:
    for now in (shown(lr(40), lr(40)), shown(lr(40), lr(41)), shown(lr(40), lr(70)), shown(lr(40, STATE))):
        assert "host.gic_list" in entered(made(), now)
    assert entered(made(raised=False), shown(lr(40))) == ["host.gic_list"]
    assert entered(made(raised=False), shown(lr(40), used=0)) == [], "a register that is not loaded"
    assert entered(made(raised=False), shown(lr(40, 0))) == [], "it shows nothing"


def test_nothing_is_left_out_and_the_interface_is_on() -> None:
    assert entered(made(), shown()) == ["host.gic_list"]
    assert entered(made(), shown(lr(40), hcr=0)) == ["host.ich_hcr_el2"]
    assert entered(made(raised=False), shown(hcr=0)) == []


def test_a_full_list_has_those_of_the_highest_priority() -> None:
    gic = made()
    for i in range(1, 6):
        spi(gic, 40 + i, 0x10 * i)
        gic.irq(0, 40 + i).set_line(True)
    best = [lr(40 + i, priority=0x10 * i) for i in range(1, LIST_REGISTERS + 1)]
    assert entered(gic, shown(*best)) == []
    assert entered(gic, shown(*best[1:], lr(40))) == ["host.gic_list"] * 2, "41 and 45 outrank 40"
    assert entered(gic, shown(*best[:-1])) == ["host.gic_list"] * 3, "there is room"


def full(*departures: str) -> Gic:
    """Four SPIs are active, their priority dropped, and 40 is pending."""
    gic = Gic(2, frozenset(departures))
    opened(gic)
    gic.interfaces[0].write("icc_ctlr_el1", 2)
    for i in range(4, 0, -1):
        spi(gic, 40 + i, 0x10 * i + 0x10, edge=True)
        gic.irq(0, 40 + i).latch = True
        assert gic.enter(0).acknowledge() == 40 + i
        gic.interfaces[0].write("icc_eoir1_el1", 40 + i)
        gic.leave(0)
    spi(gic, 40, 0x10, edge=True)
    gic.irq(0, 40).latch = True
    return gic


def test_active_ones_do_not_keep_a_pending_one_away() -> None:
    active = [lr(40 + i, ACTIVE, 0x10 * i + 0x10) for i in range(1, 5)]
    assert entered(full(), shown(*active)) == ["host.gic_list"]
    assert entered(full(), shown(*active[:-1], lr(40, priority=0x10))) == []
    assert entered(full(ACTIVE_FILL_LISTS), shown(*active)) == []
    assert entered(full(ACTIVE_FILL_LISTS), shown(*active[:-1])) == ["host.gic_list"], "not all are filled"


def test_what_may_be_there_is_told() -> None:
    gic = made(raised=False)
    gic.irq(0, 40).latch = None
    assert entered(gic, shown()) == ["what is not in list registers: an interrupt of which something is not known"]


def test_an_active_disabled_edge_is_pending_with_that_departure() -> None:
    for departures, right in (((), ACTIVE), ((COMES_AFTER_END,), STATE)):
        for known in (True, None):
            gic = Gic(2, frozenset(departures))
            opened(gic)
            spi(gic, 40, edge=True)
            gic.write(GICD.base + 0x184, 4, 1 << 8)
            gic.irq(0, 40).latch, gic.irq(0, 40).active = True, known
            divergences = [
                state
                for state in (ACTIVE, STATE)
                if "host.gic_list" in entered(gic, shown(lr(40, state, more=GROUP_1)))
            ]
            assert divergences == [ACTIVE ^ STATE ^ right | ACTIVE], departures
    assert "host.gic_list" in entered(gic, shown(lr(40, STATE, priority=0x40)))
    gic.irq(0, 40).active = False
    assert "host.gic_list" in entered(gic, shown(lr(40))), "only an active one"
    gic.irq(0, 40).edge, gic.irq(0, 40).active = None, True
    assert "host.gic_list" not in entered(gic, shown(lr(40, STATE)))


def test_more_than_there_is_room_for_come_in_their_order() -> None:
    gic = made()
    for i in range(1, 6):
        spi(gic, 40 + i, 0x10 * i)
        gic.irq(0, 40 + i).set_line(True)
    for i in (1, 2):
        interface = gic.enter(0)
        assert interface.acknowledge() == 40 + i
        gic.irq(0, 40 + i).set_line(False)
        interface.write("icc_eoir1_el1", 40 + i)
        gic.leave(0)
    interface = gic.enter(0)
    assert [interface.acknowledge(), interface.lost] == [43, ""]
    crowded = made()
    for i in range(1, 6):
        spi(crowded, 40 + i, 0x80)
        crowded.irq(0, 40 + i).set_line(True)
    interface = crowded.enter(0)
    assert (interface.pending, len(interface.waiting)) == ({}, 6), "which of them are presented is unknown"
    assert interface.acknowledge() is None


def test_what_was_acknowledged_is_active() -> None:
    gic = made(edge=True)
    gic.enter(0).acknowledge()
    gic.leave(0)
    assert entered(gic, shown(lr(40, ACTIVE))) == []
    assert entered(gic, shown(lr(40, STATE))) == ["host.gic_list"], "the edge came once"
    assert entered(gic, shown(lr(40, PENDING))) == ["host.gic_list"]
    assert entered(gic, shown(lr(40, ACTIVE, priority=0))) == [], "it may keep the one that it was taken with"
    gic.irq(0, 40).set_line(False)
    gic.irq(0, 40).set_line(True)
    for both in (STATE, ACTIVE):
        assert entered(gic, shown(lr(40, both))) == [], "it is signalled when it is ended, not before"


def test_an_active_interrupt_that_goes_to_another_group_is_nobodys() -> None:
    gic = made(edge=True)
    gic.enter(0).acknowledge()
    gic.leave(0)
    gic.write(GICD.base + 0x84, 4, 0xFFFF_FFFF)
    assert not gic.lost, "the same group"
    gic.write(GICD.base + 0x84, 4, 0)
    assert "another group" in entered(gic, shown(lr(40, ACTIVE, more=0)))[0]


def test_what_nobody_knows_is_said() -> None:
    (why,) = entered(made(), shown(lr(40), lr(27)))
    assert "timers" in why
    gic = made()
    gic.irq(0, 40).priority = None
    assert "something is not known" in entered(gic, shown(lr(40)))[0]
    gic.irq(0, 40).group_1 = False
    assert "group 0" in entered(gic, shown(lr(40, more=0)))[0]
    assert entered(gic, shown(lr(40)))[-1] == "host.gic_list", "its group is known"
    gic.mark_unknown("a reason")
    assert entered(gic, shown(lr(50))) == ["list registers: a reason"]
    assert "host.gic_list" in entered(gic, shown(lr(50), lr(50)))


@given(st.dictionaries(st.integers(32, 63), st.integers(0, 15), min_size=1, max_size=LIST_REGISTERS - 1), st.data())
def test_each_bit_that_is_judged_shows(priorities: dict[int, int], data: st.DataObject) -> None:
    gic = Gic(2)
    opened(gic)
    for intid, priority in priorities.items():
        spi(gic, intid, priority << 4)
        gic.irq(0, intid).set_line(True)
    listed = [lr(intid, priority=priority << 4) for intid, priority in priorities.items()]
    assert entered(gic, shown(*listed)) == []
    assert entered(gic, shown(), vcpu=1) == [], "the other vCPU gets none"
    which, bit = data.draw(st.integers(0, len(listed) - 1)), data.draw(st.sampled_from(JUDGED))
    listed[which] ^= 1 << bit
    assert "host.gic_list" in entered(gic, shown(*listed))


# The exit: what the guest did.

ALL = (0, PENDING, ACTIVE, STATE)


@given(st.sampled_from(["nothing", "acknowledge", "end"]), st.sampled_from(ALL))
def test_a_list_register_is_as_the_guest_left_it(did: str, found: int) -> None:
    interface = made(edge=True).enter(0)
    if did != "nothing":
        assert interface.acknowledge() == 40
    if did == "end":
        interface.write("icc_eoir1_el1", 40)
    wanted = {"nothing": PENDING, "acknowledge": ACTIVE, "end": 0}[did]
    differs = names(at_exit(shown(lr(40)), shown(lr(40, found), used=0), interface, HERE))
    assert differs == ([] if found == wanted else ["switch.ich_lr0_el2"])


@pytest.mark.parametrize("before", ALL)
def test_where_nobody_followed_the_guest_hardware_still_makes_nothing_pending(before: int) -> None:
    interface = Interface()
    interface.mark_unknown("a reason")
    reachable = {0: {0}, PENDING: {PENDING, ACTIVE, 0}, ACTIVE: {ACTIVE, 0}, STATE: set(ALL)}[before]
    for after in ALL:
        found = names(at_exit(shown(lr(40, before)), shown(lr(40, after)), interface, HERE))
        assert ("switch.ich_lr0_el2" in found) == (after not in reachable)
        assert ("list registers: a reason" in found) == bool(before)


def test_nothing_but_its_state_changes() -> None:
    for other in (lr(41), lr(40, priority=0), lr(40, more=0), lr(40, more=GROUP_1 | EOI)):
        assert names(at_exit(shown(lr(40)), shown(other), Interface(), HERE)) == ["switch.ich_lr0_el2"]
    assert names(at_exit(shown(used=0), shown(lr(40)), Interface(), HERE)) == [], "it was not loaded"


# Userspace: what the guest wrote.


def test_the_control_registers_are_as_the_guest_wrote_them() -> None:
    interface = Interface()
    assert written(interface) == (0, 3), "both groups are disabled by a reset, the rest is UNKNOWN"
    for name, value in (("icc_ctlr_el1", 2), ("icc_pmr_el1", 0xF0), ("icc_igrpen1_el1", 1), ("icc_bpr1_el1", 5)):
        interface.write(name, value)
    right = 0xF000_0000 | 5 << 18 | 1 << 9 | 1 << 1
    assert names(at_user(shown(vmcr=right | 1 << 3), None, interface, HERE)) == []
    for bit in (0, 1, 4, 9, 18, 19, 20, *range(27, 32)):
        assert names(at_user(shown(vmcr=right ^ 1 << bit), None, interface, HERE)) == ["switch.ich_vmcr_el2"], bit
    interface.mark_unknown("a reason")
    assert names(at_user(shown(), None, interface, HERE)) == ["ICH_VMCR_EL2 and active priorities: a reason"]


def test_what_the_guest_never_wrote_stays() -> None:
    interface, reset = Interface(), shown(vmcr=0x4C_0000)
    assert names(at_user(reset, None, interface, HERE)) == []
    for bit in (4, 9, 18, 31):
        assert names(at_user(shown(vmcr=0x4C_0000 ^ 1 << bit), reset, interface, HERE)) == ["switch.ich_vmcr_el2"]
    interface.write("icc_ctlr_el1", 0)
    interface.write("icc_bpr1_el1", 0xFFFF_FFFF)
    assert (interface.point, interface.settled) == (None, False), "the emulator reads a negative number"
    interface.write("icc_bpr1_el1", 0)
    least = shown(vmcr=0x48_0000)
    (why,) = names(at_user(least, reset, interface, HERE))
    assert "need not be kept" in why, "the least binary point is the implementation's"
    assert names(at_user(reset, least, interface, HERE)) == [why], "a switch may make it that"
    assert "switch.ich_vmcr_el2" in names(at_user(shown(vmcr=0x48_0010), least, interface, HERE))
    interface.write("icc_bpr1_el1", 4)
    assert names(at_user(shown(vmcr=0x50_0000), least, interface, HERE)) == []
    assert names(at_user(reset, shown(vmcr=0x50_0000), interface, HERE)) == ["switch.ich_vmcr_el2"]


def test_each_running_interrupt_has_an_active_priority() -> None:
    interface = made().enter(0)
    interface.acknowledge()
    kept = 0xF000_0000 | 1 << 1
    assert "switch.ich_ap1r_el2" not in names(at_user(shown(vmcr=kept, active=1 << 16), None, interface, HERE))
    for active in (0, 3):
        assert "switch.ich_ap1r_el2" in names(at_user(shown(vmcr=kept, active=active), None, interface, HERE))


# All of it along a trace.


def _trace(**words: int) -> Trace:
    here = state(pc=base_of(VCPU))
    events = (entry(here, marks=MARKS), trap(here, esr("HVC64"), marks=MARKS), user(here, 10, marks=MARKS, error=4))
    values = [words.get(word.name, 0) for word in protocol.LIST_WORDS]
    return Trace(events, "ok", 0, False, lists=tuple(Lists(i, tuple(values)) for i in range(3)))


def _of_lists(checked: CheckResult) -> list[str]:
    return [d.name for d in checked.unexplained if "gic" in d.name or "ich" in d.name]


def test_a_trace_is_compared_and_shown() -> None:
    assert _of_lists(check(SCENARIO, _trace(), "spec", CPU, CATALOGUE)) == []
    trace = _trace(used_lrs=1, ich_hcr_el2=1, ich_lr0_el2=lr(40), ich_vmcr_el2=2, ich_ap1r0_el2=1)
    checked = check(SCENARIO, trace, "spec", CPU, CATALOGUE)
    assert _of_lists(checked) == ["host.gic_list", "switch.ich_vmcr_el2", "switch.ich_ap1r_el2"]
    assert checked.relations["lists"] == 1
    shown_at = sites(SCENARIO, trace, "spec", checked.judged)
    told = [j.divergence for site in shown_at for j in (*site.sentences, *(j for row in site.rows for j in row.judged))]
    assert sorted(d.name for d in told if d in checked.unexplained) == sorted(d.name for d in checked.unexplained)
    text = "\n".join(trace_lines(trace))
    assert describe(lr(40)) == "40 pending, priority 0x80, group 1"
    assert f"ich_hcr_el2=0x1; lr0 {describe(lr(40))}" in text
    assert "ich_vmcr_el2=0x2; active priorities 0x0 0x0 0x0 0x0 0x1" in text
    assert text.count(" L ") == 2, "only what changed"
