# SPDX-License-Identifier: Apache-2.0
"""Describe a vCPU's environment, in scenarios or a recorded program: memory slots, in-kernel devices, other vCPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.layout import CONTEXTS, GIC_MACHINE, GICD, GICR, PROTECTED_MACHINE, REGIONS, Context, Region

IPA_BITS: Final = 40
"""Size of the guest's physical address space: KVM_CREATE_VM type 0 (KVM API 4.2)."""
PSCI_0_2: Final = 1 << 2
POWER_OFF: Final = 1 << 0
"""Features of KVM_ARM_VCPU_INIT that change no system register (KVM API 4.82)."""


@dataclass(frozen=True, slots=True)
class VmEnvironment:
    """The machine of one vCPU.

    ``regions`` are guest physical addresses, with a memory slot or known to have none; ``devices`` are those that KVM
    emulates itself; ``vcpu`` is the vCPU's number among ``vcpus``; ``features`` are bits of KVM_ARM_VCPU_INIT;
    ``protected``: the VM is of type KVM_VM_TYPE_ARM_PROTECTED; ``gic``: it is known to have KVM's GICv3, as
    :mod:`harness.gic` has it; ``firmware``: userspace chose what calls there are (KVM_REG_ARM_FW_REG and its kin);
    ``calls``: the functions, each from one to another, of which userspace alone decides what they do;
    ``ipa_bits`` is the size of the guest's physical address space.
    """

    regions: tuple[Region, ...] = REGIONS
    devices: tuple[Region, ...] = ()
    vcpu: int = 0
    vcpus: int = 1
    features: int = PSCI_0_2
    protected: bool = False
    gic: bool = False
    firmware: bool = False
    ipa_bits: int = IPA_BITS
    calls: tuple[tuple[int, int], ...] = ()

    def slot(self, address: int) -> Region | None:
        """Return the memory slot that holds an address."""
        for region in self.regions:  # called several times per exit: a generator takes three times as long
            if region.slot and region.base <= address < region.base + region.size:
                return region
        return None

    def is_aliased(self, address: int) -> bool:
        """Whether another memory slot maps the same page of the host's RAM."""
        here = self.slot(address)
        if here is None or here.home is None:
            return False
        home = address - here.base + here.home
        return any(
            other.home is not None and other is not here and other.home <= home < other.home + other.size
            for other in self.regions
            if other.slot
        )

    def in_kernel(self, address: int) -> bool:
        """Whether KVM itself emulates a device at an address."""
        return any(address in device for device in self.devices)

    def chose_call(self, function: int, argument: int) -> bool:
        """Return whether userspace chose what an SMCCC call does; ``argument`` may be a function that it asks about."""
        if not self.calls:
            return self.firmware
        asked = function & 0xFFFF_FFFF, argument & 0xFFFF_FFFF
        return self.firmware or any(first <= one <= last for first, last in self.calls for one in asked)

    @property
    def mpidr(self) -> int:
        """MPIDR_EL1 after a reset: 16 vCPUs a cluster (reset_mpidr in arch/arm64/kvm/sys_regs.c), bit 31 RES1."""
        number = self.vcpu
        return 1 << 31 | (number >> 12 & 0xFF) << 16 | (number >> 4 & 0xFF) << 8 | number & 0xF

    @property
    def has_no_optional_feature(self) -> bool:
        """Whether the vCPU has no optional feature, as :mod:`harness.arch.sysregs` assumes."""
        return not self.features & ~(PSCI_0_2 | POWER_OFF)


SCENARIO_VM: Final = VmEnvironment()


def writable(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    """Return the memory of a protected VM, which can have no read-only slot (Documentation/virt/kvm/arm/pkvm.rst)."""
    return tuple(replace(region, read_only=False) for region in regions)


def _world(one: Context) -> VmEnvironment:
    vcpus = sum(other.machine == one.machine for other in CONTEXTS)
    if one.machine == PROTECTED_MACHINE:
        return VmEnvironment(writable(REGIONS), vcpu=one.vcpu, vcpus=vcpus, protected=True)
    if one.machine == GIC_MACHINE:
        return VmEnvironment(devices=(GICD, GICR), vcpu=one.vcpu, vcpus=vcpus, gic=True)
    return VmEnvironment(vcpu=one.vcpu, vcpus=vcpus)


WORLDS: Final[tuple[VmEnvironment, ...]] = tuple(map(_world, CONTEXTS))
"""The environment of each vCPU of a scenario, in the order of ``layout.CONTEXTS``."""
assert WORLDS[0] == SCENARIO_VM
