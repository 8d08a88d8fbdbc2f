# SPDX-License-Identifier: Apache-2.0
"""List what a run left out: comparisons that were not made, with place and reason, and failed host steps."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import NamedTuple

from harness.findings.checked import Gap
from harness.protocol import NO_STEP, OPS
from harness.scenario.scenario import Scenario, format_step
from harness.trace.events import EXIT, Host, Switch, Trace

NEEDS: tuple[tuple[str, str], ...] = (
    # A shell pattern of a reason, and the missing knowledge or code for the comparison; the first match counts.
    (
        "*the model panicked",
        "a rule of the contract for this exit (harness/relations/host.py), or a level that does not panic",
    ),
    ("the model is undefined*", "a definition in the layer's semantics (docs/spec/model.md)"),
    ("fault registers of a forged exit", "not possible: no CPU wrote them"),
    ("*a forged exit", "KVM's handling of its GIC for this syndrome (harness/relations/forged_exits.py)"),
    ("no rule for exit class *", "a rule for the class in harness/relations/host.py"),
    ("a forged abort*", "a rule in harness/relations/host.py for aborts with a syndrome that no CPU reports"),
    ("*a guest in AArch32 state", "AArch32 instructions and exceptions in harness/guest and harness/arch"),
    ("*is IMPLEMENTATION DEFINED", "the technical reference manual of the CPU model"),
    ("*tables that the guest may have changed", "the guest's stores to its tables in code whose path is unknown"),
    ("*PC neither aligned nor mapped", "a record of which of the two aborts is taken first"),
    ("*loaded from RAM", "a record of the value in memory at the access"),
    ("*read from *", "a record of the register's value at the access"),
    ("*whether there is *", "whether the CPU model has the register"),
    ("emulator: *", "another QEMU, which does what the architecture says"),
    ("*: emulator: *", "another QEMU, which does what the architecture says"),
    ("*a reset: what it leaves of the CPU interface*", "a source for the effect of KVM_ARM_VCPU_INIT on ICH_VMCR_EL2"),
    ("*the guest did otherwise than it should", "an explanation of the preceding divergence"),
    ("*the guest's path could not be determined", "the guest's path, whose reason is listed separately"),
    ("*GIC*", "the state of the interrupt, which something before left unknown"),
    ("*interrupt of which something is not known", "the state of the interrupt, which something before left unknown"),
    ("*list registers: *", "the state of the interrupt, which something before left unknown"),
    ("*active priorities: *", "the state of the CPU interface, which an earlier event made unknown"),
    ("*OS Lock*", "MDSCR_EL1 read by the host while the lock is not set"),
    ("*PSTATE*", "a record of PSTATE.SS as the guest has it"),
    ("*SPSR_EL1.SS*", "a record of PSTATE.SS as the guest has it"),
    ("*PSTATE.SS*", "a record of PSTATE.SS as the guest has it"),
    ("which interrupt came first*", "a record of the order of the two"),
    ("an interrupt in a guest that runs on by itself", "a record of how often the guest executed the code"),
    ("*EL2 may have handled*", "a record at EL2"),
    ("*a debug register*", "a record at each access to it"),
)
NOT_SAID = "not known"


def needs(why: str) -> str:
    """Return what is missing for a comparison that was left out for a reason."""
    return next((what for pattern, what in NEEDS if fnmatchcase(why, pattern)), NOT_SAID)


class LeftOut(NamedTuple):
    """A comparison that was not made: its relation, the reason, what it needs, and its place.

    ``event`` is None for the whole trace; then ``step`` is -1 and ``exit_class`` empty.
    """

    what: str
    why: str
    needs: str
    event: int | None
    step: int
    exit_class: str

    @property
    def place(self) -> str:
        """The place, in a few words."""
        if self.event is None:
            return "in the whole trace"
        step = f", step {self.step}" if self.step >= 0 else ""
        return f"event {self.event}{step}{f', {self.exit_class}' if self.exit_class else ''}"


class FailedStep(NamedTuple):
    """A host step that failed: its number, its text, and the error."""

    step: int
    text: str
    error: str


def left_out(gaps: Iterable[Gap], trace: Trace) -> tuple[LeftOut, ...]:
    """Return the comparisons that were not made, with their places in the trace."""
    found: list[LeftOut] = []
    for what, why, index in gaps:
        event = trace.events[index] if index is not None and index < len(trace.events) else None
        step = -1 if event is None or event.step >= NO_STEP else event.step
        name = event.exit_class if isinstance(event, Switch) and event.kind == EXIT else ""
        found.append(LeftOut(what, why, needs(why), index, step, name))
    return tuple(found)


_OP_NAMES: Mapping[int, str] = MappingProxyType({number: name for name, (number, _) in OPS.items()})


def failed_steps(scenario: Scenario, trace: Trace) -> tuple[FailedStep, ...]:
    """Return the failed host steps, in their order; a scenario may intend a failure."""
    failed = (event for event in trace.events if isinstance(event, Host) and event.asked and event.error)
    return tuple(FailedStep(event.step, _text(scenario, event), _error(event.error)) for event in failed)


def _text(scenario: Scenario, event: Host) -> str:
    if event.step < len(scenario.steps):
        return format_step(scenario.steps[event.step])
    return _OP_NAMES.get(event.op, f"operation {event.op}")


def _error(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")
