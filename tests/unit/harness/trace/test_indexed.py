# SPDX-License-Identifier: Apache-2.0
"""A trace is cut up once: rounds, runs, and the vCPUs that another one started anew."""

from __future__ import annotations

from harness import protocol
from harness.layout import PAIR
from harness.trace.events import Trace
from harness.trace.indexed import index_trace
from tests.support.traces import but, entry, esr, indexed, irq, state, trap

S = state()
FIRST, SECOND = PAIR << protocol.FLAGS_VCPU_SHIFT, (PAIR + 1) << protocol.FLAGS_VCPU_SHIFT


def test_rounds_and_runs_are_those_of_the_events() -> None:
    whole = indexed([entry(S), irq(S), entry(S), irq(S)])
    assert [(one.first, one.exit is None) for one in whole.rounds] == [(0, True), (1, False)]
    assert [one.event for one in whole.runs] == [1, 3]
    assert whole.events == whole.trace.events, "nothing to undo without debugging"
    assert not whole.restarts and not whole.slots.changes


def test_an_empty_trace_has_nothing() -> None:
    nothing = index_trace(Trace((), "ok", 0, False))
    assert nothing.rounds == nothing.runs == nothing.events == ()


def test_a_vcpu_that_another_one_starts_is_restarted() -> None:
    """PSCI CPU_ON that succeeds: the other vCPU's next round begins with a reset."""
    calls = but(S, x0=0xC400_0003, x1=1, x2=0x4000, x3=7)
    called = trap(calls, esr("HVC64"), marks=FIRST)
    events = [
        *(entry(S, marks=SECOND), irq(S, marks=SECOND)),
        *(entry(S, marks=FIRST), called, entry(but(calls, x0=0), marks=FIRST)),
        entry(S, marks=SECOND),
    ]
    assert indexed(events).restarts >= {1}
    refused = [*events[:4], entry(but(calls, x0=(1 << 64) - 4), marks=FIRST), events[-1]]
    assert 1 not in indexed(refused).restarts
