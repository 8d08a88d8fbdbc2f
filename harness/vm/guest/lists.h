/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Record the virtual CPU interface of a vCPU with an in-kernel GICv3, in a separate record; other vCPUs have no such
 * record.
 */
#ifndef SF_LISTS_H
#define SF_LISTS_H

static bool has_gic(void)
{
#define SF_ROW(machine, vcpu, window) machine,
	static const u8 machines[] = { SF_CONTEXT_ROWS(SF_ROW) };
#undef SF_ROW

	return control->context < ARRAY_SIZE(machines) && machines[control->context] == SF_GIC_MACHINE;
}

/* The preceding record is of an entry, an exit or a return to userspace of this vCPU. */
static void record_lists(struct kvm_vcpu *vcpu)
{
	const u32 *ap0r = (const u32 *)&SF_ICH_AP0R(vcpu), *ap1r = (const u32 *)&SF_ICH_AP1R(vcpu);
	const u64 *lr = (const u64 *)&SF_ICH_LR(vcpu);
	struct sf_lists *out;
	int i;

	if (!control->lists || !has_gic())
		return;
	out = reserve(sizeof(*out));
	if (!out)
		return;
	out->type = SF_RECORD_LISTS;
	out->size = sizeof(*out);
	out->step = control->step;
	out->flags = identity(vcpu);
	out->used_lrs = SF_USED_LRS(vcpu);
	out->ich_hcr_el2 = SF_ICH_HCR(vcpu);
	out->ich_vmcr_el2 = SF_ICH_VMCR(vcpu);
	for (i = 0; i < SF_ACTIVE_PRIORITIES; i++) {
		(&out->ich_ap0r0_el2)[i] = ap0r[i];
		(&out->ich_ap1r0_el2)[i] = ap1r[i];
	}
	for (i = 0; i < SF_LIST_REGISTERS; i++)
		(&out->ich_lr0_el2)[i] = lr[i];
	commit(sizeof(*out));
}

#endif
