# SPDX-License-Identifier: Apache-2.0
"""Whether the values that a scenario expects were seen (docs/scenarios.md, "What must be seen")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from harness.layout import CONTEXTS, PROTECTED_NAMES
from harness.protocol import MMIO_WRITE
from harness.scenario.code_layout import Placed, placed
from harness.scenario.requirements import context_named, first_context
from harness.scenario.scenario import MMIO_DATA, Expect, Scenario
from harness.trace.events import EXIT, USER, Event, Host, Switch, Trace


@dataclass(frozen=True, slots=True)
class Expectation:
    """An expected value and what was seen: ``observed`` is None where nothing can be said, and then ``why`` says why.

    ``event`` is the record that it was seen in.
    """

    expect: Expect
    observed: int | None
    event: int | None
    why: str

    @property
    def failed(self) -> bool:
        """Whether another value was seen."""
        return self.observed is not None and self.observed != self.expect.value


def judge_expectations(scenario: Scenario, trace: Trace) -> tuple[Expectation, ...]:
    """Return each expectation of a scenario with what a trace of it shows, in their order; pure."""
    return tuple(_judge(scenario, trace, expect) for expect in scenario.expects)


def _judge(scenario: Scenario, trace: Trace, expect: Expect) -> Expectation:
    context = _context_at(scenario, expect.before)
    if CONTEXTS[context].name in PROTECTED_NAMES:
        return Expectation(expect, None, None, "the host does not see the registers of a protected VM")
    before = [one for one in placed(scenario) if one.context == context and one.step < expect.before]
    if expect.name == MMIO_DATA:
        return _judge_store(trace, expect, context, before[-1:])
    earlier = {one.address for one in before}
    for index in range(_done(trace, expect.before), len(trace.events)):
        event = trace.events[index]
        if _is(event, EXIT, context) and event.trapped and event.get("pc") not in earlier:
            return Expectation(expect, event.get(expect.name), index, "")
    return Expectation(expect, None, None, "the guest did not come to an exit after it")


def _judge_store(trace: Trace, expect: Expect, context: int, stores: Sequence[Placed]) -> Expectation:
    """Judge the data of the store that the guest step before an expectation made."""
    address = None
    for store in stores:
        for index in range(_done(trace, store.step), len(trace.events)):
            event = trace.events[index]
            if _is(event, EXIT, context):
                address = event.get("pc")
            elif _is(event, USER, context) and event.mmio_len & MMIO_WRITE and address == store.address:
                return Expectation(expect, event.mmio_bytes, index, "")
    return Expectation(expect, None, None, "the guest step before it showed userspace no store to MMIO")


def _is(event: Event, kind: int, context: int) -> TypeGuard[Switch]:
    return isinstance(event, Switch) and event.kind == kind and event.context == context


def _done(trace: Trace, before: int) -> int:
    """Return where in a trace all host steps before a step have been carried out."""
    done = [i for i, e in enumerate(trace.events) if isinstance(e, Host) and e.asked and e.step < before]
    return done[-1] + 1 if done else 0


def _context_at(scenario: Scenario, before: int) -> int:
    """Return the vCPU that runs where an expectation stands."""
    first = first_context(scenario)
    named = [str(step.args[0]) for step in scenario.steps[:before] if step.kind == "vcpu"]
    return context_named(first, named[-1]) if named else first
