# SPDX-License-Identifier: Apache-2.0
"""Small synthetic traces: a guest at its first instruction, and the events of one round."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from harness import protocol
from harness.arch import registers
from harness.arch.exceptions import State
from harness.arch.exits import EC_BY_NAME, EC_SHIFT, IL_BIT
from harness.arch.registers import INDEX, NAMES
from harness.layout import CODE, VECTORS
from harness.trace.decode import ContextLayout
from harness.trace.events import ENTRY, EXIT, HOST, USER, Event, Host, Switch, Trace
from harness.trace.indexed import IndexedTrace, index_trace
from harness.trace.rounds import GuestRun, Round

EL1H = 0x3C5
SKIP = protocol.PENDING["increment_pc"]
EXCEPTION = protocol.PENDING["exception"] | protocol.PENDING["sync_el1"]
TRAP_MRS, ISB = 0xD538_063F, 0xD503_3FDF  # mrs xzr, id_aa64isar1_el1; isb: the fill of code and vectors
ESR_TRAP_MRS = 0x6232_03ED
MMIO_EXIT, INTR_EXIT, SYSTEM_EVENT_EXIT = 6, 10, 24

LAYOUT = ContextLayout(size=8 * (len(NAMES) + 3), slots=tuple(range(2, len(NAMES) + 2)))
"""A context layout with two words before the registers and one after."""


def state(**values: int) -> State:
    """Return registers of a guest at its first instruction, each GPR with a different value."""
    blank = dict.fromkeys(NAMES, 0) | {f"x{i}": 0x1000 + i for i in range(31)}
    blank |= {"pc": CODE.base, "pstate": EL1H, "vbar_el1": VECTORS.base} | values
    return tuple(blank[name] for name in NAMES)


def but(before: State, **values: int) -> State:
    """Return the same registers with some changed."""
    new = list(before)
    for name, value in values.items():
        new[INDEX[name]] = value
    return tuple(new)


def _switch(kind: int, values: State, **fields: int) -> Switch:
    words = dict.fromkeys(Switch._fields[1:-1], 0) | fields
    return Switch._make((kind, *words.values(), values))


def entry(values: State, pending: int = 0, **fields: int) -> Switch:
    """Return an entry: KVM loads ``values``, with ``pending`` work."""
    return _switch(ENTRY, values, pending=pending, **fields)


def trap(values: State, esr: int, **fields: int) -> Switch:
    """Return an exit by a trap: KVM saved ``values``."""
    return _switch(EXIT, values, **{"code": 2, "esr": esr, **fields})


def irq(values: State, **fields: int) -> Switch:
    """Return an exit by an interrupt."""
    return _switch(EXIT, values, **{"code": 0, **fields})


def user(values: State, reason: int, **fields: int) -> Switch:
    """KVM_RUN returns for ``reason``."""
    return _switch(USER, values, code=reason, **fields)


def host_set(name: str, value: int, error: int = 0) -> Host:
    """The host writes a register."""
    return Host(HOST, 0, protocol.OPS["set"][0], registers.BY_NAME[name].one_reg, value, error, True)


def host_reset() -> Host:
    """The host resets the vCPU."""
    return Host(HOST, 0, protocol.OPS["reset"][0], 0, 0, 0, True)


def indexed(events: Iterable[Event]) -> IndexedTrace:
    """Return the trace of these events, indexed."""
    return index_trace(Trace(tuple(events), "ok", 0, False))


def rounds(events: Iterable[Event]) -> tuple[Round, ...]:
    """Return the rounds in ``events``."""
    return indexed(events).rounds


def runs(events: Iterable[Event]) -> tuple[GuestRun, ...]:
    """The runs of the guests in ``events``."""
    return indexed(events).runs


def turn(*events: Event) -> Round:
    """Return the only round in ``events``."""
    (round_,) = rounds(events)
    return round_


def esr(ec: str, iss: int = 0) -> int:
    """A syndrome with IL set."""
    return EC_BY_NAME[ec] << EC_SHIFT | IL_BIT | iss


def load_esr(rt: int, size: int = 8, *, signed: bool = False, wide: bool = True, write: bool = False) -> int:
    """The syndrome of a translation fault of a load (or store) with valid syndrome (Arm ARM D17.2.37)."""
    sas = {1: 0, 2: 1, 4: 2, 8: 3}[size]
    return esr("DABT_LOW", 1 << 24 | sas << 22 | signed << 21 | rt << 16 | wide << 15 | write << 6 | 0x05)


def record(event: Event, layout: ContextLayout = LAYOUT) -> bytes:
    """Return the bytes that the probe or the agent writes for an event."""
    if isinstance(event, Host):
        head = struct.pack("<IIII", event.kind, 16 + 5 * 8, event.step, event.context << 8)
        return head + struct.pack("<5Q", event.op, event.a, event.b, event.error, event.asked)
    context = [0xEEEE_EEEE_EEEE_EEEE] * (layout.size // 8)
    for slot, value in zip(layout.slots, event.values, strict=True):
        context[slot] = value
    head = struct.pack("<IIII", event.kind, 16 + 10 * 8 + layout.size, event.step, event.marks)
    return head + struct.pack("<10Q", *event[2:12]) + struct.pack(f"<{len(context)}Q", *context)
