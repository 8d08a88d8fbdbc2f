# SPDX-License-Identifier: Apache-2.0
"""Decode the words that the guest's module recorded into events."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

from harness import protocol
from harness.arch import registers
from harness.errors import AgentProtocolError
from harness.trace.events import (
    ENTRY,
    EXIT,
    HOST,
    LISTS,
    MARKS,
    POINTS,
    USER,
    VECTORS_SIZE,
    Event,
    Host,
    Lists,
    Points,
    Switch,
    Vectors,
)

_HEADER: Final = protocol.RECORD_HEADER
_HOST: Final = struct.Struct(f"<{len(protocol.HOST_WORDS)}Q")
_SWITCH: Final = struct.Struct(f"<{len(protocol.SWITCH_WORDS)}Q")
_POINTS: Final = struct.Struct(f"<{len(protocol.DEBUG_WORDS)}Q")
_LISTS: Final = struct.Struct(f"<{len(protocol.LIST_WORDS)}Q")
_SIZES: Final[Mapping[int, int]] = {
    HOST: protocol.HOST_SIZE,
    POINTS: protocol.DEBUG_SIZE,
    LISTS: protocol.LIST_SIZE,
}


@lru_cache(maxsize=8)
def _reader(size: int, slots: tuple[int, ...]) -> Callable[[bytes], tuple[int, ...]]:
    order = sorted(set(slots))
    formats, at = "", 0
    for slot in order:
        formats += f"{8 * (slot - at)}xQ" if slot != at else "Q"
        at = slot + 1
    words = struct.Struct(f"<{formats}{size - 8 * at}x").unpack
    pick = itemgetter(*(order.index(slot) for slot in slots))
    return lambda context: pick(words(context))


@dataclass(frozen=True)
class ContextLayout:
    """Where ``struct kvm_cpu_context`` keeps the registers of one kernel build, in u64 slots from its start."""

    size: int
    slots: tuple[int, ...]  # one a register of registers.STATE
    vectors: int = 0  # byte offset of the FP and SIMD registers (struct user_fpsimd_state), 0 if unknown

    def reader(self) -> Callable[[bytes], tuple[int, ...]]:
        """Return the function from the bytes of a whole context to the register values."""
        return _reader(self.size, self.slots)

    def to_json(self) -> Mapping[str, object]:
        """The layout as plain data."""
        return {"size": self.size, "slots": list(self.slots), "vectors": self.vectors}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ContextLayout:
        """The inverse of :meth:`to_json`."""
        slots, size, vectors = data.get("slots"), data.get("size"), data.get("vectors", 0)
        if not isinstance(slots, list) or len(slots) != len(registers.STATE) or not isinstance(size, int):
            raise ValueError("not a context layout")
        if not all(isinstance(slot, int) and 0 <= slot < size // 8 for slot in slots):
            raise ValueError("a context layout with a register outside the context")
        if not isinstance(vectors, int) or not 0 <= vectors <= size - VECTORS_SIZE * (vectors > 0):
            raise ValueError("a context layout with vector registers outside the context")
        return cls(size, tuple(slots), vectors)


class Records(NamedTuple):
    """The records of a trace area, each kind in its order, as in :class:`harness.trace.events.Trace`."""

    events: tuple[Event, ...]
    vectors: tuple[Vectors, ...] = ()
    points: tuple[Points, ...] = ()
    lists: tuple[Lists, ...] = ()


def decode(area: bytes | memoryview, layout: ContextLayout) -> Records:
    """Decode the used part of the trace area, in one pass.

    AgentProtocolError: a record of a type or size that the protocol does not have, one cut short, or one that extends
    an event and has none in front of it.
    """
    events: list[Event] = []
    vectors: list[Vectors] = []
    points: list[Points] = []
    lists: list[Lists] = []
    append, header, words, values_of = events.append, _HEADER.unpack_from, _SWITCH.unpack_from, layout.reader()
    area = bytes(area)
    switch_size = protocol.SWITCH_SIZE + layout.size
    sizes = {ENTRY: switch_size, EXIT: switch_size, USER: switch_size, **_SIZES}
    at, end, head = 0, len(area), _HEADER.size
    # Most records hold the same values as the one before them.
    last = b""
    values: tuple[int, ...] = ()
    stored: dict[int, bytes] = {}
    """The FP and SIMD registers of each vCPU in its record before."""
    while at < end:
        if end - at < head:
            raise AgentProtocolError(f"record at {at:#x}: {end - at} bytes left, a header has {head}")
        kind, size, step, flags = header(area, at)
        if size != sizes.get(kind) or size > end - at:
            found, expected = f"type {kind}, {size} bytes, {end - at} left", sizes.get(kind, switch_size)
            raise AgentProtocolError(f"record at {at:#x}: {found}, expected {expected} bytes")
        marks = flags & MARKS
        if kind == HOST:
            op, a, b, error, asked = _HOST.unpack_from(area, at + head)
            append(Host(kind, step, op, a, b, error, bool(asked), marks >> protocol.FLAGS_VCPU_SHIFT))
        elif kind == POINTS:
            points.append(Points(_event_before(events, at, "debug registers"), _POINTS.unpack_from(area, at + head)))
        elif kind == LISTS:
            lists.append(Lists(_event_before(events, at, "interrupt lists"), _LISTS.unpack_from(area, at + head)))
        else:
            context = area[at + protocol.SWITCH_SIZE : at + size]
            if context != last:
                last, values = context, values_of(context)
            if kind == USER and layout.vectors:
                vcpu, data = marks >> protocol.FLAGS_VCPU_SHIFT, context[layout.vectors : layout.vectors + VECTORS_SIZE]
                if stored.get(vcpu) != data:
                    stored[vcpu] = data
                    vectors.append(Vectors(len(events), vcpu, data))
            append(Switch._make((kind, step, *words(area, at + head), marks, values)))
        at += size
    return Records(tuple(events), tuple(vectors), tuple(points), tuple(lists))


def _event_before(events: Sequence[Event], at: int, what: str) -> int:
    """Return the index of the event that a record extends."""
    if not events:
        raise AgentProtocolError(f"record at {at:#x}: {what} in front of all events")
    return len(events) - 1
