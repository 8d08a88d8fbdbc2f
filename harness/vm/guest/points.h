/* SPDX-License-Identifier: GPL-2.0 */
/* Record the debug registers of a vCPU in a separate record, only for scenarios that request it. */
#ifndef SF_POINTS_H
#define SF_POINTS_H

/* The preceding record is of an entry or exit of this vCPU. */
static void record_points(struct kvm_vcpu *vcpu)
{
	const struct kvm_guest_debug_arch *points = &SF_POINTS(vcpu);
	struct sf_debug *out;
	int i;

	if (!control->points)
		return;
	out = reserve(sizeof(*out));
	if (!out)
		return;
	out->type = SF_RECORD_DEBUG;
	out->size = sizeof(*out);
	out->step = control->step;
	out->flags = identity(vcpu);
	out->mdcr_el2 = SF_MDCR(vcpu);
	for (i = 0; i < SF_BREAKPOINTS; i++) {
		(&out->dbgbvr0_el1)[i] = points->dbg_bvr[i];
		(&out->dbgbcr0_el1)[i] = points->dbg_bcr[i];
		(&out->dbgwvr0_el1)[i] = points->dbg_wvr[i];
		(&out->dbgwcr0_el1)[i] = points->dbg_wcr[i];
	}
	commit(sizeof(*out));
}

#endif
