/* SPDX-License-Identifier: GPL-2.0 */
/* Detect that a guest will make no progress, and that it is outside its code.  Included by probe.c. */
#ifndef SF_RUNAWAY_H
#define SF_RUNAWAY_H

/* With VHE these are live in the CPU. */
#define SF_EL1(vcpu, name) (is_kernel_in_hyp_mode() ? read_sysreg_s(SYS_##name##_EL12) : \
	SF_SYS_REGS(SF_CONTEXT(vcpu))[SF_SLOT_##name##_EL1])

/*
 * An exception at the vector returns to the vector: it repeats without end, and no other instruction is executed.  One
 * interrupt of the host is enough to detect it.
 */
static bool is_storm(struct kvm_vcpu *vcpu)
{
	u64 pc = SF_REGS(vcpu)->pc;

	return pc == SF_EL1(vcpu, ELR) && pc == SF_EL1(vcpu, VBAR) + SF_SYNC_SAME_EL;
}

/* The instructions of a scenario, and the trap after the last one; the fill after them also traps, page after page. */
static bool is_code(u64 pc)
{
	u64 window = (pc - SF_CODE_BASE) / SF_WINDOW_SIZE;

	return pc >= SF_CODE_BASE && window < SF_WINDOWS && pc <= (&control->end0)[window] + 4;
}

#endif
