/* SPDX-License-Identifier: GPL-2.0 */
/* The debug registers of a vCPU, in a record of their own: they cost nothing where a scenario does not ask for them. */
#ifndef SF_POINTS_H
#define SF_POINTS_H

/* The record before it is of an entry or exit of this vCPU. */
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
