// SPDX-License-Identifier: Apache-2.0
/*
 * PID 1 of the target: builds VMs through /dev/kvm and runs the programs that it finds in the mailbox.
 *
 * It knows nothing of scenarios: harness/vm/executor.py compiles them to operations (SF_OP_*).  Whatever the agent
 * does of its own accord, to go on after an exit, it records as a host action like any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "machine.h"
#include "mailbox.h"
#include "protocol.h"
#include "request.h"

static volatile struct sf_control *control;
static struct sf_op *program;
static unsigned char *trace;

static void record_host(sf_u64 op, sf_u64 a, sf_u64 b, int error, bool asked, sf_u32 step)
{
	struct sf_host *out = (struct sf_host *)(trace + control->head);

	if (!control->record)
		return;
	if (control->head + sizeof(*out) > control->limit) {
		control->dropped++;
		return;
	}
	*out = (struct sf_host){ SF_RECORD_HOST, sizeof(*out), step, control->context << SF_FLAGS_VCPU_SHIFT,
		op, a, b, error, asked };
	control->head += sizeof(*out);
}

static int set_register(sf_u64 id, sf_u64 value, bool asked, sf_u32 step)
{
	struct kvm_one_reg reg = { .id = id, .addr = (sf_u64)(unsigned long)&value };
	int error = ioctl(m->vcpu, KVM_SET_ONE_REG, &reg) ? errno : 0;

	if (id == SF_ONE_REG_PC)
		m->hit = false;
	record_host(SF_OP_SET, id, value, error, asked, step);
	return error;
}

static void set_runnable(sf_u32 step)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
	int error = ioctl(m->vcpu, KVM_SET_MP_STATE, &state) ? errno : 0;

	m->stopped = false;
	record_host(SF_OP_MP_STATE, state.mp_state, 0, error, false, step);
}

static bool forging; /* the module's kprobe is in place */

/* Only a kprobe can replace the exit code, and it costs every exit something. */
static int forge_codes(bool wanted)
{
	int parameter;

	if (wanted == forging)
		return 0;
	parameter = open("/sys/module/probe/parameters/forging", O_WRONLY | O_CLOEXEC);
	if (parameter < 0 || write(parameter, wanted ? "1" : "0", 1) != 1)
		return errno;
	close(parameter);
	forging = wanted;
	return 0;
}

static void mark_debug(void)
{
	control->debug = (m->debug.control ? SF_MARK_DEBUGGED : 0) |
		(m->debug.control & KVM_GUESTDBG_SINGLESTEP ? SF_MARK_STEPPED : 0);
}

static void make_current(struct context *context)
{
	m->code_pc = control->code_pc;
	m->far_pc = control->far_pc;
	m = context;
	control->code_pc = m->code_pc;
	control->far_pc = m->far_pc;
	control->context = m - contexts;
	mark_debug();
}

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

	/* Whoever watches KVM's code takes this call for the begin of the scenario (harness/vm/text.py, BEGIN). */
	ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_EL1_32BIT);
	/* Not make_current(): what the last scenario left in the control words is nobody's. */
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

/* A vCPU that is new to the scenario starts at its code, with the vectors that all have. */
static int op_vcpu(const struct sf_op *op)
{
	struct context *context = &contexts[op->a];
	bool is_new;

	if (op->a >= SF_CONTEXTS)
		return EINVAL;
	is_new = !context->used;
	if (is_new && op->a == SF_CONTEXT_PROTECTED && !can_protect())
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
		if (!m->access) /* asking for one then is a programming error (KVM API 4.31) */
			error = ENOENT;
	} else {
		m->aborted = true;
		events.exception.serror_pending = 1;
		events.exception.serror_has_esr = op->b != 0;
		events.exception.serror_esr = op->a;
	}
	if (!error && ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &events))
		error = errno;
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
	signal(number, SIG_DFL); /* a mistake of ours: the same again, for good */
}

/* What a protected VM has touched is no longer ours: we get a signal instead. */
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

/* Arguments as harness/slots.py packs them. */
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

/* Steps and BRK, or one breakpoint or watchpoint; what the scenario set before stays, until all debugging ends. */
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
	m->aborted = true; /* KVM answers some exits by an SError, such as an external abort of the host's */
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

/* The guest left the code: bring it back behind the instruction that sent it away. */
static void land(const struct sf_op *op)
{
	sf_u64 elr = control->trap_elr, pc = control->code_pc + 4;

	if (elr >= m->window->base && elr <= op->a && elr >= control->code_pc)
		pc = elr + 4;
	else if (op->b & 1 && pc == op->a)
		pc = op->a + 4;
	set_register(SF_ONE_REG_PC, pc, false, op->step);
	control->code_pc += 4;
	if (pc - 4 > control->code_pc) /* what did not trap in between is done, too */
		control->code_pc = pc - 4;
}

static bool stopped_by_another(void)
{
	struct kvm_mp_state state;

	return m->paired && !ioctl(m->vcpu, KVM_GET_MP_STATE, &state) && state.mp_state != KVM_MP_STATE_RUNNABLE;
}

/* The probe writes these registers at the exit, unless the guest has left the code there. */
static void write_later(sf_u64 reached)
{
	while (control->later < control->later_end && program[control->later].a <= reached) {
		const struct sf_op *op = &program[control->later];

		for (sf_u64 i = 1; i <= op->b; i++)
			set_register(op[i].a, op[i].b, true, op[i].step);
		control->later += op->b + 1;
	}
}

static int op_later(sf_u64 index)
{
	const struct sf_op *op = &program[index];
	bool first = control->later == control->later_end;

	if (op->b > control->op_count - index - 1 || (!first && control->later_end != index))
		return EINVAL;
	if (first)
		control->later = index;
	control->later_end = index + op->b + 1;
	return 0;
}

/* What does not trap has no exit of its own, so the one behind it is the exit of both, and nothing that can be forged. */
static bool has_run_past(sf_u64 address)
{
	if (control->code_pc < address)
		return false;
	control->forge = 0;
	write_later(address);
	return true;
}

static int op_run(const struct sf_op *op)
{
	sf_u64 slots = (op->a - m->window->base) / 4 + 1;

	write_later(control->code_pc);
	if (has_run_past(op->a))
		return SF_STATUS_OK;
	for (int i = 0; i < SF_WINDOWS; i++) /* a vCPU may come to the code of any other, or to what was there */
		sync_code(&windows[i]);
	control->stop_pc = op->a;
	control->irqs = 0;
	/* Each return brings the guest one instruction further, save first touches: a few each. */
	for (sf_u64 budget = 8 * slots + 32; ; budget--) {
		int error;

		if (!budget)
			return SF_STATUS_STUCK;
		if (m->stopped || stopped_by_another()) /* it would wait for ever */
			set_runnable(op->step);
		if (m->hit && m->debug.control) /* as if userspace had done the instruction */
			set_register(SF_ONE_REG_PC, m->hit_pc + 4, false, op->step);
		m->hit = false;
		control->stop_why = 0;
		error = ioctl(m->vcpu, KVM_RUN, 0) ? errno : 0;
		m->returned = error != EINTR;
		m->access = !error && (m->run->exit_reason == KVM_EXIT_MMIO || m->run->exit_reason == KVM_EXIT_ARM_NISV);
		/* A read that nobody completes gives 0, not what the last access left there. */
		if (!error && m->run->exit_reason == KVM_EXIT_MMIO && !m->run->mmio.is_write)
			memset(m->run->mmio.data, 0, sizeof(m->run->mmio.data));
		if (error ? error != EINTR : m->run->exit_reason == KVM_EXIT_ARM_NISV) {
			/* An access that KVM cannot decode: go on behind it. */
			set_register(SF_ONE_REG_PC, control->trap_pc + 4, false, op->step);
		}
		/* In a pair, CPU_OFF lasts until the vCPU is wanted again: the other one may call CPU_ON. */
		if (!m->paired && (control->stop_why & SF_STOP_SLEEP || m->run->exit_reason == KVM_EXIT_SYSTEM_EVENT))
			set_runnable(op->step);
		if (control->stop_why & SF_STOP_IRQS)
			return SF_STATUS_RUNAWAY;
		if (control->stop_why & SF_STOP_OUTSIDE) {
			land(op);
			write_later(control->code_pc);
		} else if (!error && m->run->exit_reason == KVM_EXIT_DEBUG &&
			   m->run->debug.arch.hsr >> SF_EC_SHIFT != SF_EC_SOFTSTP_LOW) {
			m->hit = true;
			m->hit_pc = control->trap_pc;
		}
		if (has_run_past(op->a))
			return SF_STATUS_OK;
	}
}

static int run_program(void)
{
	for (sf_u64 i = 0; i < control->op_count; i++) {
		const struct sf_op *op = &program[i];
		int error = 0, status = SF_STATUS_OK;

		control->step = op->step;
		switch (op->op) {
		case SF_OP_BEGIN: error = op_begin(op); break;
		case SF_OP_CODE: error = put_code(op->a, op->b); break;
		case SF_OP_SET: set_register(op->a, op->b, true, op->step); break;
		case SF_OP_RUN: status = op_run(op); break;
		case SF_OP_LATER: error = op_later(i); i += error ? 0 : op->b; break;
		case SF_OP_COMPLETE: error = op_complete(op); break;
		case SF_OP_RESET: error = op_reset(op); break;
		case SF_OP_ABORT:
		case SF_OP_SERROR: error = op_events(op); break;
		case SF_OP_IRQ_LINE: error = op_irq_line(op); break;
		case SF_OP_GIC_LINE: error = op_gic_line(op); break;
		case SF_OP_FINISH: error = op_finish(op); break;
		case SF_OP_MP_STATE: error = op_mp_state(op); break;
		case SF_OP_DEBUG:
		case SF_OP_BREAKPOINT:
		case SF_OP_WATCHPOINT: error = op_debug(op); break;
		case SF_OP_FORGE: error = op_forge(op); break;
		case SF_OP_VCPU: error = op_vcpu(op); break;
		case SF_OP_WRITE: error = op_write(op); break;
		case SF_OP_SLOT:
		case SF_OP_DROP_SLOT: error = op_slot(op); break;
		default: status = SF_STATUS_BAD_OP;
		}
		if (error)
			status = error == ENODEV && op->op == SF_OP_VCPU ? SF_STATUS_ABSENT : SF_STATUS_IOCTL;
		if (status != SF_STATUS_OK) {
			control->failed_op = i;
			control->failed_errno = error;
			return status; /* a runaway, too: most would run away in every later step again */
		}
	}
	return SF_STATUS_OK;
}

static void serve(void)
{
	for (;;) {
		sf_u64 request = next_request(control);

		control->head = 0;
		control->dropped = 0;
		control->status = run_program();
		__atomic_store_n(&control->reply, request, __ATOMIC_RELEASE);
		await_request();
	}
}

int main(void)
{
	unsigned char *shared = map_mailbox("");

	control = (void *)shared;
	program = (void *)(shared + SF_PROGRAM_OFFSET);
	trace = shared + SF_TRACE_OFFSET;
	mkdir("/sys", 0700);
	mount("sysfs", "/sys", "sysfs", 0, NULL); /* for the module's parameters */
	mknod("/kvm", S_IFCHR | 0600, makedev(10, 232));
	kvm = open("/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	if (create_ram() || create(contexts))
		die("creating a VM");
	signal(SIGSEGV, on_refusal);
	signal(SIGBUS, on_refusal);
	if (getenv("SF_BRAKE"))
		find_brake();
	__atomic_store_n(&control->magic, SF_MAGIC, __ATOMIC_RELEASE);
	await_request();
	serve();
}
