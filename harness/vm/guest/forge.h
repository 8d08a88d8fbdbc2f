/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Forge an exit: KVM's handlers get other values than those of the exit that happened.  The fault registers are already
 * in memory; the exit code is an argument of handle_exit (arch/arm64/kvm/handle_exit.c), which needs a kprobe: it is
 * enabled only for scenarios that use it.  Included by probe.c.
 */
#ifndef SF_FORGE_H
#define SF_FORGE_H

static bool code_forged;

static int replace_code(struct kprobe *probe, struct pt_regs *regs)
{
	if (code_forged)
		regs->regs[1] = control->forge_code;
	code_forged = false;
	return 0;
}

/*
 * Registered once: to unregister a kprobe costs an RCU grace period, a millisecond; to disable it only patches a word.
 */
static int set_forging(const char *text, const struct kernel_param *parameter)
{
	static union { struct kprobe kprobe; u8 room[256]; } probe;
	static bool registered;
	bool wanted;
	int error = kstrtobool(text, &wanted);

	if (error)
		return error;
	if (registered)
		return wanted ? enable_kprobe(&probe.kprobe) : disable_kprobe(&probe.kprobe);
	probe.kprobe.symbol_name = "handle_exit";
	probe.kprobe.pre_handler = replace_code;
	error = wanted ? register_kprobe(&probe.kprobe) : 0;
	registered = wanted && !error;
	return error;
}

static const struct kernel_param_ops forging_ops = { .set = set_forging };
module_param_cb(forging, &forging_ops, NULL, 0200);

/* Replace the requested fields if the exit is of the instruction at stop_pc; return the replaced fields. */
static u32 forge(struct kvm_vcpu *vcpu, u64 pc)
{
	u32 what = control->forge, call = 0;

	if (pc != control->stop_pc)
		return 0;
	if (pc != SF_REGS(vcpu)->pc)
		call = SF_MARK_CALL;
	control->forge = 0;
	if (what & SF_FORGE_ESR)
		SF_FAULT_ESR(vcpu) = control->forge_esr;
	if (what & SF_FORGE_FAR)
		SF_FAULT_FAR(vcpu) = control->forge_far;
	if (what & SF_FORGE_HPFAR)
		SF_FAULT_HPFAR(vcpu) = control->forge_hpfar |
			(SF_LINUX_VERSION >= KERNEL_VERSION(6, 15, 0) ? SF_HPFAR_VALID : 0);
	code_forged = what & SF_FORGE_CODE;
	return what | call;
}

#endif
