// SPDX-License-Identifier: Apache-2.0
/*
 * PID 1 of the target: builds VMs through /dev/kvm and runs the programs that it finds in the mailbox.
 *
 * It is independent of scenarios: harness/vm/executor.py compiles them to operations (SF_OP_*). The agent records its
 * own actions, which it needs to continue after an exit, as host actions like any other.
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

#define MOST_IDLE 32 /* how often in a row KVM_RUN may return without having run the guest */

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

/* Only a kprobe can replace the exit code, and it slows every exit down: enable it only when needed. */
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

#include "operations.h"

/* The guest left the code: set PC to the instruction after the one at which it left. */
static void land(const struct sf_op *op)
{
	sf_u64 elr = control->trap_elr, pc = control->code_pc + 4;

	if (elr >= m->window->base && elr <= op->a && elr >= control->code_pc)
		pc = elr + 4;
	else if (op->b & 1 && pc == op->a)
		pc = op->a + 4;
	set_register(SF_ONE_REG_PC, pc, false, op->step);
	control->code_pc += 4;
	if (pc - 4 > control->code_pc) /* instructions in between that did not trap are done as well */
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

static bool has_run_past(sf_u64 address)
{
	return control->code_pc >= address;
}

/* An instruction without a trap has no exit of its own: the next exit is the exit of both, and cannot be forged. */
static int end_run(sf_u64 address)
{
	control->forge = 0;
	write_later(address);
	return SF_STATUS_OK;
}

static int op_run(const struct sf_op *op)
{
	int idle = 0;

	write_later(control->code_pc);
	if (has_run_past(op->a))
		return end_run(op->a);
	for (int i = 0; i < SF_WINDOWS; i++) { /* a vCPU may branch to any window, or to stale code */
		sync_code(&windows[i]);
		(&control->end0)[i] = windows[i].base + 4 * (windows[i].end - windows[i].code);
	}
	control->stop_pc = op->a;
	control->irqs = control->rounds = 0;
	for (;;) {
		sf_u64 exits = control->exits;
		int error;

		if (m->stopped || stopped_by_another()) /* KVM_RUN would not return */
			set_runnable(op->step);
		if (m->hit && m->debug.control) /* skip the instruction, as if userspace had emulated it */
			set_register(SF_ONE_REG_PC, m->hit_pc + 4, false, op->step);
		m->hit = false;
		control->stop_why = 0;
		error = ioctl(m->vcpu, KVM_RUN, 0) ? errno : 0;
		m->returned = error != EINTR;
		m->access = !error && (m->run->exit_reason == KVM_EXIT_MMIO || m->run->exit_reason == KVM_EXIT_ARM_NISV);
		/* A read that no step completes gives 0, not the data of the last access. */
		if (!error && m->run->exit_reason == KVM_EXIT_MMIO && !m->run->mmio.is_write)
			memset(m->run->mmio.data, 0, sizeof(m->run->mmio.data));
		if (error ? error != EINTR : m->run->exit_reason == KVM_EXIT_ARM_NISV) {
			/* An access without a valid syndrome: continue after it. */
			set_register(SF_ONE_REG_PC, control->trap_pc + 4, false, op->step);
		}
		/* In a pair, CPU_OFF lasts until the next run of the vCPU: the other one may call CPU_ON. */
		if (!m->paired && (control->stop_why & SF_STOP_SLEEP || m->run->exit_reason == KVM_EXIT_SYSTEM_EVENT))
			set_runnable(op->step);
		if (control->stop_why & SF_STOP_RUNAWAY)
			return SF_STATUS_RUNAWAY;
		idle = control->exits == exits ? idle + 1 : 0;
		if (idle == MOST_IDLE)
			return SF_STATUS_STUCK;
		if (control->stop_why & SF_STOP_OUTSIDE) {
			land(op);
			write_later(control->code_pc);
		} else if (!error && m->run->exit_reason == KVM_EXIT_DEBUG &&
			   m->run->debug.arch.hsr >> SF_EC_SHIFT != SF_EC_SOFTSTP_LOW) {
			m->hit = true;
			m->hit_pc = control->trap_pc;
		}
		if (has_run_past(op->a))
			return end_run(op->a);
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
			return status; /* also for a runaway: most would run away again in every later step */
		}
	}
	return SF_STATUS_OK;
}

static void serve(void)
{
	restart_tick();
	for (;;) {
		sf_u64 request = __atomic_load_n(&control->request, __ATOMIC_ACQUIRE);

		if (request == control->reply) { /* woken without a request, or for one that is already done */
			await_request();
			continue;
		}
		control->head = 0;
		control->dropped = 0;
		control->status = run_program();
		__atomic_store_n(&control->reply, request, __ATOMIC_RELEASE);
		ring();
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
	else
		find_bell();
	__atomic_store_n(&control->magic, SF_MAGIC, __ATOMIC_RELEASE);
	await_request();
	serve();
}
