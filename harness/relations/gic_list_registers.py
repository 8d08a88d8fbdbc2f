# SPDX-License-Identifier: Apache-2.0
"""Compare a vCPU's virtual GIC interface: the list registers, ICH_VMCR_EL2 and the active priorities.

The list registers at an entry are compared with the distributor (relation ``host``), those at the next exit with what
the guest has acknowledged and ended since (``switch``), the rest with what it wrote to its CPU interface (``switch``).
Source: Arm IHI 0069, ICH_LR<n>_EL2, ICH_VMCR_EL2, ICH_AP1R<n>_EL2, ICH_HCR_EL2, and the interrupt lifecycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness import protocol
from harness.gic.cpu_interface import Interface
from harness.gic.distributor import Gic, Interrupt
from harness.gic.registers import IMPLEMENTED_MASK, IMPLEMENTED_PRIORITY, LIST_REGISTERS, PRIVATE, SGIS
from harness.layout import GIC_INTERRUPTS
from harness.relations.divergence import Divergence, Unchecked

PENDING, ACTIVE, GROUP_1, HW = 1 << 62, 1 << 63, 1 << 60, 1 << 61
"""ICH_LR<n>_EL2: its State has a bit each for pending and active."""
STATE = PENDING | ACTIVE
PHYSICAL = HW | 0x1FFF << 32
"""ICH_LR<n>_EL2.HW and pINTID."""
_EOI = 1 << 41
"""Without HW, pINTID[9]: a maintenance interrupt at its end, which the hypervisor may choose."""
PRIORITY_SHIFT = 48
INTID = 0xFFFF_FFFF
"""ICH_LR<n>_EL2.vINTID."""
ENABLED = 1
"""ICH_HCR_EL2.En."""
VMCR_FIELDS: tuple[tuple[str, int, int], ...] = (
    # Field of Interface, where it is in ICH_VMCR_EL2, and the bits of it that every virtual interface has.
    ("enabled_0", 0, 1),  # VENG0, ICC_IGRPEN0_EL1
    ("enabled", 1, 1),  # VENG1, ICC_IGRPEN1_EL1
    ("shares_point", 4, 1),  # VCBPR, ICC_CTLR_EL1.CBPR
    ("drops_only", 9, 1),  # VEOIM, ICC_CTLR_EL1.EOImode
    ("point", 18, 7),  # VBPR1, ICC_BPR1_EL1
    ("mask", 24, IMPLEMENTED_MASK),  # VPMR, ICC_PMR_EL1
)
_POINT = 7 << 18
_FIELDS = sum(bits << shift for _, shift, bits in VMCR_FIELDS)
KERNELS_OWN = range(SGIS + 4, PRIVATE)
"""PPIs that KVM's own timers and PMU may raise (Documentation/virt/kvm/devices/vcpu.rst)."""

_NAMES = tuple(word.name for word in protocol.LIST_WORDS)
_FIRST_LR = _NAMES.index("ich_lr0_el2")
_AP: slice[int, int, None] = slice(_NAMES.index("ich_ap0r0_el2"), _FIRST_LR)
_OWN = "a list register with a PPI that KVM's own timers or PMU may raise"
_GROUP = "a list register with an interrupt that may be of group 0"
_UNKNOWN = "a list register with an interrupt of which something is not known"
_NOT_KEPT = "ICH_VMCR_EL2.VBPR1, which the guest wrote so that it need not be kept"


class Where(NamedTuple):
    """Where in a trace something was seen: the class of the exit before or at it, event, step."""

    exit_class: str
    event: int
    step: int


class View(NamedTuple):
    """The words of one record, by name: ``lr`` are all list registers, those that are not ``used`` too."""

    used: int
    hcr: int
    vmcr: int
    active: tuple[int, ...]
    lr: tuple[int, ...]


def view(values: tuple[int, ...]) -> View:
    """Return the words of a record (``protocol.LIST_WORDS``) by name."""
    used, hcr, vmcr = values[: _AP.start]
    return View(used, hcr, vmcr, values[_AP], values[_FIRST_LR:])


def describe(lr: int) -> str:
    """Return a list register as reports write it."""
    states = [name for name, bit in (("pending", PENDING), ("active", ACTIVE)) if lr & bit] or ["invalid"]
    physical = f", hw {lr >> 32 & 0x1FFF}" if lr & HW else ""
    return f"{lr & INTID} {'+'.join(states)}, priority {lr >> 48 & 0xFF:#x}, group {int(bool(lr & GROUP_1))}{physical}"


def at_entry(now: View, gic: Gic, vcpu: int, where: Where) -> Iterator[Divergence | Unchecked]:
    """Compare the list registers of a vCPU at an entry with the distributor; ``gic.enter(vcpu)`` was just called."""
    shown: dict[int, int] = {}
    for lr in now.lr[: now.used]:
        intid = lr & INTID
        if not lr & STATE:
            continue
        if intid in shown:  # UNPREDICTABLE, ICH_LR<n>_EL2.vINTID
            yield Divergence("host", "gic_list", 0, lr, *where)
        shown[intid] = lr
        yield from _listed(lr, gic, vcpu, where)
    if shown and not now.hcr & ENABLED:
        yield Divergence("host", "ich_hcr_el2", ENABLED, now.hcr, *where)
    if why := gic.lost or gic.interfaces[vcpu].lost:
        yield Unchecked("host", f"list registers: {why}", where.event)
    else:
        if why := gic.interfaces[vcpu].maybe:
            yield Unchecked("host.gic_list", f"what is not in list registers: {why}", where.event)
        yield from _left_out(shown, gic, vcpu, where)


def _listed(lr: int, gic: Gic, vcpu: int, where: Where) -> Iterator[Divergence | Unchecked]:
    """Compare one list register that is in use."""
    intid = lr & INTID
    if intid in KERNELS_OWN:
        yield Unchecked("host", _OWN, where.event)
        return
    if intid >= GIC_INTERRUPTS:
        yield Divergence("host", "gic_list", 0, lr, *where)
        return
    # An interrupt that userspace or a guest raises has no physical interrupt.
    wanted = lr & ~(PHYSICAL & ~_EOI)
    if not gic.lost:
        irq = gic.irq(vcpu, intid)
        doubled = gic.doubled(irq, vcpu, bool(lr & ACTIVE))
        if why := _undecided(irq, gic, vcpu, doubled):
            yield Unchecked("host", why, where.event)
        wanted = _as_configured(wanted, irq, gic, vcpu)
        if doubled is not False:
            wanted |= PENDING if doubled else lr & PENDING
            wanted = _with_priority(wanted, irq) if doubled else wanted
    if wanted != lr:
        yield Divergence("host", "gic_list", wanted, lr, *where)


def _undecided(irq: Interrupt, gic: Gic, vcpu: int, doubled: bool | None) -> str:
    """Return why not all of a list register is compared; an empty text if all is."""
    if irq.group_1 is not True:
        return _GROUP
    unknown = None in (irq.priority, irq.active, gic.forwarded(irq, vcpu), doubled)
    return _UNKNOWN if unknown else ""


def _with_priority(lr: int, irq: Interrupt) -> int:
    if irq.priority is None or not (lr >> PRIORITY_SHIFT ^ irq.priority) & IMPLEMENTED_PRIORITY:
        return lr
    return lr & ~(0xFF << PRIORITY_SHIFT) | irq.priority << PRIORITY_SHIFT


def _as_configured(lr: int, irq: Interrupt, gic: Gic, vcpu: int) -> int:
    """Return a list register as the distributor requires it, with unknown fields left as they are."""
    if irq.group_1 is not None:
        lr = lr & ~GROUP_1 | GROUP_1 * irq.group_1
    # Whether a new priority is that of an active interrupt, too, is IMPLEMENTATION DEFINED (IHI 0069, GICD_IPRIORITYR).
    lr = _with_priority(lr, irq) if irq.active is False else lr
    if irq.active is not None:
        lr = lr & ~ACTIVE | ACTIVE * irq.active
    if gic.ready(irq, vcpu) is False or (irq.group_1 and gic.forwarded(irq, vcpu) is False):
        lr &= ~PENDING
    return lr


def _left_out(shown: dict[int, int], gic: Gic, vcpu: int, where: Where) -> Iterator[Divergence]:
    """Yield interrupts that are certain to be pending for the vCPU and are in no list register.

    If the list registers are full, only an interrupt of higher priority than one in them counts: the guest would
    acknowledge the wrong one (IHI 0069, interrupt prioritization).  If all in them are active, any counts: the guest
    would acknowledge none.
    """
    ranks = [lr >> PRIORITY_SHIFT & IMPLEMENTED_PRIORITY for lr in shown.values() if lr & PENDING]
    lowest = max(ranks, default=0)
    interface = gic.interfaces[vcpu]
    certain = dict(interface.pending)
    if sum(bool(lr & ACTIVE) for lr in shown.values()) < LIST_REGISTERS:
        certain |= interface.kept_away
    for intid, priority in (*certain.items(), *interface.waiting.items()):
        if shown.get(intid, 0) & PENDING:
            continue
        none = not ranks and intid in certain
        if len(shown) < LIST_REGISTERS or none or priority & IMPLEMENTED_PRIORITY < lowest:
            wanted = PENDING | GROUP_1 | priority << PRIORITY_SHIFT | intid
            yield Divergence("host", "gic_list", wanted, shown.get(intid, 0), *where)


def at_exit(before: View, after: View, interface: Interface, where: Where) -> Iterator[Divergence | Unchecked]:
    """Compare the list registers at an exit with those loaded at the entry; ``interface`` has what the guest did."""
    for number, (was, now) in enumerate(zip(before.lr[: before.used], after.lr, strict=False)):
        state, intid = was & STATE, was & INTID
        if not state:
            possible: tuple[int, ...] = (0,)
        elif interface.lost or intid in KERNELS_OWN:
            yield Unchecked("switch", f"list registers: {interface.lost or _OWN}", where.event)
            possible = _reachable(state)
        else:
            possible = (_state_after(state, intid, interface),)
        if now & STATE not in possible or (was ^ now) & ~STATE:
            stays = now & STATE if now & STATE in possible else possible[0]
            yield Divergence("switch", f"ich_lr{number}_el2", was & ~STATE | stays, now, *where)


def _reachable(state: int) -> tuple[int, ...]:
    """Return the states that acknowledge and end alone can lead to: only a hypervisor makes an interrupt pending."""
    if state == STATE:
        return STATE, PENDING, ACTIVE, 0
    return (PENDING, ACTIVE, 0) if state == PENDING else (ACTIVE, 0)


def _state_after(state: int, intid: int, interface: Interface) -> int:
    if intid in interface.acknowledged:
        state = state & ~PENDING | ACTIVE
    return state & ~ACTIVE if intid in interface.ended else state


def written(interface: Interface) -> tuple[int, int]:
    """Return ICH_VMCR_EL2 as the guest has written it, and the bits of it that are known."""
    value = known = 0
    for name, shift, bits in VMCR_FIELDS:
        field: int | None = getattr(interface, name)
        if field is not None:
            value |= (int(field) & bits) << shift
            known |= bits << shift
    return value, known


def at_user(now: View, before: View | None, interface: Interface, where: Where) -> Iterator[Divergence | Unchecked]:
    """Compare the saved interface of a vCPU that is not loaded with what its guest wrote, acknowledged and dropped.

    ``before``: the last such record.  A field that the guest never wrote may have any value, and keeps it.
    """
    if interface.lost:
        yield Unchecked("switch", f"ICH_VMCR_EL2 and active priorities: {interface.lost}", where.event)
        return
    value, known = written(interface)
    stays = 0 if before is None else _FIELDS & ~known
    if not interface.settled:
        yield Unchecked("switch", _NOT_KEPT, where.event)
        stays &= ~_POINT
    if before is not None:
        value |= before.vmcr & stays
        known |= stays
    if (now.vmcr ^ value) & known:
        yield Divergence("switch", "ich_vmcr_el2", value & known, now.vmcr & known, *where)
    # An interrupt is acknowledged where its group priority is above that of all that run: each has a bit of its own.
    active = sum(word.bit_count() for word in now.active)
    if active != len(interface.running):
        yield Divergence("switch", "ich_ap1r_el2", len(interface.running), active, *where)
