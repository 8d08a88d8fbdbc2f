# SPDX-License-Identifier: Apache-2.0
"""Check the result of KVM_SET_USER_MEMORY_REGION: KVM must accept valid slot changes and reject invalid ones."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

from harness.relations.divergence import Divergence
from harness.scenario import memory_slots
from harness.scenario.memory_slots import KINDS, READ_ONLY, Slot, collides
from harness.trace.environment import IPA_BITS
from harness.trace.events import ENTRY, EXIT, Host, Switch
from harness.trace.indexed import IndexedTrace
from harness.trace.slot_timeline import OPS, SlotTimeline

FIRST = "FIRST"


def asks_for_slots(indexed: IndexedTrace) -> bool:
    """Whether the host requested a change of a memory slot, accepted or rejected."""
    return not OPS.isdisjoint([event.op for event in indexed.trace.events if isinstance(event, Host)])


def compare_slots(indexed: IndexedTrace, ipa_bits: int = IPA_BITS) -> Iterator[Divergence]:
    """Yield the requests with a wrong result; relation ``host.slot``.

    ``ipa_bits`` is the size of each VM's physical address space.
    """
    latest: dict[int, tuple[int, Switch]] = {}
    early: dict[int, list[tuple[str, str, int]]] = {}
    for index, event in enumerate(indexed.trace.events):
        context = event.context
        if isinstance(event, Host):
            if event.op not in OPS:
                continue
            wrong = _wrong(index, event, indexed.slots, ipa_bits)
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


def _wrong(event: int, host: Host, timeline: SlotTimeline, ipa_bits: int) -> tuple[str, str, int] | None:
    """Return the required result and KVM's, if they differ, and the step."""
    slot = memory_slots.unpack(host.a, host.b)
    allowed = may_succeed(slot, timeline.slots(event, host.context), ipa_bits)
    if timeline.environment(event, host.context).protected:
        allowed = protected_may_succeed(slot, allowed)
    if (not host.error) in allowed:
        return None
    answered = errno.errorcode.get(host.error, str(host.error)) if host.error else "taken"
    return ("taken" if True in allowed else "refused"), answered, host.step


def may_succeed(slot: Slot, slots: Mapping[int, Slot], ipa_bits: int = IPA_BITS) -> frozenset[bool]:
    """Return whether KVM_SET_USER_MEMORY_REGION must succeed: both values where the API's text leaves it open.

    ``slots`` exist before the request, by number.  Source: KVM API 4.35, "slots may not overlap", "it may be moved in
    the guest physical memory space, or its flags may be modified, but it may not be resized", "Deleting a slot is done
    by passing zero for memory_size"; KVM API 4.2 for the limit of addresses.
    """
    old = slots.get(slot.number)
    if not slot.size:
        return frozenset({True}) if old is not None else frozenset({True, False})
    if collides(slot, slots.values(), 1 << ipa_bits) or (old is not None and old.size != slot.size):
        return frozenset({False})
    if old is not None and (old.home != slot.home or (KINDS[old.kind] ^ KINDS[slot.kind]) & READ_ONLY):
        return frozenset({True, False})  # other memory for a slot, and a change of read-only: the text does not say
    return frozenset({True})


def protected_may_succeed(slot: Slot, otherwise: frozenset[bool]) -> frozenset[bool]:
    """Return the same for a protected VM; ``otherwise`` is what holds for any other one.

    Source: Documentation/virt/kvm/arm/pkvm.rst, "Read-only memslots and dirty logging are not supported", "Memslots
    cannot be moved or deleted once the pVM has started running".
    """
    return frozenset({False}) if KINDS[slot.kind] else otherwise | {False}
