# SPDX-License-Identifier: Apache-2.0
"""Read and write recordings (trace format 2): the world switches of a whole program, any number of VMs and vCPUs.

A gzip stream of text, one record a line (format 1, :mod:`harness.trace.tracefile`, is one scenario's trace)::

    file   = head record* end
    head   = "shadowfuzz-trace 2 " json
    record = kind vm "." vcpu (" " name "=" hex)*
           | "A" vm "." vcpu " " call " " hex " " hex " " hex " " hex " " hex
    kind   = "N" (entry) | "E" (exit) | "U" (return to userspace)
    end    = "end " json

``name`` is a field of :class:`~harness.trace.events.Switch` or a register of ``registers.STATE``.  What a line does not
name is as in the line before of the same vCPU (zero in its first).  ``call`` is a row of ``protocol.API`` with its four
arguments and its errno.  ``end`` says how the program ended, and what is missing; a file without it was cut short.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from harness import protocol
from harness.arch.registers import INDEX, MASK64, NAMES
from harness.errors import InputError
from harness.input_file import open_input
from harness.trace.events import ENTRY, EXIT, USER, Switch

FORMAT = "shadowfuzz-trace 2 "
MAX_LINE = 4096
"""Longest line, in bytes: every register of a vCPU changed takes 1 900."""
MAX_LINES = 50_000_000

API = protocol.RECORD_TYPES["api"]


class Api(NamedTuple):
    """A call of KVM's API, by ``protocol.API``: name, four arguments, errno."""

    name: str
    a: int
    b: int
    c: int
    d: int
    error: int


class Recorded(NamedTuple):
    """A record, and whose it is; ``vcpu`` is 0 where a call is the VM's."""

    vm: int
    vcpu: int
    event: Switch | Api


@dataclass(frozen=True, slots=True)
class Head:
    """The origin of a recording: target, CPU model, kernel, mode of KVM, the program with its arguments.

    ``registers`` names those that were recorded, with spaces between.
    """

    target: str
    cpu: str
    kernel_release: str
    kernel_sha256: str
    vhe: bool
    program: str
    registers: str = " ".join(NAMES)


@dataclass(frozen=True, slots=True)
class End:
    """How a recording ended.

    ``status``: ``exited``, ``signalled``, ``stopped`` (the recording, not the program), ``lost`` (the target died);
    ``code``: exit status or signal.  ``records`` counts all, ``exits`` exits, ``dropped`` what is missing, ``waits``
    how often the probe waited for room.
    """

    status: str
    code: int
    records: int
    exits: int
    dropped: int
    waits: int


STATUSES = ("exited", "signalled", "stopped", "lost")
CALL_NAMES: Mapping[int, str] = MappingProxyType({number: name for name, (number, _) in protocol.API.items()})
_LETTERS: Mapping[int, str] = MappingProxyType({ENTRY: "N", EXIT: "E", USER: "U"})
_KINDS: Mapping[str, int] = MappingProxyType({letter: kind for kind, letter in _LETTERS.items()})
_WORDS = tuple(name for name in Switch._fields if name not in ("kind", "step", "values"))
_FIELD: Mapping[str, int] = MappingProxyType({name: i for i, name in enumerate((*_WORDS, *NAMES))})
_NO_FIELDS = (0,) * len(_FIELD)
_COUNT = len(_WORDS)
assert not set(_WORDS) & set(INDEX), "a word and a register of one name"

T = TypeVar("T", Head, End)


class Writer:
    """Write a recording line by line; :func:`create` makes one."""

    def __init__(self, stream: gzip.GzipFile, head: Head) -> None:
        self._stream = stream
        self._before: dict[tuple[int, int], tuple[int, ...]] = {}
        self.records = 0
        self.exits = 0
        self._line(FORMAT + json.dumps(asdict(head)))

    def _line(self, text: str) -> None:
        self._stream.write(text.encode() + b"\n")

    def add(self, recorded: Recorded) -> None:
        """Append a record."""
        vm, vcpu, event = recorded
        self.records += 1
        if isinstance(event, Api):
            self._line(f"A{vm}.{vcpu} {event.name} " + " ".join(f"{value:x}" for value in event[1:]))
            return
        now = (*event[2:-1], *event.values)
        before = self._before.get((vm, vcpu), _NO_FIELDS)
        fields_ = zip(_FIELD, before, now, strict=True)
        changed = [f" {name}={new:x}" for name, old, new in fields_ if old != new]
        self._before[vm, vcpu] = now
        self.exits += event.kind == EXIT
        self._line(f"{_LETTERS[event.kind]}{vm}.{vcpu}{''.join(changed)}")

    def end(self, status: str, code: int, dropped: int, waits: int) -> End:
        """Write the last line and return it."""
        end = End(status, code, self.records, self.exits, dropped, waits)
        self._line("end " + json.dumps(asdict(end)))
        return end


@contextmanager
def create(path: Path, head: Head) -> Iterator[Writer]:
    """Create a recording; the file appears under its name when the block ends, and not at all if it fails."""
    part = path.with_name(path.name + ".part")
    try:
        # No time and no name in it: the same records give the same file.
        with part.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
            yield Writer(stream, head)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def rewrite(path: Path, reader: Reader, records: Iterable[Recorded]) -> None:
    """Write ``records``, drawn from ``reader``, as a recording of their own that ended as that one did."""
    with create(path, reader.head) as writer:
        for recorded in records:
            writer.add(recorded)
        assert reader.end is not None  # or it had raised
        writer.end(reader.end.status, reader.end.code, reader.end.dropped, reader.end.waits)


class _Reason(Exception):
    """Why a line is not valid in a recording; :class:`Reader` adds where."""


class Reader:
    """A recording as a stream: ``head`` first, then iterate, then ``end`` is there.

    InputError, with the line: the file cannot be read, or is no recording.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._lines = self._read()
        self.end: End | None = None
        with self._located():
            text = next(self._lines, "")
            if not text.startswith(FORMAT):
                raise _Reason(f"expected {FORMAT.strip()!r} and an object")
            self.head = _object(text.removeprefix(FORMAT), Head)
            recorded = frozenset(self.head.registers.split())
            if recorded - set(NAMES):
                raise _Reason(f"register {min(recorded - set(NAMES))[:40]!a}, which this version does not know")
            self.absent = frozenset(NAMES) - recorded
            """Registers that were not recorded: zero in every record."""

    @contextmanager
    def _located(self) -> Iterator[None]:
        try:
            yield
        except _Reason as reason:
            raise InputError(str(self._path), self._number or None, str(reason)) from None

    def _read(self) -> Iterator[str]:
        try:
            with open_input(self._path) as file, gzip.GzipFile(fileobj=file, mode="rb") as stream:
                while line := stream.readline(MAX_LINE + 1):
                    self._number += 1
                    if len(line) > MAX_LINE or self._number > MAX_LINES:
                        raise _Reason(f"more than {MAX_LINE} bytes in a line, or than {MAX_LINES} lines")
                    yield line.decode("ascii")
        except UnicodeDecodeError:
            raise _Reason("expected text") from None
        except EOFError:
            raise _Reason("the file ends too early: it was cut short") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _Reason(f"not a recording of shadowfuzz: {error}") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            raise InputError(str(self._path), None, f"cannot be read: {reason}") from error

    def __iter__(self) -> Iterator[Recorded]:
        state: dict[tuple[int, int], tuple[int, ...]] = {}
        records = 0
        with self._located():
            for line in self._lines:
                if line.startswith("end "):
                    self.end = _object(line.removeprefix("end "), End)
                    if self.end.status not in STATUSES or self.end.records != records:
                        raise _Reason(f"{records} records; the end says {self.end.status}, {self.end.records}")
                    if next(self._lines, None) is not None:
                        raise _Reason("expected nothing after the end")
                    return
                records += 1
                yield _record(line, state)
            raise _Reason("no end: the recording was cut short")


def _record(line: str, state: dict[tuple[int, int], tuple[int, ...]]) -> Recorded:
    first, *rest = line.split() or (" ",)
    kind, (vm, vcpu) = first[0], _identity(first[1:])
    if kind == "A":
        return Recorded(vm, vcpu, _api(rest))
    if kind not in _KINDS:
        raise _Reason(f"expected a record of kind {', '.join(_KINDS)} or A")
    values = state.get((vm, vcpu), _NO_FIELDS)
    if rest:
        changed = list(values)
        for item in rest:
            name, _, text = item.partition("=")
            if name not in _FIELD:
                raise _Reason(f"unknown field {name[:40]!a}")
            changed[_FIELD[name]] = _hex(text)
        values = state[vm, vcpu] = tuple(changed)
    return Recorded(vm, vcpu, Switch._make((_KINDS[kind], 0, *values[:_COUNT], values[_COUNT:])))


def _identity(text: str) -> tuple[int, int]:
    vm, _, vcpu = text.partition(".")
    if not (vm.isdecimal() and vcpu.isdecimal() and len(vm) <= 5 and len(vcpu) <= 3):
        raise _Reason("expected VM.VCPU after the kind")
    return int(vm), int(vcpu)


def _api(words: list[str]) -> Api:
    if len(words) != 6 or words[0] not in protocol.API:
        raise _Reason(f"expected one of {', '.join(protocol.API)} and five numbers")
    return Api(words[0], *(_hex(word) for word in words[1:]))


def _hex(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value <= MASK64:
        raise _Reason(f"{text[:40]!a} is no hexadecimal number of at most 64 bits")
    return value


def _object(text: str, kind: type[T]) -> T:
    """Return the dataclass that a line's JSON object holds."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    wanted = {field.name: field.type for field in fields(kind)}
    if not isinstance(data, dict) or set(data) != set(wanted):
        raise _Reason(f"expected an object with {', '.join(wanted)}")
    for name, value in data.items():
        if type(value).__name__ != wanted[name] or (isinstance(value, int) and value < 0):
            raise _Reason(f"{name} is no {wanted[name]}")
    return kind(**data)
