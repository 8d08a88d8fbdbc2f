# SPDX-License-Identifier: Apache-2.0
"""Determine the steps that lead to a finding, and the values that a program without shadowfuzz can compare.

For kept findings they are in ``corpus/regressions/shown.json``, so that a mail or a program needs no run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.arch import exceptions
from harness.arch.registers import BY_NAME
from harness.errors import InputError
from harness.findings.checked import CheckResult
from harness.layout import CONTEXTS, VECTORS
from harness.protocol import DEBUG_STEPS
from harness.relations.divergence import Divergence
from harness.report.sites import place_of
from harness.scenario.code_layout import placed
from harness.scenario.requirements import context_named, first_context
from harness.scenario.scenario import Scenario, Step, format_scenario, instruction
from harness.trace.events import USER, Switch, Trace
from harness.trace.indexed import index_trace
from harness.vm.alarms import describe_kind

Value = int | str
FORMAT = 1
"""Format version of ``shown.json``."""


class Check(NamedTuple):
    """A value that userspace can compare: its kind, the register, the required and the observed value.

    ``how`` is one of ``register`` (what KVM_GET_ONE_REG returns before an entry), ``left`` (the same at an exit),
    ``stop`` (the address at which the guest exits), ``serror`` (whether KVM_GET_VCPU_EVENTS has one pending), ``slot``
    (whether KVM accepts the memory slot), ``step`` (whether the guest executes an instruction before it exits),
    ``debug`` (whether it exits with KVM_EXIT_DEBUG), ``same`` (a register that a guest reads twice, with a run of
    another VM between), ``log`` (whether the host's kernel logs an alarm in a function) or ``hidden`` (none of these).
    """

    how: str
    register: str
    expected: Value
    observed: Value


@dataclass(frozen=True, slots=True)
class Shown:
    """The place of a finding: a target with a kernel, a scenario, the end of its first ``steps`` steps.

    ``context`` is the vCPU that the ``checks`` are about (number in ``layout.CONTEXTS``); without checks userspace
    cannot observe it, and ``hidden`` has the differences.
    """

    target: str
    kernel: str
    name: str
    scenario: Scenario
    steps: int
    context: int
    checks: tuple[Check, ...]
    hidden: tuple[Check, ...] = ()


class NumberedStep(NamedTuple):
    """A step of a scenario: its number, its vCPU, and for a guest step address and instruction word."""

    number: int
    step: Step
    context: int
    address: int
    word: int | None


def steps_done(scenario: Scenario, end: int) -> Iterator[NumberedStep]:
    """Yield the first ``end`` steps, each with its vCPU; ``vcpu`` steps have the one that they name."""
    first = context = first_context(scenario)
    at = {place.step: place for place in placed(scenario)}
    for number, step in enumerate(scenario.steps[:end]):
        if step.kind == "vcpu":
            context = context_named(first, str(step.args[0]))
        yield NumberedStep(number, step, context, at[number].address if number in at else 0, instruction(step))


_STORES = frozenset({"write", "str", "strb", "strh", "stp", "stxr", "str_pre", "str_simd"})


def needed_steps(shown: Shown) -> tuple[NumberedStep, ...]:
    """Return the steps that lead to the finding, without those of other VMs unless they may contribute to it."""
    done = tuple(steps_done(shown.scenario, shown.steps))
    machine = CONTEXTS[shown.context].machine
    others = [each for each in done if CONTEXTS[each.context].machine != machine]
    if any(check.how == "same" for check in shown.checks) or any(each.step.kind in _STORES for each in others):
        return done
    return tuple(each for each in done if CONTEXTS[each.context].machine == machine)


_TRAPS_AT = re.compile(r"what is at (0x[0-9a-f]+) must trap")
_CALL_AT = re.compile(r"the (?:HVC|SMC) at (0x[0-9a-f]+) must trap")
_STOPS_AT = re.compile(r"(?:a step of userspace's ends|the breakpoint) at (0x[0-9a-f]+)(?: must trap)?")
_VSE = 1 << 8
"""HCR_EL2.VSE (Arm ARM D17.2.48)."""


def check_of(divergence: Divergence) -> Check | None:
    """Return the check of a divergence that userspace can do; None: it cannot observe it."""
    name, expected, observed = divergence.register, divergence.expected, divergence.observed
    relation, numbers = divergence.relation, isinstance(expected, int) and isinstance(observed, int)
    if name == "hcr_el2" and isinstance(expected, int) and isinstance(observed, int):
        pending = expected >> 8 & 1
        return Check("serror", "", pending, 1 - pending) if (expected ^ observed) & _VSE else None
    if relation == "switch" and name == "pc" and isinstance(expected, str):
        trap, call = _TRAPS_AT.fullmatch(expected), _CALL_AT.fullmatch(expected)
        if trap or call:
            stop = int(trap[1], 16) if trap else int(call[1], 16) + 4 if call else 0
            return Check("stop", "pc", stop, observed)
        if _STOPS_AT.fullmatch(expected):
            return Check("debug", "", "KVM_EXIT_DEBUG", "none")
    if relation in ("host", "switch", "isolate") and name in BY_NAME and numbers:
        return Check("left" if relation == "switch" else "register", name, expected, observed)
    if (relation, name) == ("host", "slot"):
        return Check("slot", "", expected, observed)
    if (relation, name) == ("host", "step_begins"):
        return Check("step", "", expected, observed)
    if relation == "isolate" and numbers:
        return Check("same", name, expected, observed)
    return None


def step_at(scenario: Scenario, trace: Trace, event: int) -> int:
    """Return the step that the guest had reached at an event; -1: none yet.

    The agent moves a guest that left its code to the instruction after the step at which it left, or which it had
    reached.
    """
    context, current = trace.events[event].context, -1
    mine = {place.address: place.step for place in placed(scenario) if place.context == context}
    for index, entry, exit_ in index_trace(trace).runs:
        if index > event or exit_.context != context or not exit_.trapped:
            continue
        place, pc = place_of(scenario, entry, exit_), exit_.values[exceptions.PC]
        if place.step is not None:
            current = place.step
        elif pc - 4 in mine:  # the trap after the last step
            current = mine[pc - 4]
        else:
            behind = [step for step in mine.values() if current < step <= exit_.step]
            leaving = [step for step in behind if scenario.steps[step].kind in _LEAVING]
            current = next(iter(leaving or behind), current)
    return current


_LEAVING = frozenset({"br", "eret"})


def _end(scenario: Scenario, trace: Trace, divergence: Divergence) -> int:
    """Return the number of steps up to the event that shows a divergence."""
    event = trace.events[divergence.event]
    begin = step_at(scenario, trace, divergence.event) + 1
    stop = _STOPS_AT.fullmatch(str(divergence.expected))
    if stop is not None:  # a software step ends after one instruction
        (entry,) = (entry for index, entry, _ in index_trace(trace).runs if index == divergence.event)
        at = entry.values[exceptions.PC] if "step" in stop[0] else int(stop[1], 16)
        here = (p.step + 1 for p in placed(scenario) if p.context == event.context and p.address == at)
        return next(here, begin)
    if divergence.relation == "switch" or (divergence.relation == "isolate" and divergence.register not in BY_NAME):
        return begin
    if divergence.register == "slot":
        return divergence.step + 1
    later = [done for done in steps_done(scenario, len(scenario.steps)) if done.number >= begin]
    runs = (done.number for done in later if done.word is not None and done.context == event.context)
    end = next(runs, len(scenario.steps))
    if divergence.register == "step_begins":
        return min(end + 1, len(scenario.steps))
    if divergence.register == "hcr_el2" and not _resets(scenario.steps[begin:end]):
        # PSCI CPU_ON resets a vCPU when it runs again.
        end = min(end + 1, len(scenario.steps))
    return end


def _came_back(trace: Trace, event: int) -> bool:
    """Whether KVM_RUN returned by itself when userspace last stepped the guest before an event."""
    context = trace.events[event].context
    users = [e for e in trace.events[:event] if isinstance(e, Switch) and e.kind == USER and e.context == context]
    return next((not user.error for user in reversed(users) if user.stepped), False)


def _resets(steps: Iterable[Step]) -> bool:
    return any(step.kind == "reset" for step in steps)


class Origin(NamedTuple):
    """The origin of a trace: target, kernel release, the scenario's name."""

    target: str
    kernel: str
    name: str


def shown_in(
    origin: Origin, scenario: Scenario, trace: Trace, checked: CheckResult, wanted: Callable[[Divergence], bool]
) -> Iterator[Shown]:
    """Yield each place of a trace with a wanted divergence that userspace can observe; if there is none, all places."""
    hidden: list[Divergence] = []
    places: dict[tuple[int, int], list[Check]] = {}
    for divergence in filter(wanted, checked.unexplained):
        check = check_of(divergence)
        if divergence.register == "step_begins" and not _came_back(trace, divergence.event):
            check = None  # a signal ended KVM_RUN at this exact point, which a program cannot reproduce
        if check is None or trace.events[divergence.event].step >= len(scenario.steps):
            hidden.append(divergence)  # not observable, or after the last step
            continue
        context = trace.events[divergence.event].context
        checks = places.setdefault((_end(scenario, trace, divergence), context), [])
        if check not in checks:
            checks.append(check)
    for (end, context), checks in places.items():
        sure = tuple(_independent_of_time(checks, scenario.steps[:end], checked.status))
        shown = Shown(*origin, scenario, end, context, sure)
        if any(check.how == "stop" and check.expected in VECTORS for check in sure) and len(last_run(shown)) > 1:
            continue  # the interrupt may arrive earlier if the guest exits after each instruction
        yield shown
    if not places and hidden:
        first = hidden[0]
        unseen = tuple(Check("hidden", d.name, d.expected, d.observed) for d in hidden if d.event == first.event)
        yield Shown(*origin, scenario, len(scenario.steps), trace.events[first.event].context, (), unseen)


_AFTER_AN_EXCEPTION = frozenset({"pc", "pstate", "elr_el1", "spsr_el1", "esr_el1", "far_el1"})


def _independent_of_time(checks: list[Check], steps: Iterable[Step], status: str) -> Iterator[Check]:
    """Yield the checks that do not depend on the time at which KVM acts.

    An SError is taken by KVM or by the CPU.  A guest that repeats the same translation fault continues in its vectors.
    """
    late = any(step.kind == "serror" for step in steps)
    others = any(check.register not in _AFTER_AN_EXCEPTION for check in checks)
    for check in checks:
        if late and others and check.register in _AFTER_AN_EXCEPTION:
            continue
        if status == "runaway" and any(c.register == "pc" for c in checks):
            if check.register == "pc":
                yield check._replace(how="stop")
            continue
        yield check


def reads_of(shown: Shown, check: Check) -> tuple[NumberedStep, ...]:
    """Return the steps that read the register of a check, by MRS, on its vCPU."""
    done = (each for each in needed_steps(shown) if each.context == shown.context and each.step.kind == "mrs")
    return tuple(each for each in done if each.step.args[1] == check.register)


def last_run(shown: Shown) -> tuple[NumberedStep, ...]:
    """Return the guest steps after the last host step."""
    done = needed_steps(shown)
    host = [i for i, each in enumerate(done) if each.word is None]
    return done[host[-1] + 1 :] if host else done


_FUNCTION = re.compile(r"[A-Za-z_][\w.]*")


def log_checks(kind: str, function: str) -> tuple[Check, ...]:
    """Return the check of an alarm of the host's kernel (:mod:`harness.vm.alarms`); empty if it names no function."""
    return (Check("log", function, "no complaint", describe_kind(kind)),) if _FUNCTION.fullmatch(function) else ()


def simplest(found: Iterable[Shown], others: Callable[[str], int] = lambda name: 0) -> Shown | None:
    """Return the best one to report: it has a check, shows few other findings, does not use debugging, has few steps.

    ``others`` returns the number of other findings that a scenario shows, by its name.
    """

    def rank(shown: Shown) -> tuple[bool, bool, int, int, int, str]:
        steps = needed_steps(shown)
        debugged = any(each.step.kind in DEBUG_STEPS for each in steps)
        return (not shown.checks, debugged, others(shown.name), len(steps), len(shown.scenario.registers), shown.name)

    return min(found, key=rank, default=None)


def to_json(found: Mapping[str, Shown]) -> str:
    """Return the places of kept findings as JSON, by their ids; a scenario by its name, with a digest of its text."""
    rows = {
        id_: {
            "target": shown.target,
            "kernel": shown.kernel,
            "scenario": shown.name,
            "digest": hashlib.sha256(format_scenario(shown.scenario).encode()).hexdigest()[:16],
            "steps": shown.steps,
            "context": shown.context,
            "checks": [check._asdict() for check in shown.checks],
            "hidden": [check._asdict() for check in shown.hidden],
        }
        for id_, shown in sorted(found.items())
    }
    return json.dumps({"format": FORMAT, "findings": rows}, indent=1) + "\n"


def load_shown(path: Path, scenarios: Callable[[str], Scenario]) -> Mapping[str, Shown]:
    """Return the places of kept findings, by their ids; ``scenarios`` returns a scenario by its name.

    InputError: the file cannot be read, or was not written by :func:`to_json`.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise InputError(str(path), None, f"format: expected {FORMAT}")
        return {id_: _shown(row, scenarios) for id_, row in document["findings"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(str(path), None, f"not places of kept findings: {type(error).__name__} {error}") from error


def _shown(row: Mapping[str, Any], scenarios: Callable[[str], Scenario]) -> Shown:
    target, kernel, name = (str(row[key]) for key in ("target", "kernel", "scenario"))
    checks, hidden = (tuple(Check(**check) for check in row[key]) for key in ("checks", "hidden"))
    return Shown(target, kernel, name, scenarios(name), int(row["steps"]), int(row["context"]), checks, hidden)
