# SPDX-License-Identifier: Apache-2.0
"""What surrounds each vCPU of a scenario as its trace goes on: the host changes memory slots between two runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness import protocol
from harness.layout import CONTEXTS, REGIONS
from harness.scenario import memory_slots
from harness.scenario.memory_slots import Slot
from harness.trace.environment import SCENARIO_VM, WORLDS, VmEnvironment, writable
from harness.trace.events import Event, Host

OPS = frozenset(protocol.OPS[name][0] for name in ("slot", "drop_slot"))
"""Operations that ask KVM to change a memory slot."""


class SlotTimeline:
    """The worlds of all vCPUs, in the order of ``layout.CONTEXTS``, at one place in a trace."""

    def __init__(self) -> None:
        self._slots: dict[int, Mapping[int, Slot]] = {}
        self._worlds = list(WORLDS)

    def world(self, context: int) -> VmEnvironment:
        """Return what surrounds a vCPU now; that of a lone one for a number that no vCPU has."""
        return self._worlds[context] if context < len(self._worlds) else SCENARIO_VM

    def slots(self, context: int) -> Mapping[int, Slot]:
        """Return the slots of a vCPU's VM, by number; that of its code is not among them."""
        machine = CONTEXTS[context].machine if context < len(CONTEXTS) else -1
        return self._slots.get(machine, {slot.number: slot for slot in memory_slots.DEFAULT})

    def apply(self, host: Host) -> None:
        """Take what the host did; only a request for a slot that KVM took changes anything."""
        if host.op not in OPS or host.error or host.context >= len(CONTEXTS):
            return
        after = memory_slots.changed(self.slots(host.context), memory_slots.unpack(host.a, host.b))
        machine = CONTEXTS[host.context].machine
        self._slots[machine] = after
        regions = REGIONS if tuple(after.values()) == memory_slots.DEFAULT else memory_slots.regions(after.values())
        for number, one in enumerate(CONTEXTS):
            if one.machine == machine:
                there = writable(regions) if WORLDS[number].protected else regions
                self._worlds[number] = replace(WORLDS[number], regions=there)


def all_slots(events: Iterable[Event]) -> VmEnvironment:
    """Return a world with every memory slot that there is at some time; those that can be written to come first."""
    regions = dict.fromkeys(SCENARIO_VM.regions)
    shapes = SlotTimeline()
    for event in events:
        if isinstance(event, Host) and event.op in OPS:
            shapes.apply(event)
            regions |= dict.fromkeys(shapes.world(event.context).regions)
    if len(regions) == len(SCENARIO_VM.regions):
        return SCENARIO_VM
    return replace(SCENARIO_VM, regions=tuple(sorted(regions, key=lambda region: region.read_only)))
