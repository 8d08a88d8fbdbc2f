# SPDX-License-Identifier: Apache-2.0
"""Memory slots and environment of each vCPU at every event of a scenario's trace.

The host changes memory slots between two runs of a guest.  The changes are replayed once, by :meth:`SlotTimeline.of`;
after that it answers for any event, in any order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from harness import protocol
from harness.layout import CONTEXTS, REGIONS
from harness.scenario import memory_slots
from harness.scenario.memory_slots import Slot
from harness.trace.environment import SCENARIO_VM, WORLDS, VmEnvironment, writable
from harness.trace.events import Event, Host

OPS: Final = frozenset(protocol.OPS[name][0] for name in ("slot", "drop_slot"))
"""Operations that request a change of a memory slot."""
_DEFAULT: Final[Mapping[int, Slot]] = {slot.number: slot for slot in memory_slots.DEFAULT}


@dataclass(frozen=True, slots=True)
class _Shape:
    """The slots of each VM that changed any, by ``Context.machine``, and the environment of every vCPU."""

    slots: Mapping[int, Mapping[int, Slot]]
    environments: tuple[VmEnvironment, ...]

    def after(self, host: Host) -> _Shape:
        """Return the slots and environments after a request for a slot that KVM accepted."""
        machine = CONTEXTS[host.context].machine
        slots = memory_slots.changed(self.slots.get(machine, _DEFAULT), memory_slots.unpack(host.a, host.b))
        regions = REGIONS if tuple(slots.values()) == memory_slots.DEFAULT else memory_slots.regions(slots.values())
        environments = list(self.environments)
        for number, one in enumerate(CONTEXTS):
            if one.machine == machine:
                there = writable(regions) if WORLDS[number].protected else regions
                environments[number] = replace(WORLDS[number], regions=there)
        return _Shape({**self.slots, machine: slots}, tuple(environments))


_FIRST: Final = _Shape({}, WORLDS)


@dataclass(frozen=True, slots=True)
class SlotTimeline:
    """The environment of each vCPU at every event: ``changes`` are the events that changed a slot, in order.

    ``shapes`` has one more: ``shapes[i]`` holds up to and with the event ``changes[i]``, the last one from then on.
    """

    changes: tuple[int, ...] = ()
    shapes: tuple[_Shape, ...] = (_FIRST,)

    @classmethod
    def of(cls, events: Iterable[Event]) -> SlotTimeline:
        """Replay the requests for memory slots; only those that KVM accepted change anything."""
        changes: list[int] = []
        shapes = [_FIRST]
        for index, event in enumerate(events):
            if isinstance(event, Host) and event.op in OPS and not event.error and event.context < len(CONTEXTS):
                changes.append(index)
                shapes.append(shapes[-1].after(event))
        return cls(tuple(changes), tuple(shapes)) if changes else NO_CHANGES

    def _shape(self, event: int) -> _Shape:
        return self.shapes[bisect_left(self.changes, event)] if self.changes else self.shapes[0]

    def environment(self, event: int, context: int) -> VmEnvironment:
        """Return the environment of a vCPU at an event; that of a lone vCPU for a number that no vCPU has."""
        environments = self._shape(event).environments
        return environments[context] if context < len(environments) else SCENARIO_VM

    def slots(self, event: int, context: int) -> Mapping[int, Slot]:
        """Return the slots of a vCPU's VM at an event, by number, without the slot of its code."""
        machine = CONTEXTS[context].machine if context < len(CONTEXTS) else -1
        return self._shape(event).slots.get(machine, _DEFAULT)

    def all_slots(self) -> VmEnvironment:
        """Return an environment with every memory slot of the whole trace; writable ones come first."""
        regions = dict.fromkeys(SCENARIO_VM.regions)
        for shape in self.shapes[1:]:
            for number, environment in enumerate(shape.environments):
                if environment is not WORLDS[number]:  # its own slots have changed
                    regions |= dict.fromkeys(environment.regions)
        if len(regions) == len(SCENARIO_VM.regions):
            return SCENARIO_VM
        return replace(SCENARIO_VM, regions=tuple(sorted(regions, key=lambda region: region.read_only)))


NO_CHANGES: Final = SlotTimeline()
"""The timeline of a trace in which no memory slot changes."""
