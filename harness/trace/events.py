# SPDX-License-Identifier: Apache-2.0
"""World switches as values, and the decoding of the records that the probe wrote.

A trace is one stream of events, in the order in which they happened::

    N0  E1  U1  H H  N1  E2  N2  E3 ...

N, an entry: the context as KVM is about to load it.  E, an exit: as KVM has just saved it.  U: as userspace finds it
when ``KVM_RUN`` returns.  H: something that userspace did.  The records come from a guest that may be anything: a
record that the layout does not allow raises :class:`~harness.errors.AgentProtocolError`, nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from harness import protocol
from harness.arch import exits, registers
from harness.errors import AgentProtocolError

FORGE_MASK = sum(protocol.FORGE.values())
_DEBUGGED, _STEPPED = protocol.DEBUG["debugged"], protocol.DEBUG["stepped"]
MARKS = (1 << protocol.FLAGS_VM_SHIFT) - 1


class Switch(NamedTuple):
    """An entry, exit or user record (``kind``); the fields are those of ``protocol.SWITCH_WORDS``.

    ``marks`` are the low 16 bits of the record's flags.  ``values`` holds the registers in the order of
    ``registers.STATE``.
    """

    kind: int
    step: int
    code: int
    error: int
    esr: int
    far: int
    hpfar: int
    hcr: int
    pending: int
    mmio_addr: int
    mmio_len: int
    mmio_data: int
    marks: int
    values: tuple[int, ...]

    @property
    def forged(self) -> int:
        """What of an exit was replaced before KVM's handlers saw it (``protocol.FORGE`` bits)."""
        return self.marks & FORGE_MASK

    @property
    def trapped(self) -> bool:
        """Whether an instruction of the guest ended the run, no interrupt; what is forged was one, whatever it says."""
        return self.code & ~exits.EXIT_WITH_SERROR_BIT == exits.EXCEPTION_TRAP or bool(self.marks & FORGE_MASK)

    @property
    def page(self) -> int:
        """The page of an abort, a guest physical address (HPFAR_EL2.FIPA, Arm ARM D17.2.69)."""
        return (self.hpfar >> 4) << 12

    @property
    def address(self) -> int:
        """The guest physical address of an abort: FAR_EL2 has the offset in its page (Arm ARM D17.2.69)."""
        return self.page | self.far & 0xFFF

    @property
    def debugged(self) -> bool:
        """Whether userspace debugs the vCPU (KVM_SET_GUEST_DEBUG)."""
        return self.marks & _DEBUGGED != 0

    @property
    def stepped(self) -> bool:
        """Whether userspace has the vCPU stop after each instruction."""
        return self.marks & _STEPPED != 0

    @property
    def context(self) -> int:
        """The vCPU whose record it is (number in ``layout.CONTEXTS``)."""
        return self.marks >> protocol.FLAGS_VCPU_SHIFT

    @property
    def exit_class(self) -> str:
        """The class of an exit, such as ``HVC64``; ``forged:HVC64`` if that is what it was made to look like."""
        name = exits.exit_class(self.code, self.esr)
        return f"{FORGED}{name}" if self.marks & FORGE_MASK else name

    def get(self, name: str) -> int:
        """The value of the register ``name`` of ``registers.STATE``."""
        return self.values[registers.INDEX[name]]


class Host(NamedTuple):
    """A host action: operation number (``protocol.OPS``), arguments, errno; ``asked``: the scenario wanted it.

    ``context`` is the vCPU that it was about (number in ``layout.CONTEXTS``).
    """

    kind: int
    step: int
    op: int
    a: int
    b: int
    error: int
    asked: bool
    context: int = 0


Event = Switch | Host
ENTRY, EXIT, USER, HOST = (protocol.RECORD_TYPES[k] for k in ("entry", "exit", "user", "host"))
POINTS, LISTS = protocol.RECORD_TYPES["debug"], protocol.RECORD_TYPES["lists"]


VECTORS_SIZE = 528
"""Bytes of struct user_fpsimd_state: q0..q31, FPSR, FPCR and 8 bytes that are reserved (asm/ptrace.h)."""


class Vectors(NamedTuple):
    """The FP and SIMD registers of a vCPU as userspace found them: index of the user record, vCPU, memory as it is.

    KVM keeps them in the CPU while the vCPU is loaded, and stores them when it is put (kvm_arch_vcpu_put_fp): only a
    user record has them.
    """

    event: int
    context: int
    data: bytes


class Hyp(NamedTuple):
    """The hypervisor's own copy of a vCPU beside an entry or exit: index of that record, HCR_EL2, registers.

    At an entry it is what will be loaded into the CPU, at an exit what was saved from there.
    """

    event: int
    hcr: int
    values: tuple[int, ...]


class Points(NamedTuple):
    """The debug registers of a vCPU at an entry or exit: its index among the events, and ``protocol.DEBUG_WORDS``."""

    event: int
    values: tuple[int, ...]


class Lists(NamedTuple):
    """The virtual CPU interface of a vCPU at an entry, exit or user record: its index, and ``protocol.LIST_WORDS``."""

    event: int
    values: tuple[int, ...]


FORGED = "forged:"
"""Begins the class of an exit that was made to look like one."""


@dataclass(frozen=True)
class ContextLayout:
    """Where ``struct kvm_cpu_context`` keeps the registers of one kernel build, in u64 slots from its start."""

    size: int
    slots: tuple[int, ...]  # one a register of registers.STATE
    vectors: int = 0  # byte offset of the FP and SIMD registers (struct user_fpsimd_state), 0 if nobody knows

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


@dataclass(frozen=True, slots=True)
class Trace:
    """What one scenario did on one target.

    ``status`` is how the agent ended (``protocol.STATUS``); ``dropped`` counts records that found no room; ``vectors``
    are in the order of their records, those left out that are as in the record of that vCPU before; ``hyp`` are the
    hypervisor's own copies, where somebody asked for them, one an entry and exit, in their order; ``points`` the debug
    registers, where the scenario has to do with debugging, likewise; ``lists`` what the interrupt controllers of vCPUs
    that have one showed them.
    """

    events: tuple[Event, ...]
    status: str
    dropped: int
    vhe: bool
    vectors: tuple[Vectors, ...] = ()
    hyp: tuple[Hyp, ...] = ()
    points: tuple[Points, ...] = ()
    lists: tuple[Lists, ...] = ()


_HOST = struct.Struct(f"<{len(protocol.HOST_WORDS)}Q")
_SWITCH = struct.Struct(f"<{len(protocol.SWITCH_WORDS)}Q")
_BESIDE: Mapping[int, struct.Struct] = {
    POINTS: struct.Struct(f"<{len(protocol.DEBUG_WORDS)}Q"),
    LISTS: struct.Struct(f"<{len(protocol.LIST_WORDS)}Q"),
}
"""Records that are no events: more of the one before them."""
_SIZES: Mapping[int, int] = {
    HOST: protocol.HOST_SIZE,
    POINTS: protocol.DEBUG_SIZE,
    LISTS: protocol.LIST_SIZE,
}
_STATUS_NAMES: Mapping[int, str] = {number: name for name, number in protocol.STATUS.items()}


def status_name(status: int) -> str:
    """Name a status word; AgentProtocolError if there is none."""
    try:
        return _STATUS_NAMES[status]
    except KeyError:
        raise AgentProtocolError(f"agent status {status:#x}, expected one of {sorted(_STATUS_NAMES)}") from None


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
    # Most records hold what the one before them held.
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
        elif kind not in _BESIDE:  # decode_points() and decode_lists() read those
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
        index += kind not in _BESIDE
    return tuple(found)


def _decode_beside(area: bytes | memoryview, wanted: int, what: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the records of one kind of :data:`_BESIDE`, each with the index of its event."""
    at, index = 0, -1
    while at < len(area):
        kind, size, _, _ = protocol.RECORD_HEADER.unpack_from(area, at)
        if kind == wanted:
            if index < 0:
                raise AgentProtocolError(f"{what} in front of all records")
            yield index, _BESIDE[wanted].unpack_from(area, at + protocol.RECORD_HEADER.size)
        at += size
        index += kind not in _BESIDE


def decode_points(area: bytes | memoryview) -> tuple[Points, ...]:
    """Return the debug registers in a trace area that :func:`decode` has accepted.  AgentProtocolError: of no event."""
    return tuple(Points(*found) for found in _decode_beside(area, POINTS, "debug registers"))


def decode_lists(area: bytes | memoryview) -> tuple[Lists, ...]:
    """Return the interrupt lists in a trace area that :func:`decode` has accepted.  AgentProtocolError: of no event."""
    return tuple(Lists(*found) for found in _decode_beside(area, LISTS, "interrupt lists"))
