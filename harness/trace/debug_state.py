# SPDX-License-Identifier: Apache-2.0
"""Restore the guest's own debug state in a trace: undo the changes that KVM makes while userspace debugs the guest.

KVM sets PSTATE.SS and MDSCR_EL1.SS to step a guest, and MDSCR_EL1.MDE for breakpoints.  It restores the guest's values
at the next exit (up to 6.12), or when KVM_RUN returns (since 6.14, which never changes MDSCR_EL1); they are read there.
A ``KVM_RUN`` with immediate_exit leaves no record.  An instruction that it completes, or an exception that it enters,
clears SS, unless KVM had saved the guest's own SS (since 6.14); the next return shows which.  A vCPU that PSCI CPU_ON
started has no SS of its own: it enters at the call's entry point.  Neither has one that took an exception when
userspace asked for it: it enters at a vector.  Source: arch/arm64/kvm/debug.c of 6.1, 6.12 and 7.3; Arm ARM D2.12.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from harness import protocol
from harness.arch import exceptions, exits
from harness.arch.registers import BY_NAME
from harness.protocol import DEBUG_OPS
from harness.trace.events import ENTRY, EXIT, USER, Event, Host, Switch
from harness.trace.psci import CpuOnCalls

_RESET: Final = protocol.OPS["reset"][0]
_SET: Final = protocol.OPS["set"][0]
_ABORT: Final = protocol.OPS["abort"][0]
_SERROR: Final = protocol.OPS["serror"][0]
_FINISH: Final = protocol.OPS["finish"][0]
_MMIO: Final = next(number for number, name in exits.KVM_EXIT_REASONS.items() if name == "MMIO")
_LEVELS: Final = exceptions.VECTOR_AARCH32
"""The bits of a vector's offset that show where the exception came from."""
PSTATE_ID: Final = BY_NAME["pstate"].one_reg
_DEBUGGED: Final = protocol.DEBUG["debugged"]
_STEPPED: Final = protocol.DEBUG["stepped"]


def undo_debug_state(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Return a trace's events with the guest's own PSTATE.SS and MDSCR_EL1 in the records made while it is debugged.

    An entry that has PSTATE.SS set, so that a step begins there, is marked (``protocol.MARK_STEP_BEGINS``).  Without
    debugging the events are returned as they are.
    """
    if DEBUG_OPS.isdisjoint([event.op for event in events if isinstance(event, Host)]):
        return events
    own = list(events)
    ss: dict[int, int] = {}
    entries: dict[int, int] = {}
    waits: dict[int, bool] = {}
    calls = CpuOnCalls()
    asked: set[int] = set()
    latest: dict[int, Switch] = {}
    for index, event in enumerate(events):
        context = event.context
        if isinstance(event, Host):
            if event.op == _RESET or (event.op == _SET and event.a == PSTATE_ID and not event.error):
                ss[context] = event.b & exceptions.SS if event.op == _SET else 0
                asked.discard(context)
            elif event.op in (_ABORT, _SERROR) and not event.error:
                asked.add(context)
            calls.on_host(event)
            if event.op in (_RESET, _ABORT) and not event.error:
                waits[context] = event.op == _ABORT
            elif event.op == _FINISH and waits.pop(context, False):
                ss[context] = ss.get(context, 0) & _next_recorded_ss(events, index)
            continue
        waits[context] = event.kind == USER and event.code == _MMIO
        calls.on_switch(event)
        if event.kind == ENTRY:
            if calls.starts(event) or (context in asked and _took_exception(event, latest.get(context))):
                ss[context] = 0
            asked.discard(context)
        if event.kind == USER or not event.marks & _STEPPED:
            ss[context] = event.values[exceptions.PSTATE] & exceptions.SS
        latest[context] = event
        own[index] = _own(event, ss.get(context, 0))
        if event.kind == ENTRY:
            entries[context] = index
        elif event.kind == EXIT and (at := entries.pop(context, None)) is not None:
            own[at] = _mdscr(own[at], event.values[exceptions.MDSCR])
    return tuple(own)


_ENTERED: Final = itemgetter(exceptions.PC, exceptions.ELR, exceptions.SPSR, exceptions.ESR)


def _took_exception(entry: Switch, before: Switch | None) -> bool:
    """Whether a vCPU enters at its first instruction after an external abort or an SError (Arm ARM D1.10.2).

    Where it was there already, in the record ``before``, it took another exception earlier; an SError may be masked.
    """
    if before is not None and _ENTERED(before.values) == _ENTERED(entry.values):
        return False
    offset = entry.values[exceptions.PC] - entry.values[exceptions.VBAR]
    return not entry.pending & protocol.PENDING["exception"] and offset & ~_LEVELS in (0, exceptions.SERROR_OFFSET)


def _next_recorded_ss(events: tuple[Event, ...], index: int) -> int:
    """Return the guest's own PSTATE.SS where KVM_RUN next returns with a record; 0 if it does not."""
    context = events[index].context
    later = (e for e in events[index + 1 :] if isinstance(e, Switch) and e.kind == USER and e.context == context)
    told = next(later, None)
    return told.values[exceptions.PSTATE] & exceptions.SS if told is not None else 0


def _own(event: Switch, ss: int) -> Switch:
    if not event.marks & _STEPPED or event.kind == USER:
        return event
    pstate = event.values[exceptions.PSTATE]
    begins = event.kind == ENTRY and pstate & exceptions.SS and not event.pending
    marks = event.marks | (protocol.MARK_STEP_BEGINS if begins else 0)
    return event._replace(marks=marks, values=_with(event, exceptions.PSTATE, pstate & ~exceptions.SS | ss))


def _mdscr(event: Event, restored: int) -> Event:
    """Put into an entry what KVM restored at the exit: the guest cannot have changed it, its accesses trap."""
    assert isinstance(event, Switch)
    if not event.marks & _DEBUGGED:
        return event
    mdscr = event.values[exceptions.MDSCR] & ~exceptions.OS_LOCK_HIDES | restored & exceptions.OS_LOCK_HIDES
    return event._replace(values=_with(event, exceptions.MDSCR, mdscr))


def _with(event: Switch, index: int, value: int) -> tuple[int, ...]:
    return (*event.values[:index], value, *event.values[index + 1 :])
