# SPDX-License-Identifier: Apache-2.0
"""Model distributor and redistributors: configuration, asserted inputs, and the resulting pending interrupts.

Source: IHI 0069, the interrupt lifecycle, and the registers' pages (rows of :mod:`harness.gic.registers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from harness.arch.registers import MASK64
from harness.gic.cpu_interface import Interface
from harness.gic.departures import ACTIVE_FILL_LISTS, COMES_AFTER_END, ENABLE_LOSES, NONE
from harness.gic.registers import (
    AFFINITY,
    ANY_PE,
    ENABLE_GROUP_1,
    IMPLEMENTED_PRIORITY,
    LIST_REGISTERS,
    PRIVATE,
    SGIS,
    RegisterField,
    place,
)
from harness.layout import GIC_INTERRUPTS

UNKNOWN: Final = 0, MASK64
"""A value of which no bit is known."""


def _all(*facts: bool | None) -> bool | None:
    """Three-valued and."""
    return False if False in facts else None if None in facts else True


def _any(*facts: bool | None) -> bool | None:
    """Three-valued or."""
    return True if True in facts else None if None in facts else False


@dataclass
class Interrupt:
    """The known state of one interrupt; ``route`` is the vCPU that gets it, ``edge``: it is edge-triggered.

    ``line`` is its input; None: the input was 1 when the trigger was reconfigured, which says nothing for an edge.
    ``listed``: it is on its vCPU's list; with ``ENABLE_LOSES`` only listed interrupts are presented.
    """

    intid: int
    route: int | None
    enabled: bool | None = False
    group_1: bool | None = None
    priority: int | None = None
    edge: bool | None = None
    line: bool | None = False
    latch: bool | None = False
    active: bool | None = False
    listed: bool | None = False

    @property
    def pending(self) -> bool | None:
        """Whether it is pending, active or not: an edge that was latched, or a level that is asserted."""
        if self.edge:
            return self.latch
        if self.edge is False:
            return _any(self.line, self.latch)
        if self.line and self.latch:
            return True
        return False if self.line is False and self.latch is False else None

    @property
    def idle(self) -> bool:
        """Whether it is certainly neither pending nor active."""
        return self.latch is False and self.line is False and self.active is False

    def set_line(self, level: bool) -> None:
        """Raise or lower its input (KVM API 4.25: an edge is a 1 and then a 0)."""
        if level and self.edge is not False:
            self.latch = True if self.line is False or self.latch else None
        self.line = level

    def mark_unknown(self) -> None:
        """Mark its state as unknown; its configuration stays."""
        self.latch = self.active = None


def _group(irq: Interrupt, bits: int) -> None:
    irq.group_1 = bool(bits)


def _enable(irq: Interrupt, bits: int) -> None:
    if bits:
        irq.enabled = True


def _disable(irq: Interrupt, bits: int) -> None:
    if bits:
        irq.enabled = None if irq.intid < SGIS else False  # SGIs may be always enabled


def _pend(irq: Interrupt, bits: int) -> None:
    if bits:
        irq.latch = True if irq.edge else None


def _unpend(irq: Interrupt, bits: int) -> None:
    if bits:
        irq.latch = False if irq.active is False else None


def _activate(irq: Interrupt, bits: int) -> None:
    if bits:
        irq.active = None


def _deactivate(irq: Interrupt, bits: int) -> None:
    if bits and irq.active is not False:
        irq.active = None


def _priority(irq: Interrupt, bits: int) -> None:
    irq.priority = bits


def _configure(irq: Interrupt, bits: int) -> None:
    edge = bool(bits & 2)
    if irq.intid < PRIVATE or edge is irq.edge:  # SGIs are always edges, PPIs may be fixed
        return
    # A change while it is enabled is UNPREDICTABLE, and leaves one that is pending in an UNKNOWN state.
    irq.edge = edge if irq.enabled is False and irq.pending is False else None
    if irq.line is not False:
        # KVM API 4.25: an edge is a 1 and then a 0. It does not define what an input that stays 1 is for a level.
        irq.line = irq.latch = None


def _route(irq: Interrupt, bits: int) -> None:
    wanted = bits & AFFINITY
    known = not bits & ANY_PE and wanted in (0, 1) and irq.pending is False and irq.active is False
    irq.route = wanted if known else None


_WRITES: Final[Mapping[str, Callable[[Interrupt, int], None]]] = MappingProxyType(
    {
        **{"igroupr": _group, "isenabler": _enable, "icenabler": _disable, "ispendr": _pend, "icpendr": _unpend},
        **{"isactiver": _activate, "icactiver": _deactivate, "ipriorityr": _priority, "icfgr": _configure},
        "irouter": _route,
    }
)


def _bit(fact: bool | None) -> tuple[int, int]:
    return (0, 1) if fact is None else (int(fact), 0)


def _read(name: str, irq: Interrupt) -> tuple[int, int]:
    """Return the bits of an interrupt in a register, and which of them are unknown."""
    match name:
        case "igroupr":
            return _bit(irq.group_1)
        case "isenabler" | "icenabler":
            return _bit(irq.enabled)
        case "ispendr" | "icpendr":
            return _bit(irq.pending)
        case "isactiver" | "icactiver":
            return _bit(irq.active)
        case "ipriorityr" if irq.priority is not None:
            return irq.priority, 0xFF & ~IMPLEMENTED_PRIORITY
        case "icfgr" if irq.edge is not None:
            return 2 * irq.edge, 1
        case "irouter" if irq.route is not None:
            return irq.route, MASK64 & ~AFFINITY
    return UNKNOWN


_LISTING: Final = frozenset({"igroupr", "isenabler", "ispendr", "isactiver"})
"""Registers whose writes may add an interrupt to a list (Linux, vgic-mmio.c: callers of vgic_queue_irq_unlock)."""


@dataclass
class Gic:
    """The GIC of one VM with ``vcpus`` vCPUs, whose affinity is their number.

    ``departures`` are those of :mod:`harness.gic.departures` that are switched on.
    """

    vcpus: int
    departures: frozenset[str] = NONE
    enabled: bool | None = False
    lost: str = ""
    irqs: dict[tuple[int, int], Interrupt] = field(default_factory=dict)
    interfaces: tuple[Interface, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.interfaces = tuple(Interface() for _ in range(self.vcpus))

    def irq(self, vcpu: int, intid: int) -> Interrupt:
        """Return an interrupt, that of a vCPU where it is private."""
        key = (vcpu if intid < PRIVATE else -1, intid)
        if key not in self.irqs:
            private = intid < PRIVATE
            sgi = intid < SGIS
            self.irqs[key] = Interrupt(
                intid, vcpu if private else None, None if sgi else False, edge=True if sgi else None
            )
        return self.irqs[key]

    def mark_unknown(self, why: str) -> None:
        """Mark the state of the GIC and of every interface as unknown."""
        self.lost = self.lost or why
        for interface in self.interfaces:
            interface.mark_unknown(why)

    def _covered(self, where: RegisterField) -> Iterator[Interrupt]:
        """Yield the interrupts of an access, without those that do not exist and private ones in the distributor."""
        for intid in range(where.first, where.first + where.number):
            there = range(PRIVATE, GIC_INTERRUPTS) if where.vcpu is None else range(PRIVATE)
            if intid in there:
                yield self.irq(where.vcpu or 0, intid)

    def write(self, address: int, size: int, value: int) -> None:
        """Apply a store of the guest to a register."""
        where = place(address, size)
        if where.bank is None:
            if where.first == 0:
                if size == 4:
                    self.enabled = bool(value & ENABLE_GROUP_1)
                else:
                    self.mark_unknown("GICD_CTLR written by another size than a word")
            return  # anything else configures nothing that is compared
        if size not in where.bank.sizes or address % size:
            self.mark_unknown("a register of the GIC written by a size that it need not take")
            return
        bits = where.bank.bits
        for irq in self._covered(where):
            group = irq.group_1
            written = value >> (irq.intid - where.first) * bits & (1 << bits) - 1
            _WRITES[where.bank.name](irq, written)
            if where.bank.name in _LISTING and (written or where.bank.name == "igroupr"):
                self._list(irq)
            if irq.group_1 is not group and irq.active is not False:
                self.mark_unknown("another group for an interrupt that may be active")  # which of the two ends it?

    def read(self, address: int, size: int) -> tuple[int, int]:
        """Return the value that the guest loads, and its unknown bits."""
        where = place(address, size)
        if self.lost:
            return UNKNOWN
        if where.bank is None:
            if where.first == 0 and size == 4 and self.enabled is not None:
                return ENABLE_GROUP_1 * self.enabled, MASK64 & ~ENABLE_GROUP_1
            return UNKNOWN
        if size not in where.bank.sizes or address % size or where.first < (PRIVATE if where.vcpu is None else 0):
            return UNKNOWN
        value = unknown = 0
        for irq in self._covered(where):
            bits, free = _read(where.bank.name, irq)
            shift, mask = (irq.intid - where.first) * where.bank.bits, (1 << where.bank.bits) - 1
            value |= (bits & mask) << shift
            unknown |= (free & mask) << shift
        return value, unknown

    def generate(self, value: int, sender: int) -> None:
        """Apply a write to ICC_SGI1R_EL1 (IHI 0069): send a group 1 SGI to the vCPUs that it names."""
        others = bool(value >> 40 & 1)
        cluster = value >> 16 & 0xFF or value >> 32 & 0xFF or value >> 44 & 0xF or value >> 48 & 0xFF
        for vcpu in range(self.vcpus):
            if vcpu != sender if others else not cluster and value >> vcpu & 1:
                irq = self.irq(vcpu, value >> 24 & 0xF)
                irq.latch = True if irq.group_1 else None
                self._list(irq)

    def set_line(self, vcpu: int, intid: int, level: bool) -> None:
        """Raise or lower the input of an interrupt (KVM API 4.25)."""
        irq = self.irq(vcpu, intid)
        changes = None if irq.line is None else level != irq.line
        irq.set_line(level)
        # Linux, vgic.c vgic_validate_injection: an edge is accepted if it is 1, a level if it changes.
        if irq.edge is not None:
            self._list(irq, level if irq.edge else changes)
        elif level or changes is not False:
            self._list(irq, (level and changes) or None)

    def _wanted(self, irq: Interrupt) -> bool | None:
        """Whether an interrupt has a vCPU to whose list it is added (Linux, vgic.c vgic_target_oracle)."""
        return _any(irq.active, _all(irq.enabled, irq.pending, self.enabled))

    def _list(self, irq: Interrupt, looks: bool | None = True) -> None:
        """Add an interrupt to its vCPU's list, if it ``looks`` for one and is wanted."""
        if ENABLE_LOSES in self.departures:
            irq.listed = _any(irq.listed, _all(self._wanted(irq), looks))

    def prune(self, vcpu: int) -> None:
        """Remove from the list of a vCPU that has exited what need not be there (Linux, vgic.c vgic_prune_ap_list)."""
        if ENABLE_LOSES not in self.departures:
            return
        for (owner, _), irq in self.irqs.items():
            if owner in (-1, vcpu) and irq.route in (None, vcpu) and irq.listed is not False:
                stays = self._wanted(irq)
                irq.listed = _all(irq.listed, stays if irq.route is not None else stays or None)

    def ready(self, irq: Interrupt, vcpu: int) -> bool | None:
        """Whether an interrupt is pending and enabled, and targets a vCPU."""
        return _all(irq.pending, irq.enabled, None if irq.route is None else irq.route == vcpu)

    def forwarded(self, irq: Interrupt, vcpu: int) -> bool | None:
        """Whether an interrupt is forwarded to a vCPU, if it is of group 1."""
        found = _all(self.ready(irq, vcpu), self.enabled)
        return _all(found, irq.listed) if ENABLE_LOSES in self.departures else found

    def doubled(self, irq: Interrupt, vcpu: int, active: bool | None = None) -> bool | None:
        """Whether a list register holds as active and pending an interrupt that is not forwarded (COMES_AFTER_END).

        ``active``: whether it is active, where that is not known otherwise.
        """
        if COMES_AFTER_END not in self.departures or self.forwarded(irq, vcpu) is not False:
            return False
        active = active if irq.active is None else irq.active
        return _all(active, irq.edge, irq.pending, None if irq.route is None else irq.route == vcpu)

    def enter(self, vcpu: int) -> Interface:
        """Return the interface of a vCPU that is about to run, with the interrupts that are pending for it."""
        interface = self.interfaces[vcpu]
        interface.waiting, interface.doubled, interface.kept_away = {}, {}, {}
        interface.pending, interface.maybe, interface.may_be_fiq, interface.late = {}, "", False, False
        interface.acknowledged, interface.ended = set(), set()
        again, many, active, surely = set(), 0, 0, 0
        for (owner, intid), irq in self.irqs.items():
            if owner not in (-1, vcpu) or irq.idle:
                continue
            forwarded = self.forwarded(irq, vcpu)
            many += forwarded is not False or irq.active is not False
            active += irq.active is not False
            surely += irq.active is True and irq.route == vcpu
            if forwarded is False:
                if (doubled := self.doubled(irq, vcpu)) and irq.group_1 and irq.priority is not None:
                    interface.doubled[intid] = irq.priority
                elif doubled is not False:
                    interface.maybe = interface.maybe or "an interrupt of which something is not known"
                continue
            if irq.group_1 is not True:
                if interface.enabled_0:
                    interface.may_be_fiq = True
                if interface.enabled_0 or irq.group_1 is None:
                    interface.maybe = interface.maybe or "an interrupt that may be of group 0"
            elif irq.active:
                again.add(intid)
            elif irq.active is None or forwarded is None or irq.priority is None:
                interface.maybe = interface.maybe or "an interrupt of which something is not known"
            else:
                interface.pending[intid] = irq.priority
                if irq.edge is not True and irq.line is not False:
                    again.add(intid)
        interface.again = frozenset(again)
        if ACTIVE_FILL_LISTS in self.departures and surely >= LIST_REGISTERS:
            interface.kept_away = interface.pending
            interface.pending, interface.maybe, interface.may_be_fiq = {}, "", False
        elif many > LIST_REGISTERS:
            interface.hold_back(max(1, LIST_REGISTERS - active))
        return interface

    def leave(self, vcpu: int) -> None:
        """Apply a run of a vCPU: the interrupts that it acknowledged are active, those that it ended are not."""
        interface = self.interfaces[vcpu]
        if interface.lost:
            for (owner, _), irq in self.irqs.items():
                if owner in (-1, vcpu) and irq.pending is not False:
                    irq.mark_unknown()
                elif owner in (-1, vcpu) and irq.active is not False:
                    irq.active = None
            return
        for intid in interface.acknowledged:
            irq = self.irq(vcpu, intid)
            irq.latch, irq.active = False, True
        for intid in interface.ended:
            self.irq(vcpu, intid).active = False
