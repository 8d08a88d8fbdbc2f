# SPDX-License-Identifier: Apache-2.0
"""Index a scenario's trace once: rounds, runs, memory slots at each event, the guest's own registers.

Every relation uses the result, so that nothing is cut or replayed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.trace.debug_state import undo_debug_state
from harness.trace.events import Event, Trace
from harness.trace.rounds import GuestRun, Round, cut_rounds, cut_runs
from harness.trace.slot_timeline import SlotTimeline


@dataclass(frozen=True, slots=True)
class IndexedTrace:
    """A trace, and what follows from its events.

    ``trace`` is as it was recorded.  ``events`` are the same events with the guest's own PSTATE.SS and MDSCR_EL1 while
    userspace debugs it; ``rounds`` and ``runs`` are cut from them, in the order in which they end.  ``slots`` has the
    environment of a vCPU at an event.  ``restarts`` are the rounds (``Round.first``) in which a vCPU was reset while
    another one ran: PSCI CPU_ON started it, or it had not run before.  ``unproven`` are those in which it may have been
    (``Round.unproven``), with the reason.
    """

    trace: Trace
    events: tuple[Event, ...]
    rounds: tuple[Round, ...]
    runs: tuple[GuestRun, ...]
    slots: SlotTimeline
    restarts: frozenset[int]
    unproven: Mapping[int, str]


def index_trace(trace: Trace) -> IndexedTrace:
    """Index a trace; pure."""
    slots = SlotTimeline.of(trace.events)
    events = undo_debug_state(trace.events)
    rounds = tuple(cut_rounds(events, slots))
    restarts = frozenset(round_.first for round_ in rounds if round_.reset and round_.other_vcpu_ran)
    unproven = {round_.first: round_.unproven for round_ in rounds if round_.unproven}
    return IndexedTrace(trace, events, rounds, tuple(cut_runs(events)), slots, restarts, unproven)
