# SPDX-License-Identifier: Apache-2.0
"""Define the test guest's physical address space (IPA) and its vCPUs.

The window below 1 GiB has no memory slot: every access there is MMIO.  1 GiB is also the verified layer's
``MAX_MMIO_ADDR`` (docs/spec/model.md section 2.1), so that model and KVM classify the same accesses as MMIO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Region:
    """A range of guest physical addresses, ``[base, base + size)``; backed by a memory slot or not.

    A ``read_only`` slot rejects writes of the guest.  ``home`` identifies the part of the host's RAM that a slot maps,
    by its address in the default layout; None: code, or unknown.
    """

    name: str
    base: int
    size: int
    slot: bool
    what: str
    read_only: bool = False
    home: int | None = None

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.base + self.size

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.base <= address < self.end


MMIO: Final = Region("mmio", 0x0000_0000, 0x4000_0000, False, "no slot: every access exits to userspace")
CODE: Final = Region("code", 0x4000_0000, 0x0001_0000, True, "one instruction for each guest step, contiguous", True)
VECTORS: Final = Region("vectors", 0x4001_0000, 0x0001_0000, True, "EL1 vectors: one trapping instruction each", True)
DATA: Final = Region(
    "data", 0x4002_0000, 0x000E_0000, True, "RAM, unmapped at stage 2 when a scenario starts", home=0x4002_0000
)
HOLE: Final = Region("hole", 0x4010_0000, 0xBFF0_0000, False, "above RAM: no slot, but not MMIO for the model")

REGIONS: Final[tuple[Region, ...]] = (MMIO, CODE, VECTORS, DATA, HOLE)

# KVM's in-kernel interrupt controller, in the VM that has one: inside MMIO, but no access exits to userspace.
GICD: Final = Region("gicd", 0x0800_0000, 0x0001_0000, False, "the distributor of an in-kernel GICv3")
GICR: Final = Region("gicr", 0x080A_0000, 0x0004_0000, False, "its redistributors, 128 KiB for each vCPU")
GIC_INTERRUPTS: Final = 64
"""SGIs, PPIs and SPIs of that GIC (KVM_DEV_ARM_VGIC_GRP_NR_IRQS; its minimum)."""


@dataclass(frozen=True, slots=True)
class Context:
    """A vCPU that scenarios may use: its name in scenarios, its VM, its number in the VM, and its window of CODE."""

    name: str
    machine: int
    vcpu: int
    window: int
    what: str


WINDOW_SIZE: Final = 0x2000
# The agent keeps all of them in this order; a record's flags have the index.
CONTEXTS: Final[tuple[Context, ...]] = (
    Context("0.0", 0, 0, 0, "the vCPU that a scenario starts with, alone in its VM"),
    Context("0.0", 1, 0, 0, "the same in a VM with two vCPUs, where a scenario names 0.1"),
    Context("0.1", 1, 1, 2, "the other vCPU of that VM"),
    Context("1.0", 2, 0, 4, "a second VM, where accesses without a valid syndrome exit to userspace"),
    Context("p.0", 3, 0, 6, "a protected VM, created for each scenario, with its own RAM"),
    Context("2.0", 4, 0, 5, "a third VM, with an in-kernel GICv3"),
    Context("2.1", 4, 1, 7, "the other vCPU of that VM"),
    Context("p.1", 3, 1, 3, "the other vCPU of the protected VM"),
)
ALONE: Final = 0
PAIR: Final = 1
"""Indices of the first two contexts."""
NISV_MACHINE: Final = 2
"""The VM with KVM_CAP_ARM_NISV_TO_USER (KVM API 5, KVM_EXIT_ARM_NISV)."""
PROTECTED_MACHINE: Final = 3
"""The protected VM: the host can access only memory that the guest shares with it; no slot is read-only
(Documentation/virt/kvm/arm/pkvm.rst)."""
PROTECTED_VCPUS: Final = tuple(i for i, context in enumerate(CONTEXTS) if context.machine == PROTECTED_MACHINE)
"""Indices of its vCPUs in CONTEXTS."""
PROTECTED: Final = PROTECTED_VCPUS[0]
PROTECTED_NAMES: Final = tuple(CONTEXTS[number].name for number in PROTECTED_VCPUS)
GIC_MACHINE: Final = 4
"""The VM with an in-kernel GICv3 (KVM_DEV_TYPE_ARM_VGIC_V3)."""
CONTEXT_NAMES: Final[tuple[str, ...]] = tuple(dict.fromkeys(context.name for context in CONTEXTS))

MAX_STEPS: Final = 256
"""Maximum number of steps in a scenario; each guest step is one 4-byte slot of CODE."""

TRAP_REGISTER: Final[tuple[int, int, int, int, int]] = (3, 0, 0, 6, 1)
"""VECTORS, and CODE after the scenario, are filled with a read of this register (ID_AA64ISAR1_EL1) into XZR.

It always traps (HCR_EL2.TID3) and changes only PC; at EL0 it is UNDEFINED.
"""
PROTECTED_TRAP_REGISTER: Final[tuple[int, int, int, int, int]] = (3, 1, 0, 0, 1)
"""The same for a protected VM, whose ID registers EL2 emulates without an exit to the host; CLIDR_EL1 exits to the
host.

Source: HCR_EL2.TID2; pvm_sys_reg_descs in arch/arm64/kvm/hyp/nvhe/sys_regs.c.
"""
