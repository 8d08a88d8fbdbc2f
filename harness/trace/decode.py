# SPDX-License-Identifier: Apache-2.0
"""Decode the words that the guest's module recorded into events."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

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

_HOST = struct.Struct(f"<{len(protocol.HOST_WORDS)}Q")
_SWITCH = struct.Struct(f"<{len(protocol.SWITCH_WORDS)}Q")
_ATTACHED: Mapping[int, struct.Struct] = {
    POINTS: struct.Struct(f"<{len(protocol.DEBUG_WORDS)}Q"),
    LISTS: struct.Struct(f"<{len(protocol.LIST_WORDS)}Q"),
}
"""Records that are not events: they extend the record before them."""
_SIZES: Mapping[int, int] = {
    HOST: protocol.HOST_SIZE,
    POINTS: protocol.DEBUG_SIZE,
    LISTS: protocol.LIST_SIZE,
}


@dataclass(frozen=True)
class ContextLayout:
    """Where ``struct kvm_cpu_context`` keeps the registers of one kernel build, in u64 slots from its start."""

    size: int
    slots: tuple[int, ...]  # one a register of registers.STATE
    vectors: int = 0  # byte offset of the FP and SIMD registers (struct user_fpsimd_state), 0 if unknown

    @cached_property
    def values(self) -> Callable[[bytes], tuple[int, ...]]:
        """Take the bytes of a whole context to the register values."""
        order = sorted(set(self.slots))
        formats, at = "", 0
        for slot in order:
            formats += f"{8 * (slot - at)}xQ" if slot != at else "Q"
            at = slot + 1
        words = struct.Struct(f"<{formats}{self.size - 8 * at}x").unpack
        pick = itemgetter(*(order.index(slot) for slot in self.slots))
        return lambda context: pick(words(context))

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


def decode(area: bytes | memoryview, layout: ContextLayout) -> tuple[Event, ...]:
    """Decode the used part of the trace area.

    AgentProtocolError: a record of a type or size that the protocol does not have, or one cut short.
    """
    events: list[Event] = []
    append, header, values_of = events.append, protocol.RECORD_HEADER.unpack_from, layout.values
    area = bytes(area)
    switch_size = protocol.SWITCH_SIZE + layout.size
    sizes = {ENTRY: switch_size, EXIT: switch_size, USER: switch_size, **_SIZES}
    at, end, head = 0, len(area), protocol.RECORD_HEADER.size
    # Most records hold the same values as the one before them.
    last = b""
    values: tuple[int, ...] = ()
    while at < end:
        if end - at < head:
            raise AgentProtocolError(f"record at {at:#x}: {end - at} bytes left, a header has {head}")
        kind, size, step, flags = header(area, at)
        if size != sizes.get(kind) or size > end - at:
            found, expected = f"type {kind}, {size} bytes, {end - at} left", sizes.get(kind, switch_size)
            raise AgentProtocolError(f"record at {at:#x}: {found}, expected {expected} bytes")
        body = at + head
        if kind == HOST:
            op, a, b, error, asked = _HOST.unpack_from(area, body)
            append(Host(kind, step, op, a, b, error, bool(asked), (flags & MARKS) >> protocol.FLAGS_VCPU_SHIFT))
        elif kind not in _ATTACHED:  # decode_points() and decode_lists() read those
            context = area[at + protocol.SWITCH_SIZE : at + size]
            if context != last:
                last, values = context, values_of(context)
            append(Switch._make((kind, step, *_SWITCH.unpack_from(area, body), flags & MARKS, values)))
        at += size
    return tuple(events)


def decode_vectors(area: bytes | memoryview, layout: ContextLayout) -> tuple[Vectors, ...]:
    """Return the FP and SIMD registers in a trace area that :func:`decode` has accepted."""
    found: list[Vectors] = []
    last: dict[int, bytes] = {}
    header = protocol.RECORD_HEADER.unpack_from
    start = protocol.SWITCH_SIZE + layout.vectors
    at = index = 0
    while at < len(area) and layout.vectors:
        kind, size, _, flags = header(area, at)
        if kind == USER:
            context = (flags & MARKS) >> protocol.FLAGS_VCPU_SHIFT
            data = bytes(area[at + start : at + start + VECTORS_SIZE])
            if last.get(context) != data:
                last[context] = data
                found.append(Vectors(index, context, data))
        at += size
        index += kind not in _ATTACHED
    return tuple(found)


def decode_points(area: bytes | memoryview) -> tuple[Points, ...]:
    """Return the debug registers in a trace area that :func:`decode` has accepted.  AgentProtocolError: of no event."""
    return tuple(Points(*found) for found in _decode_attached(area, POINTS, "debug registers"))


def decode_lists(area: bytes | memoryview) -> tuple[Lists, ...]:
    """Return the interrupt lists in a trace area that :func:`decode` has accepted.  AgentProtocolError: of no event."""
    return tuple(Lists(*found) for found in _decode_attached(area, LISTS, "interrupt lists"))


def _decode_attached(area: bytes | memoryview, wanted: int, what: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the records of one kind of :data:`_ATTACHED`, each with the index of its event."""
    at, index = 0, -1
    while at < len(area):
        kind, size, _, _ = protocol.RECORD_HEADER.unpack_from(area, at)
        if kind == wanted:
            if index < 0:
                raise AgentProtocolError(f"{what} in front of all records")
            yield index, _ATTACHED[wanted].unpack_from(area, at + protocol.RECORD_HEADER.size)
        at += size
        index += kind not in _ATTACHED
