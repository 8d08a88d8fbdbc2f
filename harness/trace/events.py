# SPDX-License-Identifier: Apache-2.0
"""Represent world switches, host actions and the other records of a trace as values.

A trace is one stream of events, in the order in which they happened::

    N0  E1  U1  H H  N1  E2  N2  E3 ...

N, an entry: the context as KVM is about to load it.  E, an exit: as KVM has just saved it.  U: as userspace finds it
when ``KVM_RUN`` returns.  H: an action of userspace.  The records come from an untrusted guest: a record that the
layout does not allow raises :class:`~harness.errors.AgentProtocolError`, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from harness import protocol
from harness.arch import exits, registers
from harness.errors import AgentProtocolError

FORGE_MASK: Final = sum(protocol.FORGE.values())
_DEBUGGED: Final = protocol.DEBUG["debugged"]
_STEPPED: Final = protocol.DEBUG["stepped"]
_VCPU_SHIFT: Final = protocol.FLAGS_VCPU_SHIFT
MARKS: Final = (1 << protocol.FLAGS_VM_SHIFT) - 1


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
        """The parts of an exit that were replaced before KVM's handlers saw it (``protocol.FORGE`` bits)."""
        return self.marks & FORGE_MASK

    @property
    def trapped(self) -> bool:
        """Whether an instruction of the guest ended the run, not an interrupt; a forged exit always counts as one."""
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
    def mmio_size(self) -> int:
        """The bytes of an MMIO access: ``mmio_len`` without the mark of a write."""
        return self.mmio_len & protocol.MMIO_WRITE - 1

    @property
    def mmio_bytes(self) -> int:
        """The data of an MMIO access: the bytes that it has, of which the record holds more (KVM API 5)."""
        return self.mmio_data & (1 << 8 * self.mmio_size) - 1

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
        return self.marks >> _VCPU_SHIFT

    @property
    def exit_class(self) -> str:
        """The class of an exit, such as ``HVC64``; ``forged:HVC64`` for an exit that was forged to that class."""
        name = exits.exit_class(self.code, self.esr)
        return f"{FORGED}{name}" if self.marks & FORGE_MASK else name

    def get(self, name: str) -> int:
        """The value of the register ``name`` of ``registers.STATE``."""
        return self.values[registers.INDEX[name]]


class Host(NamedTuple):
    """A host action: operation number (``protocol.OPS``), arguments, errno; ``asked``: the scenario asked for it.

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
ENTRY: Final = protocol.RECORD_TYPES["entry"]
EXIT: Final = protocol.RECORD_TYPES["exit"]
USER: Final = protocol.RECORD_TYPES["user"]
HOST: Final = protocol.RECORD_TYPES["host"]
POINTS: Final = protocol.RECORD_TYPES["debug"]
LISTS: Final = protocol.RECORD_TYPES["lists"]


VECTORS_SIZE: Final = 528
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
    """The hypervisor's own copy of a vCPU at an entry or exit: index of that record, HCR_EL2, registers.

    At an entry these values will be loaded into the CPU, at an exit they were saved from it.
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


FORGED: Final = "forged:"
"""Prefix of the class of a forged exit."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The events of one scenario on one target.

    ``status`` is how the agent ended (``protocol.STATUS``); ``dropped`` counts records that found no room; ``vectors``
    are in the order of their records, without those that equal the vCPU's record before; ``hyp`` are the hypervisor's
    own copies, if they were asked for, one per entry and exit, in their order; ``points`` the debug registers, if the
    scenario uses debugging, likewise; ``lists`` the virtual CPU interfaces of vCPUs that have an in-kernel GIC.
    """

    events: tuple[Event, ...]
    status: str
    dropped: int
    vhe: bool
    vectors: tuple[Vectors, ...] = ()
    hyp: tuple[Hyp, ...] = ()
    points: tuple[Points, ...] = ()
    lists: tuple[Lists, ...] = ()


_STATUS_NAMES: Final[Mapping[int, str]] = {number: name for name, number in protocol.STATUS.items()}


def status_name(status: int) -> str:
    """Name a status word; AgentProtocolError if there is none."""
    try:
        return _STATUS_NAMES[status]
    except KeyError:
        raise AgentProtocolError(f"agent status {status:#x}, expected one of {sorted(_STATUS_NAMES)}") from None
