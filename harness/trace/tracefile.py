# SPDX-License-Identifier: Apache-2.0
"""Read and write a trace as text: JSON of one event per line, each register only where it changed.

::

    {"format": "shadowfuzz-trace 1", "status": "ok", "dropped": 0, "vhe": false, "events": [
    {"kind": "entry", "step": 4294967295, "code": "0x0", ..., "values": {"pc": "0x40000000", ...}},
    {"kind": "host", "step": 1, "op": 5, "a": "0x80", "b": "0x0", "error": 0, "asked": true}
    ]}

This is format 1, of one scenario; format 2 is a recording of a whole program (:mod:`harness.trace.recording`).
64-bit values are hexadecimal strings: JSON readers keep only 53 bits of a number.  ``values`` holds the registers
that differ from the entry, exit or user record before it (from all zeros in the first).  ``hyp``, if there, are the
hypervisor's own copies: index of the entry or exit, HCR_EL2, the registers that differ from that record's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from harness import protocol
from harness.arch.registers import INDEX, NAMES
from harness.errors import InputError
from harness.input_file import open_input
from harness.trace.events import (
    ENTRY,
    EXIT,
    HOST,
    VECTORS_SIZE,
    Event,
    Host,
    Hyp,
    Lists,
    Points,
    Switch,
    Trace,
    Vectors,
)

FORMAT = "shadowfuzz-trace 1"
GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 16 << 20
"""Longest trace text, in bytes."""
NO_VALUES = (0,) * len(NAMES)

_KINDS: Mapping[str, int] = MappingProxyType({k: protocol.RECORD_TYPES[k] for k in ("entry", "exit", "user", "host")})
_KIND_NAMES: Mapping[int, str] = MappingProxyType({number: name for name, number in _KINDS.items()})
_WORDS = tuple(name for name in Switch._fields if name not in ("kind", "step", "values"))
_HEX = re.compile(r"0x[0-9a-f]{1,16}")
_BYTES = re.compile(r"[0-9a-f]*")
_OPTIONAL = ("vectors", "points", "hyp", "lists")
"""Keys that a trace without userspace, or an older one, lacks."""
_TOP = ("format", "status", "dropped", "vhe", *_OPTIONAL, "events")
_SWITCH_KEYS = frozenset({"kind", "step", "values", *_WORDS})
_HOST_KEYS = frozenset({"kind", "step", "op", "a", "b", "error", "asked", "context"})
MAX_NUMBER = (1 << 64) - 1


def trace_to_json(trace: Trace) -> dict[str, object]:
    """Return a trace as plain data."""
    events: list[dict[str, object]] = []
    before = NO_VALUES
    for event in trace.events:
        if isinstance(event, Host):
            row: dict[str, object] = {"kind": "host", "step": event.step, "op": event.op}
            row |= {"a": hex(event.a), "b": hex(event.b), "error": event.error, "asked": event.asked}
            row |= {"context": event.context} if event.context else {}
        else:
            row = {"kind": _KIND_NAMES[event.kind], "step": event.step}
            row |= {name: hex(getattr(event, name)) for name in _WORDS if name != "marks" or event.marks}
            row["values"] = changed(before, event.values)
            before = event.values
        events.append(row)
    head: dict[str, object] = {"format": FORMAT, "status": trace.status, "dropped": trace.dropped, "vhe": trace.vhe}
    if trace.vectors:
        head["vectors"] = [[vectors.event, vectors.context, vectors.data.hex()] for vectors in trace.vectors]
    if trace.points:
        head["points"] = [[points.event, *map(hex, points.values)] for points in trace.points]
    if trace.hyp:
        head["hyp"] = [_copy(copy, trace.events[copy.event]) for copy in trace.hyp]
    if trace.lists:
        head["lists"] = [[lists.event, *map(hex, lists.values)] for lists in trace.lists]
    return {**head, "events": events}


def _copy(copy: Hyp, record: Event) -> list[object]:
    assert isinstance(record, Switch)
    return [copy.event, hex(copy.hcr), changed(record.values, copy.values)]


def changed(before: tuple[int, ...], after: tuple[int, ...]) -> dict[str, str]:
    """Return the registers that differ between two states, with their new values."""
    return {NAMES[i]: hex(new) for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def format_trace(trace: Trace) -> str:
    """Return the text of a trace, one event a line."""
    data = trace_to_json(trace)
    events = data.pop("events")
    assert isinstance(events, list)
    lines = ",\n".join(json.dumps(event) for event in events)
    return f'{json.dumps(data)[:-1]}, "events": [\n{lines}\n]}}\n'


class _Reason(Exception):
    """Why data is no trace; :func:`trace_from_json` adds where."""


def _keys(data: object, wanted: frozenset[str], what: str) -> Mapping[str, object]:
    if not isinstance(data, dict):
        raise _Reason(f"{what}: expected an object")
    if set(data) != wanted:
        wrong = sorted(str(key) for key in set(data) ^ wanted)[0]
        raise _Reason(f"{what}: key {wrong[:40]!a} is {'unknown' if wrong in data else 'missing'}")
    return data


def _number(data: Mapping[str, object], key: str, what: str, limit: int = MAX_NUMBER) -> int:
    value = data[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise _Reason(f"{what}: {key} is no number from 0 to {limit:#x}")
    return value


def _word(data: Mapping[str, object], key: str, what: str) -> int:
    value = data[key]
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _Reason(f"{what}: {key[:40]!a} is no hexadecimal string of at most 64 bits")
    return int(value, 16)


def _flag(data: Mapping[str, object], key: str, what: str) -> bool:
    value = data[key]
    if not isinstance(value, bool):
        raise _Reason(f"{what}: {key} is neither true nor false")
    return value


def _event(row: object, before: tuple[int, ...], what: str) -> Event:
    kind = row.get("kind") if isinstance(row, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _Reason(f"{what}: kind is none of {', '.join(_KINDS)}")
    assert isinstance(row, dict)
    if _KINDS[kind] == HOST:
        data = _keys({"context": 0} | row, _HOST_KEYS, what)  # written only for another vCPU than the first
        arguments = _word(data, "a", what), _word(data, "b", what)
        step, op = _number(data, "step", what, 0xFFFF_FFFF), _number(data, "op", what)
        asked, context = _flag(data, "asked", what), _number(data, "context", what, 0xFF)
        return Host(HOST, step, op, *arguments, _number(data, "error", what), asked, context)
    data = _keys({"marks": "0x0"} | row, _SWITCH_KEYS, what)  # written only where they are not 0
    values = _values(before, data["values"], what)
    words = [_word(data, name, what) for name in _WORDS]
    step = _number(data, "step", what, 0xFFFF_FFFF)
    return Switch._make([_KINDS[kind], step, *words, values])


def _values(before: tuple[int, ...], changes: object, what: str) -> tuple[int, ...]:
    if not isinstance(changes, dict):
        raise _Reason(f"{what}: values: expected an object")
    values = list(before)
    for name in changes:
        if name not in INDEX:
            raise _Reason(f"{what}: unknown register {str(name)[:40]!a}")
        values[INDEX[name]] = _word(changes, name, what)
    return tuple(values)


def _vectors(rows: object, events: tuple[Event, ...]) -> tuple[Vectors, ...]:
    """Return the FP and SIMD registers of a trace, each of an event that is a user record."""
    if not isinstance(rows, list):
        raise _Reason("vectors: expected a list")
    found: list[Vectors] = []
    for number, row in enumerate(rows):
        match row:
            case [int(event), int(context), str(data)] if 0 <= event < len(events) and 0 <= context <= 0xFF:
                if not _BYTES.fullmatch(data) or len(data) != 2 * VECTORS_SIZE:
                    raise _Reason(f"vectors {number}: expected {VECTORS_SIZE} bytes in hexadecimal")
                found.append(Vectors(event, context, bytes.fromhex(data)))
            case _:
                raise _Reason(f"vectors {number}: expected the index of an event, a vCPU and bytes")
    return tuple(found)


def _rows(rows: object, events: int, what: str, words: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the rows of so many words each that belong to one of so many events."""
    if not isinstance(rows, list):
        raise _Reason(f"{what}: expected a list")
    for number, row in enumerate(rows):
        match row:
            case [int(event), *values] if 0 <= event < events and len(values) == words:
                if not all(isinstance(value, str) and _HEX.fullmatch(value) for value in values):
                    raise _Reason(f"{what} {number}: expected hexadecimal strings of at most 64 bits")
                yield event, tuple(int(value, 16) for value in values)
            case _:
                raise _Reason(f"{what} {number}: expected the index of an event and {words} values")


def _copies(rows: object, events: tuple[Event, ...]) -> tuple[Hyp, ...]:
    """Return the hypervisor's copies of a trace, each at an entry or an exit."""
    if not isinstance(rows, list):
        raise _Reason("hyp: expected a list")
    found: list[Hyp] = []
    for number, row in enumerate(rows):
        match row:
            case [int(event), str(hcr), values] if 0 <= event < len(events) and _HEX.fullmatch(hcr):
                record = events[event]
                if not isinstance(record, Switch) or record.kind not in (ENTRY, EXIT):
                    raise _Reason(f"hyp {number}: event {event} is neither an entry nor an exit")
                found.append(Hyp(event, int(hcr, 16), _values(record.values, values, f"hyp {number}")))
            case _:
                raise _Reason(f"hyp {number}: expected the index of an event, HCR_EL2 in hexadecimal and registers")
    return tuple(found)


def trace_from_json(data: object, where: str = "trace") -> Trace:
    """Return the trace of plain data that came from ``where``; InputError for anything that is none."""
    try:
        if isinstance(data, dict):
            data = {name: [] for name in _OPTIONAL} | data
        top = _keys(data, frozenset(_TOP), "trace")
        if top["format"] != FORMAT:
            raise _Reason(f"format: expected {FORMAT!r}")
        status, rows = top["status"], top["events"]
        if not isinstance(status, str) or status not in protocol.STATUS:
            raise _Reason(f"status: expected one of {', '.join(protocol.STATUS)}")
        if not isinstance(rows, list):
            raise _Reason("events: expected a list")
        events: list[Event] = []
        before = NO_VALUES
        for number, row in enumerate(rows):
            event = _event(row, before, f"event {number}")
            before = event.values if isinstance(event, Switch) else before
            events.append(event)
        vectors = _vectors(top["vectors"], tuple(events))
        points = tuple(Points(*row) for row in _rows(top["points"], len(events), "points", len(protocol.DEBUG_WORDS)))
        lists = tuple(Lists(*row) for row in _rows(top["lists"], len(events), "lists", len(protocol.LIST_WORDS)))
        hyp = _copies(top["hyp"], tuple(events))
        dropped, vhe = _number(top, "dropped", "trace"), _flag(top, "vhe", "trace")
        return Trace(tuple(events), status, dropped, vhe, vectors, hyp, points, lists)
    except _Reason as reason:
        raise InputError(where, None, str(reason)) from None


def parse_trace(text: str | bytes, where: str = "trace") -> Trace:
    """Parse the text of a trace; InputError for anything that is none."""
    if len(text) > MAX_BYTES:
        raise InputError(where, None, f"longer than {MAX_BYTES} bytes")
    if isinstance(text, bytes) and text.startswith(GZIP_MAGIC):
        raise InputError(where, None, "a recording (format 2): `shadowfuzz recording check` reads it")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(where, error.lineno, f"not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(where, None, "not a trace: nested too deeply") from error
    except ValueError as error:  # not UTF-8; a number of thousands of digits
        raise InputError(where, None, f"not JSON: {error}") from error
    return trace_from_json(data, where)


def load_trace(path: Path) -> Trace:
    """Read and parse a trace file.  InputError: it cannot be read, or is no trace."""
    try:
        with open_input(path) as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_trace(text, str(path))
