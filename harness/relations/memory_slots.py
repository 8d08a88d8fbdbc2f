# SPDX-License-Identifier: Apache-2.0
"""What KVM owes a userspace that asks for a memory slot: to take what its API allows, and to refuse what it forbids."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from harness.relations.save_restore import Divergence
from harness.scenario import memory_slots
from harness.trace.events import ENTRY, EXIT, Event, Host, Switch
from harness.trace.slot_timeline import OPS, Shapes

FIRST = "FIRST"


def compare_slots(events: Sequence[Event]) -> Iterator[Divergence]:
    """Yield the requests that KVM answered wrongly; relation ``host.slot``."""
    if OPS.isdisjoint([event.op for event in events if isinstance(event, Host)]):
        return
    shapes = Shapes()
    latest: dict[int, tuple[int, Switch]] = {}
    early: dict[int, list[tuple[str, str, int]]] = {}
    for index, event in enumerate(events):
        context = event.context
        if isinstance(event, Host):
            if event.op not in OPS:
                continue
            wrong = _wrong(event, shapes)
            shapes.apply(event)
            if wrong is not None and context in latest:
                at, exit_ = latest[context]
                yield Divergence("host", "slot", *wrong[:2], exit_.exit_class, at, event.step)
            elif wrong is not None:
                early.setdefault(context, []).append(wrong)
        elif event.kind == EXIT and isinstance(event, Switch):
            latest[context] = index, event
        elif event.kind == ENTRY:
            for expected, observed, step in early.pop(context, ()):
                yield Divergence("host", "slot", expected, observed, FIRST, index, step)


def _wrong(host: Host, shapes: Shapes) -> tuple[str, str, int] | None:
    """Return what was owed and what KVM answered, where the two differ; and the step."""
    slot = memory_slots.unpack(host.a, host.b)
    allowed = memory_slots.may_succeed(slot, shapes.slots(host.context))
    if shapes.world(host.context).protected:
        allowed = memory_slots.protected_may_succeed(slot, allowed)
    if (not host.error) in allowed:
        return None
    answered = errno.errorcode.get(host.error, str(host.error)) if host.error else "taken"
    return ("taken" if True in allowed else "refused"), answered, host.step
