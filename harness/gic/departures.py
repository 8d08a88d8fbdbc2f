# SPDX-License-Identifier: Apache-2.0
"""Name the differences between a kernel's GIC and IHI 0069.

Each is switched on separately in :class:`harness.gic.distributor.Gic`, and has the name of the kept finding that shows
it.
"""

from __future__ import annotations

ENABLE_LOSES = "enable-loses-pending-interrupts"
"""KVM presents only interrupts on the vCPU's list, and a write to GICD_CTLR adds none to it.

Linux, vgic.c: vgic_queue_irq_unlock adds an interrupt to a list if vgic_target_oracle returns a vCPU, which it does not
while GICD_CTLR.EnableGrp1 is 0; vgic_prune_ap_list removes it at an exit if that returns none.
"""
COMES_AFTER_END = "disabled-interrupt-comes-after-end"
"""KVM makes the list register of an active, edge-triggered interrupt pending too, whether it is enabled or not.

Linux, vgic-v3.c vgic_v3_populate_lr (from 6.19 on vgic_v3_compute_lr): it tests ``irq_is_pending`` alone.
"""
ACTIVE_FILL_LISTS = "active-interrupts-fill-list-registers"
"""Active interrupts use the first list registers: if they use all, no other interrupt is presented.

Linux before 6.19, vgic.c vgic_irq_cmp: "active interrupts can never be pushed out of the LRs".
"""
SHARED_INTERFACE = "vms-without-gic-share-cpu-interface"
"""A VM without a GIC accesses the CPU's own virtual interface, in the state that its last user left.

Linux 6.1 with VHE, vgic.c kvm_vgic_load: no traps are set for a VM without GIC.
"""
NONE: frozenset[str] = frozenset()
