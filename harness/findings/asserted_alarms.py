# SPDX-License-Identifier: Apache-2.0
"""Find the alarms that a forged exit explains: KVM's assertions that no CPU reports such an exit.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.arch.exits import EXCEPTION_TRAP
from harness.relations.forged_exits import asserting_kind
from harness.trace.events import EXIT, Switch, Trace
from harness.vm.alarms import Alarm

WARN = "warn"
"""The kind of alarm (:data:`harness.vm.alarms.KINDS`) of an assertion."""


class Asserted(NamedTuple):
    """An alarm that a forged exit explains: the row of :mod:`harness.relations.forged_exits`, and ESR_EL2."""

    alarm: Alarm
    kind: str
    esr: int

    @property
    def name(self) -> str:
        """The name by which it is counted: the function that asserts, and its syndrome."""
        return f"{self.alarm.function} at a forged {self.kind}, ESR_EL2 {self.esr:#x}"


class Alarms(NamedTuple):
    """The alarms of a kernel while a scenario ran: findings, and its assertions about forged exits."""

    findings: tuple[Alarm, ...] = ()
    asserted: tuple[Asserted, ...] = ()


def sort_alarms(alarms: Iterable[Alarm], trace: Trace) -> Alarms:
    """Separate the alarms that an exit of the trace explains from those that are findings.

    Only a forged exit explains one, and only the assertion of KVM that its row names.
    """
    found = tuple(alarms)
    if not found:
        return Alarms()
    forged = _forged(trace)
    findings: list[Alarm] = []
    asserted: list[Asserted] = []
    for alarm in found:
        why = _explained(alarm, forged)
        if why is None:
            findings.append(alarm)
        else:
            asserted.append(why)
    return Alarms(tuple(findings), tuple(asserted))


def _forged(trace: Trace) -> tuple[Switch, ...]:
    """Return the exits that were forged as one of a guest's instructions."""
    exits = (event for event in trace.events if event.kind == EXIT and isinstance(event, Switch))
    return tuple(event for event in exits if event.forged and event.code == EXCEPTION_TRAP)


def _explained(alarm: Alarm, forged: Iterable[Switch]) -> Asserted | None:
    if alarm.kind != WARN:
        return None
    for exit_ in forged:
        kind = asserting_kind(exit_)
        if kind is not None and kind.asserts is not None and kind.asserts.has(alarm.function, alarm.words):
            return Asserted(alarm, kind.name, exit_.esr)
    return None
