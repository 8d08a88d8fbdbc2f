# SPDX-License-Identifier: Apache-2.0
"""Decode the trace area as a ring: the records between two positions that only grow (harness/vm/guest/watch.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from harness import protocol
from harness.errors import AgentProtocolError
from harness.trace.decode import ContextLayout
from harness.trace.events import ENTRY, EXIT, USER, Switch
from harness.trace.recording import API, CALL_NAMES, Api, Recorded

MARKS = (1 << protocol.FLAGS_VCPU_SHIFT) - 1
PAD = 0
"""The type of a header that fills the piece before the wrap."""
_API = struct.Struct(f"<{len(protocol.API_WORDS)}Q")
_SWITCH = struct.Struct(f"<{len(protocol.SWITCH_WORDS)}Q")


def decode(area: memoryview, tail: int, head: int, layout: ContextLayout) -> Iterator[Recorded]:
    """Yield the records between ``tail`` and ``head``, which count all bytes that were ever written.

    AgentProtocolError: a record that the protocol does not have.
    """
    size = len(area)
    header, values_of = protocol.RECORD_HEADER, layout.reader()
    sizes = dict.fromkeys((ENTRY, EXIT, USER), protocol.SWITCH_SIZE + layout.size) | {API: protocol.API_SIZE}
    while tail < head:
        at = tail % size
        kind, length, step, flags = header.unpack_from(area, at) if size - at >= header.size else (PAD, 0, 0, 0)
        if kind == PAD:
            tail += size - at
            continue
        if sizes.get(kind) != length or length > size - at or length > head - tail:
            raise AgentProtocolError(f"ring at {tail:#x}: type {kind}, {length} bytes, {head - tail} left")
        vm, vcpu, marks = flags >> protocol.FLAGS_VM_SHIFT, flags >> protocol.FLAGS_VCPU_SHIFT & 0xFF, flags & MARKS
        if kind == API:
            op, *arguments = _API.unpack_from(area, at + header.size)
            if op not in CALL_NAMES:
                raise AgentProtocolError(f"ring at {tail:#x}: call {op}, expected one of {sorted(CALL_NAMES)}")
            yield Recorded(vm, vcpu, Api(CALL_NAMES[op], *arguments))
        else:
            words = _SWITCH.unpack_from(area, at + header.size)
            values = values_of(bytes(area[at + protocol.SWITCH_SIZE : at + length]))
            yield Recorded(vm, vcpu, Switch._make((kind, step, *words, marks, values)))
        tail += length
