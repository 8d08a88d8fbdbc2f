# SPDX-License-Identifier: Apache-2.0
"""A WARN is KVM's answer only to the exit that was really forged, and only if it is that row's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import protocol
from harness.findings.asserted_alarms import sort_alarms
from harness.trace.events import Event, Trace
from harness.vm.alarms import Alarm
from tests.support.traces import but, entry, state, trap

S = state()
READ_OSLAR = 0x6228_0481
WRITE_ONLY = Alarm("warn", "bad_trap", "Unexpected sys_reg read to write-only register", "splat")
FORGED = protocol.FORGE["esr"]


def trace_of(*events: Event) -> Trace:
    return Trace(events, "ok", 0, False)


def test_an_assertion_about_what_was_forged_is_no_finding() -> None:
    found = sort_alarms([WRITE_ONLY], trace_of(entry(S), trap(S, READ_OSLAR, marks=FORGED)))
    assert found.findings == ()
    (asserted,) = found.asserted
    assert (asserted.alarm, asserted.kind, asserted.esr) == (WRITE_ONLY, "read-of-write-only-register", READ_OSLAR)
    assert asserted.name == "bad_trap at a forged read-of-write-only-register, ESR_EL2 0x62280481"


@pytest.mark.parametrize(
    ("esr", "fields"),
    [
        (READ_OSLAR, {}),  # a CPU reported it
        (READ_OSLAR & ~1, {"marks": FORGED}),  # a write
        (READ_OSLAR, {"marks": FORGED, "code": 0}),  # an interrupt
        (0x623A_0081, {"marks": FORGED}),  # another row
        (0x6232_0081, {"marks": FORGED}),  # a register that may be read
    ],
)
def test_any_other_exit_explains_nothing(esr: int, fields: dict[str, int]) -> None:
    found = sort_alarms([WRITE_ONLY], trace_of(entry(S), trap(S, esr, **fields)))
    assert (found.findings, found.asserted) == ((WRITE_ONLY,), ())


@pytest.mark.parametrize(
    "alarm",
    [
        replace(WRITE_ONLY, function="kvm_arch_vm_ioctl"),
        replace(WRITE_ONLY, words="Unexpected sys_reg write to read-only register"),
        replace(WRITE_ONLY, kind="bug"),
    ],
)
def test_any_other_alarm_is_a_finding_whatever_was_forged(alarm: Alarm) -> None:
    found = sort_alarms([alarm, WRITE_ONLY], trace_of(entry(S), trap(S, READ_OSLAR, marks=FORGED)))
    assert found.findings == (alarm,) and len(found.asserted) == 1


def test_without_alarms_no_trace_is_looked_at() -> None:
    assert sort_alarms([], trace_of()) == ((), ())


@pytest.mark.parametrize(
    ("fields", "translates", "is_finding"),
    [({"marks": FORGED}, False, False), ({"marks": FORGED}, True, True), ({}, False, True)],
)
def test_a_forged_walk_of_tables_that_the_guest_does_not_use(
    fields: dict[str, int], translates: bool, is_finding: bool
) -> None:
    """Linux 7.3, at.c __kvm_find_s1_desc_level: "We really expect the S1 MMU to be on here"."""
    walk = Alarm("warn", "__kvm_find_s1_desc_level", "", "splat")
    at = but(S, sctlr_el1=0xC5_0078 | translates)
    found = sort_alarms([walk], trace_of(entry(at), trap(at, 0x9268_B084, **fields)))
    assert bool(found.findings) is is_finding
    assert [one.kind for one in found.asserted] == ([] if is_finding else ["walk-without-translation"])


def test_a_forged_vncr_abort_that_kvm_does_not_know() -> None:
    alarm = Alarm("warn", "kvm_handle_vncr_abort", "Unhandled VNCR abort, ESR=32cd59b89565f400", "splat")
    found = sort_alarms([alarm], trace_of(entry(S), trap(S, 0x9565_F400, marks=FORGED)))
    assert [one.kind for one in found.asserted] == ["abort-of-a-nested-hypervisor"]
    assert sort_alarms([alarm], trace_of(entry(S), trap(S, 0x9565_F400))).findings == (alarm,)
