/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host operations on the current vCPU (SF_OP_*), a function for each; they return an errno, 0 for success.  Included by
 * agent.c, which runs the guest between them.
 */
#ifndef SF_OPERATIONS_H
#define SF_OPERATIONS_H

static int op_begin(const struct sf_op *op)
{
	int error = op->b < SF_CONTEXTS ? forge_codes(false) : EINVAL;
	sf_u64 other = op->b == SF_CONTEXT_PAIR ? SF_CONTEXT_PAIR + 1 : op->b;

	for (int i = 0; i < SF_CONTEXTS; i++)
		if (contexts[i].used)
			retire(&contexts[i]);
	for (int i = 0; i < SF_WINDOWS; i++)
		retire_code(&windows[i]);
	destroy_protected();
	destroy_spoiled();
	if (error || (op->a ? new_ram() : madvise(ram + (SF_DATA_BASE - RAM_BASE), 2 * SF_DATA_SIZE, MADV_DONTNEED)) ||
	    start(&contexts[op->b]) || (other != op->b && start(&contexts[other])))
		error = error ? error : errno ? errno : EIO;

	/*
	 * This call marks the begin of the scenario for plugins that watch KVM's code
	 * (harness/vm/kernels/kvm_functions.py, BEGIN).
	 */
	ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_EL1_32BIT);
	/* Not make_current(): the control words still have values of the last scenario, which must not be kept. */
	m = &contexts[op->b];
	m->used = true;
	control->context = op->b;
	control->code_pc = m->code_pc;
	control->far_pc = m->far_pc;
	control->forge = 0;
	mark_debug();
	control->later = control->later_end = 0;
	return error;
}

/* A vCPU that the scenario has not used yet starts at its code, with the common vectors. */
static int op_vcpu(const struct sf_op *op)
{
	struct context *context = &contexts[op->a];
	bool is_new;

	if (op->a >= SF_CONTEXTS)
		return EINVAL;
	is_new = !context->used;
	if (context->vm < 0 && rows[op->a].machine == SF_PROTECTED_MACHINE && !can_protect())
		return ENODEV;
	if (is_new && op->a != SF_CONTEXT_PAIR + 1 && start(context))
		return errno ? errno : EIO;
	make_current(context);
	context->used = true;
	if (is_new) {
		set_register(SF_ONE_REG_VBAR, SF_VECTORS_BASE, false, op->step);
		set_register(SF_ONE_REG_PC, context->window->base, false, op->step);
	}
	return 0;
}

static int op_complete(const struct sf_op *op)
{
	bool pending = m->access && m->run->exit_reason == KVM_EXIT_MMIO && !m->run->mmio.is_write;

	if (pending)
		memcpy(m->run->mmio.data, &op->a, sizeof(op->a));
	record_host(SF_OP_COMPLETE, op->a, 0, pending ? 0 : ENOENT, true, op->step);
	return 0;
}

static int op_reset(const struct sf_op *op)
{
	int error = ioctl(m->vcpu, KVM_ARM_VCPU_INIT, &m->init) ? errno : 0;

	m->stopped = m->hit = false;
	record_host(SF_OP_RESET, 0, 0, error, true, op->step);
	return error;
}

static int op_events(const struct sf_op *op)
{
	struct kvm_vcpu_events events = { 0 };
	int error = 0;

	if (op->op == SF_OP_ABORT) {
		events.exception.ext_dabt_pending = 1;
		if (!m->access) /* injecting one then is a programming error (KVM API 4.32) */
			error = ENOENT;
	} else {
		m->aborted = true;
		events.exception.serror_pending = 1;
		events.exception.serror_has_esr = op->b != 0;
		events.exception.serror_esr = op->a;
	}
	if (!error && ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &events))
		error = errno;
	m->displaced = m->displaced || (op->op == SF_OP_ABORT && !error);
	record_host(op->op, op->a, op->b, error, true, op->step);
	return 0;
}

static int op_irq_line(const struct sf_op *op)
{
	int error = set_line(m, op->a, op->b) ? errno : 0;

	if (op->a < SF_LINES && op->b)
		m->lines |= 1 << op->a;
	record_host(op->op, op->a, op->b, error, true, op->step);
	return 0;
}

static int op_gic_line(const struct sf_op *op)
{
	struct kvm_irq_level line = { .irq = op->a, .level = op->b != 0 };
	int error;

	if (op->a >> KVM_ARM_IRQ_TYPE_SHIFT == KVM_ARM_IRQ_TYPE_PPI)
		line.irq |= m->number << KVM_ARM_IRQ_VCPU_SHIFT;
	error = ioctl(m->vm, KVM_IRQ_LINE, &line) ? errno : 0;
	record_host(op->op, op->a, op->b, error, true, op->step);
	return 0;
}

static int op_finish(const struct sf_op *op)
{
	int error;

	m->run->immediate_exit = 1;
	error = ioctl(m->vcpu, KVM_RUN, 0) ? errno : 0;
	m->run->immediate_exit = 0;
	m->access = false;
	record_host(op->op, 0, 0, error == EINTR ? 0 : error, true, op->step);
	return 0;
}

static int op_mp_state(const struct sf_op *op)
{
	struct kvm_mp_state state = { .mp_state = op->a };
	int error = ioctl(m->vcpu, KVM_SET_MP_STATE, &state) ? errno : 0;

	if (!error)
		m->stopped = op->a != KVM_MP_STATE_RUNNABLE;
	record_host(op->op, op->a, 0, error, true, op->step);
	return 0;
}

static sigjmp_buf refused;
static volatile bool may_be_refused;

static void on_refusal(int number)
{
	if (may_be_refused)
		siglongjmp(refused, 1);
	signal(number, SIG_DFL); /* an error of the agent: let the repeated access kill it */
}

/* Pages that a protected VM has touched are inaccessible to the host: the store raises a signal. */
static int op_write(const struct sf_op *op)
{
	unsigned char *volatile memory = current_ram();
	volatile int error = 0;

	if (op->a < SF_DATA_BASE || op->a >= SF_DATA_BASE + SF_DATA_SIZE || op->a & 7)
		return ERANGE;
	may_be_refused = true;
	if (sigsetjmp(refused, 1))
		error = EFAULT;
	else
		*(volatile sf_u64 *)(memory + (op->a - RAM_BASE)) = op->b;
	may_be_refused = false;
	record_host(op->op, op->a, op->b, error, true, op->step);
	return 0;
}

/* harness/scenario/memory_slots.py packs the arguments. */
static int op_slot(const struct sf_op *op)
{
	sf_u32 slot = op->a & 0xf, flags = op->a >> 4 & 3;
	sf_u64 guest = op->a & ~0xfffULL, size = (sf_u32)op->b, home = SF_DATA_BASE + (op->b >> 32);
	int error;

	if (!slot || size > SF_DATA_SIZE || home >= SF_DATA_BASE + SF_DATA_SIZE)
		return ERANGE;
	error = set_slot(m->vm, current_ram(), slot, guest, size, flags, home) ? errno : 0;
	m->reshaped = true;
	record_host(op->op, op->a, op->b, error, true, op->step);
	return 0;
}

/* Set single step and BRK, or one breakpoint or watchpoint; earlier settings stay until debugging ends. */
static int op_debug(const struct sf_op *op)
{
	struct kvm_guest_debug_arch *arch = &m->debug.arch;
	sf_u32 number = op->b >> 32, hardware = 0;
	int error;

	if (number >= SF_BREAKPOINTS)
		return ERANGE;
	if (op->op == SF_OP_BREAKPOINT) {
		arch->dbg_bvr[number] = op->a;
		arch->dbg_bcr[number] = (sf_u32)op->b;
	} else if (op->op == SF_OP_WATCHPOINT) {
		arch->dbg_wvr[number] = op->a;
		arch->dbg_wcr[number] = (sf_u32)op->b;
	} else {
		if (!op->a)
			memset(arch, 0, sizeof(*arch));
		m->debug.control = (op->a & SF_DEBUG_STEP ? KVM_GUESTDBG_SINGLESTEP : 0) |
			(op->a & SF_DEBUG_BRK ? KVM_GUESTDBG_USE_SW_BP : 0);
	}
	for (int i = 0; i < SF_BREAKPOINTS; i++)
		hardware |= arch->dbg_bcr[i] | arch->dbg_wcr[i];
	m->debug.control &= KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP;
	if (hardware)
		m->debug.control |= KVM_GUESTDBG_USE_HW;
	if (m->debug.control)
		m->debug.control |= KVM_GUESTDBG_ENABLE;
	error = ioctl(m->vcpu, KVM_SET_GUEST_DEBUG, &m->debug) ? errno : 0;
	mark_debug();
	record_host(op->op, op->a, op->b, error, true, op->step);
	return 0;
}

static int op_forge(const struct sf_op *op)
{
	int error = op->a == SF_FORGE_CODE ? forge_codes(true) : 0;

	if (error)
		return error;
	m->aborted = true; /* KVM injects an SError for some exits, such as an external abort */
	control->forge |= op->a;
	switch (op->a) {
	case SF_FORGE_CODE: control->forge_code = op->b; break;
	case SF_FORGE_ESR: control->forge_esr = op->b; break;
	case SF_FORGE_FAR: control->forge_far = op->b; break;
	case SF_FORGE_HPFAR: control->forge_hpfar = op->b; break;
	default: return EINVAL;
	}
	return 0;
}

#endif
