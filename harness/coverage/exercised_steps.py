# SPDX-License-Identifier: Apache-2.0
"""Count what scenarios exercised: which steps met which exits, and which relations compared them.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.arch import exceptions
from harness.arch.cpu_models import MASKS
from harness.arch.exits import exit_class
from harness.arch.registers import MASK64
from harness.findings.checked import Comparison
from harness.layout import CODE
from harness.protocol import MARK_CALL
from harness.scenario.code_layout import placed
from harness.scenario.scenario import Scenario
from harness.scenario.steps import LEAVES
from harness.trace import pending
from harness.trace.events import ENTRY, EXIT, Host, Switch, Trace
from harness.trace.indexed import IndexedTrace

NO_EXIT = "no exit"
"""Column of a guest step that was executed without leaving the guest."""
OTHER_CODE, OTHER_CLASS = "other code", "other class"
BEGIN, ELSEWHERE = "(begin)", "(elsewhere)"
"""Rows that are not steps: the first entry, and an exit from code that is none of the scenario's, such as VECTORS."""
_IN_RUN = frozenset({"switch"})
"""Relations about the run of the guest before an exit; all others are about the round of the host after it."""
_NOT_KEPT = frozenset(mask.reason for mask in MASKS)
"""Bits that a CPU does not keep: a register that is compared without them counts as compared."""
FORGE, VCPU = "forge", "vcpu"


class StepAtExit(NamedTuple):
    """A cell of the table: a step (its keyword), and the class of the exit that it met."""

    step: str
    exit_class: str


@dataclass
class Judged:
    """How often a relation compared a place completely, and why something was left out at other times."""

    whole: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class Exercise:
    """Counts of one target: how often each place was reached, and how it was compared, by place and relation."""

    reached: Counter[StepAtExit] = field(default_factory=Counter)
    judged: dict[StepAtExit, dict[str, Judged]] = field(default_factory=dict)

    def add(self, scenario: Scenario, indexed: IndexedTrace, compared: Iterable[Comparison]) -> None:
        """Count one run of a scenario; ``compared``: the comparisons of :func:`harness.findings.check.check`."""
        by_event: dict[int, dict[str, list[str]]] = {}
        for one in compared:
            reasons = by_event.setdefault(one.event, {}).setdefault(one.relation, [])
            if not is_whole(one):
                reasons.append(one.left_out)
        for place, events in _places(scenario, indexed):
            self.reached[place] += 1
            relations = self.judged.setdefault(place, {})
            for event, in_run in events:
                for relation, reasons in by_event.get(event, {}).items():
                    if (relation in _IN_RUN) != in_run:
                        continue
                    judged = relations.setdefault(relation, Judged())
                    judged.whole += not reasons
                    judged.left_out.update(reasons)

    def to_json(self) -> list[dict[str, object]]:
        """Return the places in order; reasons only where nothing was ever compared completely."""
        return [
            {
                "step": place.step,
                "exit": place.exit_class,
                "reached": self.reached[place],
                "judged": {r: j.whole for r, j in sorted(self.judged[place].items())},
                "left_out": {r: dict(j.left_out) for r, j in sorted(self.judged[place].items()) if not j.whole},
            }
            for place in sorted(self.reached)
        ]


def is_whole(one: Comparison) -> bool:
    """Whether a comparison left out nothing, except bits that a CPU does not keep."""
    return not one.left_out or one.left_out in _NOT_KEPT


def class_of(exit_: Switch) -> str:
    """Return the class of an exit, the forged one if there is one; codes and classes without a name are one each."""
    name = exit_class(exit_.code, exit_.esr)
    return OTHER_CODE if name.startswith("CODE") else OTHER_CLASS if name.startswith("EC0x") else name


Events = tuple[tuple[int, bool], ...]
"""Events of the trace whose comparisons count for a place: index, and whether the run before it counts."""


def _places(scenario: Scenario, indexed: IndexedTrace) -> Iterator[tuple[StepAtExit, Events]]:
    """Yield each place that a run reached, with the events whose comparisons are about it."""
    kinds = [step.kind for step in scenario.steps]
    code = {step.address: kinds[step.step] for step in placed(scenario)}
    trace = indexed.trace
    next_exit = _next_exits(trace)
    begun = {index: entry for index, entry, _ in indexed.runs}
    for index, event in enumerate(trace.events):
        if event.kind != EXIT or not isinstance(event, Switch):
            continue
        step = FORGE if event.forged else _step_of(event, kinds, code)
        if class_of(event) == "SOFTSTP_LOW" and index in begun and not event.forged:
            step = _stepped(begun[index], event, code)
        yield StepAtExit(step, class_of(event)), ((index, False), (index, True))
        if index in begun:
            yield from ((StepAtExit(kind, NO_EXIT), ((index, True),)) for kind in executed(begun[index], event, code))
    for round_ in indexed.rounds:
        run = ((next_exit[round_.first], True),) if round_.first in next_exit else ()
        events = ((round_.first, False), *run)
        if round_.exit is None:
            yield StepAtExit(BEGIN, NO_EXIT), events
        elif round_.exit.forged:
            continue
        for host in round_.host_actions:
            if host.asked and host.step < len(kinds) and not host.error:
                yield StepAtExit(kinds[host.step], "FIRST" if round_.exit is None else class_of(round_.exit)), events
    yield from _switched(trace, kinds)


def _next_exits(trace: Trace) -> Mapping[int, int]:
    """Return the exit that ends the run after a round of the host, by the first event of the round."""
    found: dict[int, int] = {}
    waiting: dict[int, int] = {}
    for index, event in enumerate(trace.events):
        if isinstance(event, Host) or event.kind not in (ENTRY, EXIT):
            continue
        if event.kind == EXIT:
            if event.context in waiting:
                found[waiting[event.context]] = index
            waiting[event.context] = index
        else:
            waiting.setdefault(event.context, index)
    return found


def _switched(trace: Trace, kinds: list[str]) -> Iterator[tuple[StepAtExit, Events]]:
    """Yield the exit that a change to another vCPU meets: the last one of the vCPU before."""
    last: Switch | None = None
    at = 0
    for index, event in enumerate(trace.events):
        if isinstance(event, Host):
            continue
        if last is not None and event.context != last.context:
            yield StepAtExit(VCPU, class_of(last)), ((at, False),)
            last = None
        if event.kind == EXIT:
            last, at = event, index


def _trapped(exit_: Switch) -> int:
    """Return the address of the instruction that an exit is about; after an HVC the return address is the next one."""
    called = exit_.marks & MARK_CALL if exit_.forged else exit_.exit_class == "HVC64"
    return (exit_.values[exceptions.PC] - (4 if called else 0)) & MASK64


def _step_of(exit_: Switch, kinds: list[str], code: Mapping[int, str]) -> str:
    """Return the guest step that an exit is about."""
    pc = _trapped(exit_)
    if pc in code:
        return code[pc]
    # A fetch from elsewhere: the agent runs a step that leaves the code by itself.
    outside = pc not in CODE and exit_.step < len(kinds) and kinds[exit_.step] in LEAVES
    return kinds[exit_.step] if outside else ELSEWHERE


def _stepped(entry: Switch, exit_: Switch, code: Mapping[int, str]) -> str:
    """Return the guest step after which a software step ended."""
    first = pending.apply_pending(entry.values, entry.pending)[exceptions.PC]
    return code.get(first - 4 if first == exit_.values[exceptions.PC] else first, ELSEWHERE)


def executed(entry: Switch, exit_: Switch, code: Mapping[int, str]) -> list[str]:
    """Return what ``code`` has for each instruction that the guest executed on the way, as far as it is straight."""
    seen = pending.apply_pending(entry.values, entry.pending)
    first, last, elr = seen[exceptions.PC], _trapped(exit_), exit_.values[exceptions.ELR]
    if first not in code:
        return []
    if last not in CODE and code[first] in LEAVES:
        return [code[first]] if exit_.exit_class != "IABT_LOW" else []
    if last not in CODE:  # an exception inside the guest
        last = elr + 4 if elr in code and elr != seen[exceptions.ELR] else first
    return [code[at] for at in range(first, min(last, CODE.end), 4) if at in code]
