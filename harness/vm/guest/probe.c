// SPDX-License-Identifier: GPL-2.0
/*
 * Record every world switch of every vCPU into memory that is shared with the host of the target's VM.
 *
 * The probe only reads KVM's state, at KVM's own tracepoints: kvm_entry (the context before KVM loads it), kvm_exit
 * (after KVM saved it) and kvm_userspace_exit (as userspace finds it).  To return to userspace after a chosen exit it
 * raises TIF_NOTIFY_SIGNAL, as a signal would: KVM takes its documented EINTR path.
 *
 * layout.h has the places of KVM's fields.  For a release without headers it holds numeric offsets (SF_BORROWED), and
 * this file is compiled against the headers of a neighbouring release: it must then depend on no definition that the
 * build does not compare.
 */
#include <linux/io.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/task_work.h>
#include <linux/tracepoint.h>
#include <linux/version.h>
#include <asm/kvm_emulate.h>
#include <asm/virt.h>

#include "layout.h"
#include "protocol.h"

static unsigned long shared_base;
module_param(shared_base, ulong, 0400);
static unsigned long shared_size;
module_param(shared_size, ulong, 0400);

static struct sf_control *control;
static u8 *trace_area;
/* kvm_userspace_exit fires after the vCPU is put: keep the vCPU of the run.  A scenario runs on one CPU. */
static struct kvm_vcpu *current_vcpu;

#include "watch.h"

#include "later.h"

/*
 * Since 6.15 KVM keeps its own valid flag in fault.hpfar_el2, in the bit of HPFAR_EL2.NS, which is RES0 for a
 * non-secure guest (arch/arm64/kvm/hyp/include/hyp/fault.h, __get_fault_info).
 */
#define SF_HPFAR_VALID BIT_ULL(63)

/*
 * Functions that modules may not link to (any more): 7.0 exports kvm_get_running_vcpu to KVM's own modules only
 * (virt/kvm/kvm_main.c, EXPORT_SYMBOL_FOR_KVM_INTERNAL).  Registering and removing a kprobe gives their address, on
 * every version.
 */
static struct kvm_vcpu *(*running_vcpu)(void);
static int (*add_work)(struct task_struct *task, struct callback_head *work, int mode);

static void *address_of(const char *name)
{
	/* Room for another release's struct kprobe; the offsets of the members used here have never changed. */
	static union { struct kprobe kprobe; u8 room[256]; } probe;
	void *address;

	memset(&probe, 0, sizeof(probe));
	probe.kprobe.symbol_name = name;
	if (register_kprobe(&probe.kprobe))
		return NULL;
	address = (void *)probe.kprobe.addr;
	unregister_kprobe(&probe.kprobe);
	return address;
}

/*
 * ioremap() of one release's headers calls a function that another does not export: __ioremap_prot in 6.12,
 * ioremap_prot in 6.18.
 */
static void __iomem *map_device(phys_addr_t address)
{
	void __iomem *(*map)(phys_addr_t address, size_t size, pgprot_t prot) = address_of("__ioremap_prot");

	if (!map)
		map = address_of("ioremap_prot");
	return map ? map(address, 2, __pgprot(PROT_DEVICE_nGnRE)) : NULL;
}

static int find_functions(void)
{
	running_vcpu = address_of("kvm_get_running_vcpu");
	add_work = address_of("task_work_add");
	return running_vcpu && add_work ? 0 : -ENOENT;
}

#ifndef SF_BORROWED
/* DWARF for the host: without a use, the compiler drops the enumerators. */
enum vcpu_sysreg sf_dwarf_sysreg;
struct kvm_cpu_context *sf_dwarf_context;
#endif

/*
 * vcpu->arch.iflags: two flags, then the kind of the pending exception (asm/kvm_host.h, INCREMENT_PC,
 * PENDING_EXCEPTION, EXCEPT_AA64_EL1_SYNC and the others; equal in 6.1, 6.12, 7.2 and 7.3, and checked below if there
 * are headers).
 */
#define SF_IFLAG_PENDING_EXCEPTION BIT(0)
#define SF_IFLAG_INCREMENT_PC BIT(1)
#define SF_IFLAGS_EXCEPT(iflags) (((iflags) >> 1) & 7)

#ifndef SF_BORROWED
#define SF_SECOND(set, flag, mask) (flag)
#define SF_FLAG(...) SF_SECOND(__VA_ARGS__)
static_assert(SF_FLAG(PENDING_EXCEPTION) == SF_IFLAG_PENDING_EXCEPTION);
static_assert(SF_FLAG(INCREMENT_PC) == SF_IFLAG_INCREMENT_PC);
static_assert(SF_FLAG(EXCEPT_AA64_EL1_SERR) == 3 << 1);
#endif

static u64 pending_work(struct kvm_vcpu *vcpu)
{
	static const u64 kinds[] = {
		SF_PENDING_SYNC_EL1, SF_PENDING_IRQ_EL1, SF_PENDING_FIQ_EL1, SF_PENDING_SERROR_EL1,
		SF_PENDING_OTHER, SF_PENDING_OTHER, SF_PENDING_OTHER, SF_PENDING_OTHER,
	};
	u8 iflags = SF_IFLAGS(vcpu);

	/*
	 * INCREMENT_PC shares its bit with the exception's kind (kvm_host.h): while an exception is pending it is not
	 * about PC.
	 */
	if (iflags & SF_IFLAG_PENDING_EXCEPTION)
		return SF_PENDING_EXCEPTION | kinds[SF_IFLAGS_EXCEPT(iflags)];
	return iflags & SF_IFLAG_INCREMENT_PC ? SF_PENDING_INCREMENT_PC : 0;
}

#ifdef SF_BORROWED
/*
 * The number of TIF_NOTIFY_SIGNAL is 6 up to 6.12 and 7 in 7.2 (asm/thread_info.h); for releases between them it is
 * unknown.  So empty work is queued, which raises the flag (kernel/task_work.c, TWA_SIGNAL).
 */
static bool queued;

static void nothing_to_do(struct callback_head *work)
{
	queued = false;
}

static void interrupt_run(void)
{
	static struct callback_head work = { .func = nothing_to_do };

	if (!queued)
		queued = !add_work(current, &work, TWA_SIGNAL);
}
#else
static void interrupt_run(void)
{
	set_thread_flag(TIF_NOTIFY_SIGNAL);
}
#endif

/* With VHE these are live in the CPU while the vCPU is loaded: copy them to where nVHE keeps them. */
static void read_live_registers(void *ctxt)
{
#define SF_READ(slot, op0, op1, crn, crm, op2, before) \
	if (SF_LINUX_VERSION < before) \
		SF_SYS_REGS(ctxt)[SF_SLOT_##slot] = read_sysreg_s(sys_reg(op0, op1, crn, crm, op2));
	SF_VHE_LIVE(SF_READ)
#undef SF_READ
}

static void record(struct kvm_vcpu *vcpu, u32 type, u32 marks, u64 code, u64 error)
{
	const u32 size = sizeof(struct sf_switch) + SF_CONTEXT_SIZE;
	struct kvm_run *run = SF_RUN(vcpu);
	unsigned long held = hold();
	struct sf_switch *out;
	void *ctxt;

	out = reserve(size);
	if (!out) {
		let_go(held);
		return;
	}
	ctxt = out + 1;
	out->type = type;
	out->size = size;
	out->step = control->step;
	out->flags = identity(vcpu) | marks | (u32)control->debug;
	out->code = code;
	out->error = error;
	out->esr_el2 = SF_FAULT_ESR(vcpu);
	out->far_el2 = SF_FAULT_FAR(vcpu);
	out->hpfar_el2 = SF_FAULT_HPFAR(vcpu) & ~SF_HPFAR_VALID;
	out->hcr_el2 = SF_HCR(vcpu);
	out->pending = pending_work(vcpu);
	out->mmio_addr = run->mmio.phys_addr;
	out->mmio_len = run->mmio.len | (run->mmio.is_write ? 0x100 : 0);
	memcpy(&out->mmio_data, run->mmio.data, sizeof(out->mmio_data));
	memcpy(ctxt, SF_CONTEXT(vcpu), SF_CONTEXT_SIZE);
	if (type != SF_RECORD_USER && is_kernel_in_hyp_mode())
		read_live_registers(ctxt);
	commit(size);
	let_go(held);
}

#define SF_CASE(number) case number:

static bool is_call(u64 ec)
{
	switch (ec) {
	SF_CALLS(SF_CASE)
		return true;
	}
	return false;
}

static bool may_sleep(u64 esr, u64 function)
{
	u64 ec = esr >> SF_EC_SHIFT & SF_EC_MASK;

	if (ec == SF_EC_WFX)
		return !(esr & ESR_ELx_WFx_ISS_WFE); /* a WFE only yields (kvm_handle_wfx) */
	if (!is_call(ec))
		return false;
	switch ((u32)function) {
	SF_SLEEPING_CALLS(SF_CASE)
		return true;
	}
	return false;
}

#undef SF_CASE

#include "forge.h"
#include "brake.h"
#include "points.h"
#include "lists.h"
#include "runaway.h"

static u64 why_stop(struct kvm_vcpu *vcpu, int code)
{
	u64 ec = (SF_FAULT_ESR(vcpu) >> SF_EC_SHIFT) & SF_EC_MASK;
	struct user_pt_regs *regs = SF_REGS(vcpu);
	u64 pc = regs->pc;
	u64 why = 0, done;

	if (code != SF_CODE_TRAP)
		return ++control->irqs > control->irq_budget || is_storm(vcpu) ? SF_STOP_RUNAWAY : 0;
	if (ec == SF_EC_HVC64) /* the only trap here whose preferred return address is the next instruction */
		pc -= 4;
	control->trap_pc = pc;
	/* After a software step, the instruction at pc has not been executed. */
	done = ec == SF_EC_SOFTSTP_LOW && control->debug ? pc - 4 : pc;
	control->trap_elr = SF_EL1(vcpu, ELR);
	control->rounds++;
	if (!is_code(pc)) {
		why |= SF_STOP_OUTSIDE;
	} else if (ec != SF_EC_IABT_LOW) { /* after an instruction abort the instruction has not been executed */
		control->code_pc = done;
		if (pc > control->far_pc) {
			control->far_pc = pc;
			control->irqs = control->rounds = 0;
		}
		check_later(done);
		if (done >= control->stop_pc)
			why |= SF_STOP_REACHED;
	}
	if (control->rounds > control->round_budget)
		why |= SF_STOP_RUNAWAY;
	if (may_sleep(SF_FAULT_ESR(vcpu), regs->regs[0]))
		why |= SF_STOP_SLEEP;
	return why;
}

static void on_entry(void *data, unsigned long pc)
{
	struct kvm_vcpu *vcpu = running_vcpu();

	if (!vcpu)
		return;
	current_vcpu = vcpu;
	write_later(vcpu, false);
	if (control->record) {
		record(vcpu, SF_RECORD_ENTRY, 0, 0, 0);
		record_points(vcpu);
		record_lists(vcpu);
	}
}

#if !defined(SF_BORROWED) && SF_LINUX_VERSION >= KERNEL_VERSION(7, 3, 0)
#define SF_SYNC_ID __KVM_HOST_SMCCC_FUNC___pkvm_vcpu_sync_state
#endif

/*
 * From 7.3 on pKVM keeps the registers of a VM that is not protected at EL2 and gives the host only PC, PSTATE and the
 * fault; handle_exit_early() requests the rest, after the tracepoint and not at interrupts
 * (arch/arm64/kvm/handle_exit.c, handle_exit_pkvm_state).  So this function requests it: KVM's own hypercall, which
 * writes the host's copy and changes nothing at EL2. Without pKVM the hypervisor rejects the call (hyp-main.c,
 * handle_host_hcall).
 */
static void fetch_state(void)
{
#ifdef SF_SYNC_ID
	static bool refused;
	register u64 x0 asm("x0") = KVM_HOST_SMCCC_ID(SF_SYNC_ID);

	if (refused || is_kernel_in_hyp_mode())
		return;
	asm volatile("hvc #0" : "+r" (x0) : : "x1", "x2", "x3", "memory");
	refused = x0 != 0;
#endif
}

static void on_exit(void *data, int code, unsigned int ec, unsigned long pc)
{
	struct kvm_vcpu *vcpu = running_vcpu();
	u32 forged = 0;
	u64 why = 0;

	if (!vcpu)
		return;
	fetch_state();
	control->exits++;
	if (!watch) /* else the guest belongs to a recorded program and is not stopped */
		why = why_stop(vcpu, code);
	if (control->forge && code == SF_CODE_TRAP) {
		forged = forge(vcpu, control->trap_pc);
		if (forged & SF_FORGE_CODE)
			code = control->forge_code;
		if (may_sleep(SF_FAULT_ESR(vcpu), SF_REGS(vcpu)->regs[0]))
			why |= SF_STOP_SLEEP;
	}
	if (control->record) {
		record(vcpu, SF_RECORD_EXIT, forged, (u32)code, 0);
		record_points(vcpu);
		record_lists(vcpu);
	}
	if (why) {
		control->stop_why |= why;
		interrupt_run();
	}
}

static void on_userspace_exit(void *data, u32 reason, int error)
{
	struct kvm_vcpu *vcpu = watch ? returns() : current_vcpu;

	if (vcpu && control->record) {
		record(vcpu, SF_RECORD_USER, 0, reason, error < 0 ? -error : 0);
		record_lists(vcpu);
	}
	if (vcpu)
		write_later(vcpu, true);
	current_vcpu = NULL;
}

static const struct {
	const char *name;
	void *probe;
} hooks[] = {
	{ "kvm_entry", on_entry },
	{ "kvm_exit", on_exit },
	{ "kvm_userspace_exit", on_userspace_exit },
};

static struct tracepoint *found[ARRAY_SIZE(hooks)];

static void find_tracepoint(struct tracepoint *tp, void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		if (!strcmp(tp->name, hooks[i].name))
			found[i] = tp;
}

static int __init sf_probe_init(void)
{
	int i, error;

	control = memremap(shared_base, shared_size, MEMREMAP_WB);
	if (!control)
		return -ENOMEM;
	trace_area = (u8 *)control + SF_TRACE_OFFSET;
	program = (const void *)control + SF_PROGRAM_OFFSET;
	control->limit = shared_size - SF_TRACE_OFFSET;
	control->context_size = SF_CONTEXT_SIZE;
	control->vhe = is_kernel_in_hyp_mode();
	error = find_functions();
	if (error)
		return error;
	for_each_kernel_tracepoint(find_tracepoint, NULL);
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (!found[i])
			return -ENOENT;
		error = tracepoint_probe_register(found[i], hooks[i].probe, NULL);
		if (error)
			return error;
	}
	return start_watching();
}
module_init(sf_probe_init);

MODULE_DESCRIPTION("Records KVM's world switches for shadowfuzz");
MODULE_LICENSE("GPL");
