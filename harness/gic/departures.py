# SPDX-License-Identifier: Apache-2.0
"""Name what a GIC that a kernel provides does otherwise than IHI 0069 has it.

Each is switched on in :class:`harness.gic.distributor.Gic` on its own, and has the name of the kept finding that shows
it.
"""

from __future__ import annotations

ENABLE_LOSES = "enable-loses-pending-interrupts"
"""Only an interrupt on its vCPU's list is presented, and a write to GICD_CTLR puts none there.

Linux, vgic.c: vgic_queue_irq_unlock puts an interrupt on a list where vgic_target_oracle gives it a vCPU, which is not
while GICD_CTLR.EnableGrp1 is 0; vgic_prune_ap_list takes it off at an exit where that gives it none.
"""
COMES_AFTER_END = "disabled-interrupt-comes-after-end"
"""A list register of an active, edge-triggered interrupt is pending as well, whether that is enabled or not.

Linux, vgic-v3.c vgic_v3_populate_lr (from 6.19 on vgic_v3_compute_lr): it asks for ``irq_is_pending`` alone.
"""
ACTIVE_FILL_LISTS = "active-interrupts-fill-list-registers"
"""Active interrupts have the first list registers: where they have all, no other interrupt is presented.

Linux before 6.19, vgic.c vgic_irq_cmp: "active interrupts can never be pushed out of the LRs".
"""
SHARED_INTERFACE = "vms-without-gic-share-cpu-interface"
"""A VM without GIC has the CPU's own virtual interface, as whoever had it last left it.

Linux 6.1 with VHE, vgic.c kvm_vgic_load: no traps are set for a VM without GIC.
"""
NONE: frozenset[str] = frozenset()
