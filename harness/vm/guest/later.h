/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Write general-purpose registers between an exit and the next entry, without a return to userspace, which takes about
 * as long as the rest of an exit.  The written member is the one that KVM_SET_ONE_REG writes (arch/arm64/kvm/guest.c,
 * set_core_reg); the operations are in the program (SF_OP_LATER).  Included by probe.c.
 */
#ifndef SF_LATER_H
#define SF_LATER_H

static const struct sf_op *program;
static u64 due; /* address of the instruction whose exit triggers the writes; 0: that exit has not happened */

static bool is_waiting(void)
{
	return control->later < control->later_end && control->later_end <= SF_PROGRAM_SIZE / sizeof(struct sf_op);
}

/* Called when an instruction inside the code has trapped. */
static void check_later(u64 pc)
{
	if (is_waiting() && pc >= program[control->later].a)
		due = pc;
}

static void record_host(struct kvm_vcpu *vcpu, u32 step, u64 op, u64 a, u64 b, u64 why)
{
	struct sf_host *out = control->record ? reserve(sizeof(*out)) : NULL;

	if (!out)
		return;
	*out = (struct sf_host){ SF_RECORD_HOST, sizeof(*out), step, identity(vcpu), op, a, b, 0, why };
	commit(sizeof(*out));
}

static void write_one(struct kvm_vcpu *vcpu, const struct sf_op *op)
{
	u64 number = (op->a - SF_ONE_REG_X0) / (SF_ONE_REG_X1 - SF_ONE_REG_X0);

	if (number < 31)
		SF_REGS(vcpu)->regs[number] = op->b;
	record_host(vcpu, op->step, SF_OP_SET, op->a, op->b, 1);
}

/* `shown`: the preceding record has the registers.  Else record x0 first: it may be KVM's result of a call. */
static void write_later(struct kvm_vcpu *vcpu, bool shown)
{
	u64 i, end;

	while (due && is_waiting() && due >= program[control->later].a) {
		end = min(control->later_end, control->later + 1 + program[control->later].b);
		for (i = control->later + 1; i < end; i++) {
			if (!shown && program[i].a == SF_ONE_REG_X0)
				record_host(vcpu, program[i].step, SF_OP_HELD, SF_ONE_REG_X0, SF_REGS(vcpu)->regs[0], 0);
			write_one(vcpu, &program[i]);
		}
		control->later = end;
	}
	due = 0;
}

#endif
