# SPDX-License-Identifier: Apache-2.0
"""List the registers of the distributor and of a redistributor's SGI page with some bits per interrupt, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from harness.layout import GICD, GICR

SGIS, PRIVATE = 16, 32
"""INTIDs below SGIS are software generated, those below PRIVATE are of one vCPU (IHI 0069, INTIDs)."""
FRAME, REDISTRIBUTOR = 0x1_0000, 0x2_0000
"""Sizes of a page of registers, and of a vCPU's two pages (arm-vgic-v3.rst, KVM_VGIC_V3_ADDR_TYPE_REDIST)."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Registers of one kind: ``bits`` for each interrupt, from ``offset`` on; ``sizes`` of accesses in bytes.

    ``what`` is the required meaning of the bits; ``private``: SGIs and PPIs have them too, in their redistributor.
    """

    name: str
    offset: int
    bits: int
    sizes: tuple[int, ...]
    what: str
    private: bool = True

    @property
    def source(self) -> str:
        """Where it is described; a redistributor's registers are like the distributor's."""
        return f"Arm IHI 0069, GICD_{self.name.upper()}<n>"

    @property
    def end(self) -> int:
        """First offset after the registers of 1024 interrupts."""
        return self.offset + 128 * self.bits


BANKS: tuple[Bank, ...] = (
    Bank("igroupr", 0x080, 1, (4,), "group 1 (IRQ) or group 0"),
    Bank("isenabler", 0x100, 1, (4,), "1 enables, reads as enabled"),
    Bank("icenabler", 0x180, 1, (4,), "1 disables, reads as enabled; of SGIs that is IMPLEMENTATION DEFINED"),
    Bank("ispendr", 0x200, 1, (4,), "1 makes it pending, reads as pending"),
    Bank("icpendr", 0x280, 1, (4,), "1 takes a latched edge back, reads as pending"),
    Bank("isactiver", 0x300, 1, (4,), "1 makes it active, reads as active"),
    Bank("icactiver", 0x380, 1, (4,), "1 makes it inactive, reads as active"),
    Bank("ipriorityr", 0x400, 8, (1, 4), "priority, of which 4 to 8 bits are there"),
    Bank("icfgr", 0xC00, 2, (4,), "bit 1: edge-triggered; of PPIs that is IMPLEMENTATION DEFINED"),
    Bank("irouter", 0x6000, 64, (8,), "the affinity of the vCPU that gets it", private=False),
)
CTLR = 0x0
"""GICD_CTLR (IHI 0069)."""
ENABLE_GROUP_1 = 1 << 1
"""GICD_CTLR.EnableGrp1, where GICD_CTLR.DS is 1: KVM's GIC has one security state."""
AFFINITY = 0xFF_00FF_FFFF
ANY_PE = 1 << 31
"""GICD_IROUTER: Aff3..Aff0, and Interrupt_Routing_Mode."""

IMPLEMENTED_PRIORITY = 0xF0
"""Bits of a priority that every GIC with one security state has (IHI 0069: 16 to 256 levels)."""
IMPLEMENTED_MASK = 0xF8
"""Bits of ICC_PMR_EL1 that a virtual CPU interface has at least (IHI 0069, ICC_PMR_EL1: 32 levels)."""
SPURIOUS = 1023
"""The INTID that ICC_IAR1_EL1 returns if there is nothing to acknowledge (IHI 0069, INTIDs)."""
LIST_REGISTERS = 4
"""Number of interrupts that the virtual CPU interface can certainly hold at once: QEMU's CPUs have so many."""


class RegisterField(NamedTuple):
    """The registers that an access to the GIC covers: of the redistributor of ``vcpu`` (None: of the distributor).

    ``bank`` is None for GICD_CTLR and for every register without a row (then ``first`` is -1); else ``first`` is the
    INTID at the address and ``number`` how many the access covers (0: less than one).
    """

    vcpu: int | None
    bank: Bank | None
    first: int
    number: int


def place(address: int, size: int) -> RegisterField:
    """Return the registers that an access of ``size`` bytes at a guest physical address in GICD or GICR covers."""
    if address in GICD:
        vcpu, offset = None, address - GICD.base
        if offset == CTLR:
            return RegisterField(None, None, 0, 0)
    else:
        vcpu, offset = divmod(address - GICR.base, REDISTRIBUTOR)
        offset -= FRAME
        if offset < 0:  # the page of the redistributor itself: GICR_TYPER and the like
            return RegisterField(vcpu, None, -1, 0)
    for bank in BANKS:
        if bank.offset <= offset < bank.end and (bank.private or vcpu is None):
            return RegisterField(vcpu, bank, 8 * (offset - bank.offset) // bank.bits, 8 * size // bank.bits)
    return RegisterField(vcpu, None, -1, 0)


BANK_BY_NAME: Mapping[str, Bank] = MappingProxyType({bank.name: bank for bank in BANKS})
