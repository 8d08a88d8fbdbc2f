# SPDX-License-Identifier: Apache-2.0
"""Render a whole trace as text: one line for each event, with the changed registers."""

from __future__ import annotations

from collections.abc import Iterator

from harness.arch import exits
from harness.protocol import NO_STEP
from harness.relations.gic_list_registers import describe, view
from harness.report.sites import host_sentence, pending_names, user_sentence
from harness.trace.events import ENTRY, EXIT, USER, Host, Lists, Switch, Trace
from harness.trace.tracefile import NO_VALUES, changed


def trace_lines(trace: Trace) -> Iterator[str]:
    """Yield a line for each event: number, letter (N entry, E exit, U userspace, H host), step, description, changes.

    The step is the one that the agent was running: the last of those that run together.  After an event of a vCPU with
    an in-kernel GIC, a line L has the changes of its virtual CPU interface.
    """
    shown = dict(_shown(trace))
    before = NO_VALUES
    for number, event in enumerate(trace.events):
        step = "   -" if event.step == NO_STEP else f"{event.step:4}"
        if isinstance(event, Host):
            yield f"{number:5} H {step}  {host_sentence(event)}"
            continue
        letter, what = _switch(event)
        changes = " ".join(f"{name}={value}" for name, value in changed(before, event.values).items())
        yield f"{number:5} {letter} {step}  {what}{'  ' if changes else ''}{changes}"
        if number in shown:
            yield f"{number:5} L {step}  {shown[number]}"
        before = event.values


def _shown(trace: Trace) -> Iterator[tuple[int, str]]:
    """Yield the changes of the virtual CPU interfaces, each with the number of the event before it."""
    last: dict[tuple[int, bool], str] = {}
    for lists in trace.lists:
        event = trace.events[lists.event]
        which, text = (event.context, event.kind == USER), _lists(lists, event.kind)
        if last.get(which) != text:
            last[which] = text
            yield lists.event, text


def _lists(lists: Lists, kind: int) -> str:
    """Return the virtual CPU interface at an event: list registers; after the vCPU is put, the guest's writes."""
    now = view(lists.values)
    if kind == USER:
        active = " ".join(f"{word:#x}" for word in now.active)
        return f"ich_vmcr_el2={now.vmcr:#x}; active priorities {active}"
    listed = "".join(f"; lr{i} {describe(lr)}" for i, lr in enumerate(now.lr) if lr)
    return f"ich_hcr_el2={now.hcr:#x}{listed}"


def _switch(event: Switch) -> tuple[str, str]:
    if event.kind == ENTRY:
        pending = ",".join(pending_names(event.pending))
        return "N", f"enter{f' pending={pending}' if pending else ''}"
    if event.kind != EXIT:
        return "U", user_sentence(event)
    name = exits.exit_class(event.code, event.esr)
    if name in ("DABT_LOW", "IABT_LOW"):
        return "E", f"{name} esr={event.esr:#x} far={event.far:#x} hpfar={event.hpfar:#x}"
    return "E", name if name in exits.EXIT_CODES.values() else f"{name} esr={event.esr:#x}"
