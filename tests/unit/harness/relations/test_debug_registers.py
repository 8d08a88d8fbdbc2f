# SPDX-License-Identifier: Apache-2.0
"""Debug registers in a trace: read and written, and what may become of them."""

from __future__ import annotations

import struct

import pytest

from harness import protocol
from harness.arch.a64 import encode
from harness.arch.sysregs import BY_NAME
from harness.errors import AgentProtocolError, InputError
from harness.layout import CODE
from harness.protocol import DEBUG_NAMES
from harness.relations.debug_registers import TDE, compare_debug_registers
from harness.relations.divergence import Divergence, Unchecked
from harness.scenario.requirements import needs_debug_registers
from harness.scenario.scenario import parse
from harness.trace.decode import Records, decode
from harness.trace.events import Event, Points, Trace
from harness.trace.tracefile import format_trace, parse_trace
from tests.support import traces
from tests.support.traces import LAYOUT, entry, esr, host_reset, state, trap

DEBUGGED = protocol.DEBUG["debugged"]
S = state(x5=0xA000)
WRITE = encode("msr", BY_NAME["dbgbvr0_el1"].encoding, "x5")
TRAPPED = esr("SYS64", 2 << 20 | 4 << 17 | 5 << 5)
"""MSR DBGBVR0_EL1, X5 (Arm ARM D17.2.37, ISS encoding for MSR)."""


def points(event: int, mdcr: int = 0, **values: int) -> Points:
    return Points(event, (mdcr, *(values.get(name, 0) for name in DEBUG_NAMES[1:])))


def found(
    events: tuple[Event, ...], *held: Points, code: tuple[int, ...] = (), restarts: tuple[int, ...] = ()
) -> list[str]:
    words = {CODE.base + 4 * i: word for i, word in enumerate(code)}
    differences = compare_debug_registers(Trace(events, "ok", 0, False, points=held), words, restarts)
    return [d.name if isinstance(d, Divergence) else d.why for d in differences]


def test_they_go_through_a_record_and_a_file() -> None:
    words = tuple(range(100, 100 + len(protocol.DEBUG_WORDS)))
    head = struct.pack("<IIII", protocol.RECORD_TYPES["debug"], protocol.DEBUG_SIZE, 0, 0)
    record = head + struct.pack(f"<{len(words)}Q", *words)
    events = entry(S), trap(S, esr("HVC64"))
    area = traces.record(events[0]) + record + traces.record(events[1])
    assert decode(area, LAYOUT) == Records(events, points=(Points(0, words),))
    trace = Trace(events, "ok", 0, False, points=(Points(0, words),))
    assert parse_trace(format_trace(trace)) == trace
    with pytest.raises(AgentProtocolError, match="debug registers in front of all"):
        decode(record, LAYOUT)
    with pytest.raises(AgentProtocolError):
        decode(area[: -LAYOUT.size] + head, LAYOUT)


@pytest.mark.parametrize(
    "rows", ["7", "[[2]]", '[[0, "0x1"]]', '[["0", 1]]', "[[9" + ', "0x0"' * len(DEBUG_NAMES) + "]]"]
)
def test_a_file_with_others_is_no_trace(rows: str) -> None:
    text = format_trace(Trace((entry(S),), "ok", 0, False)).replace('"vhe"', f'"points": {rows}, "vhe"')
    with pytest.raises(InputError, match="points"):
        parse_trace(text)


def test_debug_exceptions_are_whose_they_are() -> None:
    assert found((entry(S, marks=DEBUGGED),), points(0, TDE)) == []
    assert found((entry(S, marks=DEBUGGED),), points(0)) == ["host.mdcr_el2"]
    assert found((entry(S),), points(0)) == []
    assert found((entry(S),), points(0, TDE)) == ["host.mdcr_el2"]


def test_a_world_switch_changes_none() -> None:
    switch = entry(S, marks=DEBUGGED), trap(S, esr("HVC64"), marks=DEBUGGED)
    same, other = points(1, TDE, dbgbvr1_el1=8), points(1, TDE, dbgbvr1_el1=0x40000010)
    first = points(0, TDE, dbgbvr1_el1=8)
    assert found(switch, first, same) == []
    assert found(switch, first, other) == ["switch.dbgbvr1_el1"]
    assert found(switch, first, other, code=(WRITE,)) == ["switch.dbgbvr1_el1"], "it traps while userspace debugs"


def test_the_guest_may_have_its_own_in_the_cpu() -> None:
    switch = entry(S), trap(S, esr("HVC64"))
    before, after = points(0, dbgbvr0_el1=8), points(1, dbgbvr0_el1=0xA000)
    assert found(switch, before, after) == ["switch.dbgbvr0_el1"]
    (why,) = found(switch, before, after, code=(WRITE,))
    assert "itself" in why
    kept = points(0, TDE, dbgwvr0_el1=0x83), points(1, TDE, dbgwvr0_el1=0x80)
    assert found((entry(S, marks=DEBUGGED), trap(S, esr("HVC64"), marks=DEBUGGED)), *kept) == []
    assert found(switch, points(0, dbgwvr0_el1=1 << 63 | 8 | 3), points(1, dbgwvr0_el1=8)) == [], "bits that it loses"
    assert Unchecked("switch", why).why == why


def test_a_write_that_traps_reaches_the_guests_own() -> None:
    turn = trap(S, TRAPPED, marks=DEBUGGED), entry(S, marks=DEBUGGED)
    before, written = points(0, TDE), points(1, TDE, dbgbvr0_el1=0xA000)
    assert found(turn, before, written) == []
    assert found(turn, before, points(1, TDE)) == ["host.dbgbvr0_el1"]
    reset = turn[0], host_reset(), turn[1]
    assert found(reset, before, written._replace(event=2)) == [], "a reset leaves them UNKNOWN"
    other = (turn[0], before), (turn[1], points(1, TDE, dbgbvr3_el1=0xA000))
    events, held = zip(*other, strict=True)
    assert found(events, *held) == ["host.dbgbvr0_el1", "host.dbgbvr3_el1"]
    assert found(events, *held, restarts=(0,)) == [], "so does another vCPU that starts this one anew"


@pytest.mark.parametrize(("syndrome", "judged"), [(TRAPPED, False), (5 << 26, False), (esr("HVC64"), True)])
def test_a_forged_access_may_write_one(syndrome: int, judged: bool) -> None:
    """KVM decodes what was forged, an AArch32 MCR (EC 5) too, and writes the register that it finds there."""
    before, after = points(0, TDE), points(1, TDE, dbgwcr3_el1=0xFFF0)
    turn = trap(S, syndrome, marks=DEBUGGED | protocol.FORGE["esr"]), entry(S, marks=DEBUGGED)
    (what,) = found(turn, before, after)
    assert (what == "host.dbgwcr3_el1") is judged
    switched = entry(S, marks=DEBUGGED), turn[0]
    assert found(switched, before, after) == ["switch.dbgwcr3_el1"], "before KVM handles the exit"


@pytest.mark.parametrize(("bits", "differs"), [(1 << 6, False), (1 << 8, False), (1 << 5, True), (1 << 7, True)])
def test_half_of_a_breakpoints_byte_mask_may_be_a_copy(bits: int, differs: bool) -> None:
    run = entry(S), trap(S, esr("HVC64"))
    names = ["switch.dbgbcr3_el1"] if differs else []
    assert found(run, points(0, dbgbcr3_el1=0x1001), points(1, dbgbcr3_el1=0x1001 | bits)) == names
    assert found(run, points(0, dbgwcr3_el1=0x1001), points(1, dbgwcr3_el1=0x1001 | bits)) == ["switch.dbgwcr3_el1"]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [("hvc 0x0", False), ("debug brk", True), ("mrs x1, dbgwvr3_el1", False), ("msr mdscr_el1, x1", True)],
)
def test_they_are_recorded_where_somebody_debugs(step: str, wanted: bool) -> None:
    assert needs_debug_registers(parse(f"shadowfuzz-scenario 1\nabout A test.\nhvc 0x0\n{step}\n")) is wanted
