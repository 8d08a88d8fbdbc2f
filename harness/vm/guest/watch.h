/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Record an arbitrary program: the vCPU of each record, a ring in which no record is lost, and the program's calls of
 * the KVM API (SF_API_*), observed at KVM's own functions.  Included by probe.c. A recording target may have several
 * CPUs.
 */
#ifndef SF_WATCH_H
#define SF_WATCH_H

static bool watch;
module_param(watch, bool, 0400);

static bool recording_ring(void)
{
	return control->record == SF_RECORD_TO_RING;
}

/*
 * The trace area as a ring: head and tail only grow, a record is contiguous, and a rest before the wrap that is too
 * short is skipped (its header, if one fits, has type 0).  If it is full, wait for the host, which reads concurrently.
 */
static void *reserve_in_ring(u32 size)
{
	u64 head = control->head, at = head % control->limit, left = control->limit - at;
	u64 need = left < size ? left + size : size;
	u32 *pad = (u32 *)(trace_area + at);

	if (head + need - READ_ONCE(control->tail) > control->limit)
		control->waits++;
	while (head + need - READ_ONCE(control->tail) > control->limit)
		cpu_relax();
	if (left >= size)
		return pad;
	if (left >= 16)
		pad[0] = 0;
	control->head = head + left;
	return trace_area;
}

/* Returns room for a record, NULL (and counts it) if there is none. */
static void *reserve(u32 size)
{
	if (recording_ring())
		return reserve_in_ring(size);
	if (control->head + size > control->limit) {
		control->dropped++;
		return NULL;
	}
	return trace_area + control->head;
}

static void commit(u32 size)
{
	smp_store_release(&control->head, control->head + size);
}

#ifdef SF_BORROWED
static u32 identity(struct kvm_vcpu *vcpu) { return (u32)control->context << SF_FLAGS_VCPU_SHIFT; }
static struct kvm_vcpu *returns(void) { return NULL; }
static unsigned long hold(void) { return 0; }
static void let_go(unsigned long flags) {}
static int start_watching(void) { return watch ? -EOPNOTSUPP : 0; }
#else

/* One record at a time, of any CPU and thread; the other two locks protect one table each. */
static DEFINE_RAW_SPINLOCK(ring_lock);
static DEFINE_RAW_SPINLOCK(vms_lock);
static DEFINE_RAW_SPINLOCK(runs_lock);

static unsigned long hold(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&ring_lock, flags);
	return flags;
}

static void let_go(unsigned long flags)
{
	raw_spin_unlock_irqrestore(&ring_lock, flags);
}

#define SF_MAX_VMS 64
#define SF_MAX_RUNS 64

/* A VM's number is never reused: another VM may get the address of a destroyed one. */
static struct { struct kvm *kvm; u32 number; } vms[SF_MAX_VMS];
static u32 last_vm;

static u32 vm_number(struct kvm *kvm)
{
	unsigned long flags;
	int i, free = -1;
	u32 number = 0;

	raw_spin_lock_irqsave(&vms_lock, flags);
	for (i = 0; i < SF_MAX_VMS && !number; i++) {
		if (vms[i].kvm == kvm)
			number = vms[i].number;
		else if (!vms[i].kvm)
			free = i;
	}
	if (!number && free >= 0) {
		vms[free].kvm = kvm;
		number = vms[free].number = ++last_vm;
	} else if (!number) {
		control->dropped++; /* its records cannot be distinguished from those of VM 0 */
	}
	raw_spin_unlock_irqrestore(&vms_lock, flags);
	return number;
}

static u32 vm_flags(struct kvm *kvm)
{
	return watch ? vm_number(kvm) << SF_FLAGS_VM_SHIFT : 0;
}

/* The flags of the header of this vCPU's records. */
static u32 identity(struct kvm_vcpu *vcpu)
{
	u32 debug = vcpu->guest_debug & KVM_GUESTDBG_ENABLE ? SF_MARK_DEBUGGED : 0;

	if (debug && vcpu->guest_debug & KVM_GUESTDBG_SINGLESTEP)
		debug |= SF_MARK_STEPPED;
	return watch ? vm_flags(vcpu->kvm) | (vcpu->vcpu_id & 0xff) << SF_FLAGS_VCPU_SHIFT | debug
		: (u32)control->context << SF_FLAGS_VCPU_SHIFT;
}

/* Threads in KVM_RUN: kvm_userspace_exit fires after the vCPU is put, possibly after another thread ran its vCPU. */
static struct { struct task_struct *task; struct kvm_vcpu *vcpu; } runs[SF_MAX_RUNS];

/*
 * At the call of KVM_RUN, not at an entry: a KVM_RUN that a signal ends before the entry still completes an MMIO
 * access.
 */
static int on_run(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	unsigned long flags;
	int i, at = -1;

	raw_spin_lock_irqsave(&runs_lock, flags);
	for (i = 0; i < SF_MAX_RUNS && (at < 0 || runs[at].task != current); i++)
		if (runs[i].task == current || !runs[i].task)
			at = i;
	if (at >= 0) {
		runs[at].task = current;
		runs[at].vcpu = (void *)regs->regs[0];
	} else {
		control->dropped++; /* the record of its return to userspace */
	}
	raw_spin_unlock_irqrestore(&runs_lock, flags);
	return 1; /* no handler at its return */
}

static struct kvm_vcpu *returns(void)
{
	struct kvm_vcpu *vcpu = NULL;
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&runs_lock, flags);
	for (i = 0; i < SF_MAX_RUNS && !vcpu; i++) {
		if (runs[i].task == current) {
			runs[i].task = NULL;
			vcpu = runs[i].vcpu;
		}
	}
	raw_spin_unlock_irqrestore(&runs_lock, flags);
	return vcpu;
}

static void record_api(u32 flags, u64 op, u64 a, u64 b, u64 c, u64 d, u64 error)
{
	unsigned long held;
	struct sf_api *out;

	if (!recording_ring())
		return;
	held = hold();
	out = reserve(sizeof(*out)); /* a ring always has room */
	*out = (struct sf_api){ SF_RECORD_API, sizeof(*out), 0, flags, op, a, b, c, d, error };
	commit(sizeof(*out));
	let_go(held);
}

/* A call of a KVM function: its arguments are kept until its return, which has the result. */
struct call {
	u32 flags;
	u64 op, a, b, c, d;
};

static int on_set_reg(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct call *call = (struct call *)instance->data;
	const struct kvm_one_reg *reg = (void *)regs->regs[1];
	size_t size = min_t(size_t, 8, KVM_REG_SIZE(reg->id));
	u64 value = 0;

	if (copy_from_user_nofault(&value, (void __user *)reg->addr, size))
		control->dropped++; /* the page is not present: its content is unknown */
	*call = (struct call){ identity((void *)regs->regs[0]), SF_API_SET_REGISTER, reg->id, value };
	return 0;
}

static int on_reset(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kvm_vcpu *vcpu = (void *)regs->regs[0];
	/* Set by kvm_psci_vcpu_on() (arch/arm64/kvm/psci.c), and cleared by the probed function. */
	u64 features = 0, by = vcpu->arch.reset_state.reset ? SF_RESET_BY_CPU_ON : SF_RESET_BY_INIT;
	int i;

	for (i = 0; i <= KVM_ARM_VCPU_PTRAUTH_GENERIC; i++)
		features |= vcpu_has_feature(vcpu, i) ? BIT_ULL(i) : 0;
	*(struct call *)instance->data = (struct call){ identity(vcpu), SF_API_RESET, features, by };
	return 0;
}

static int on_events(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct kvm_vcpu_events *events = (void *)regs->regs[1];
	u64 what = events->exception.serror_pending ? SF_EVENT_SERROR : 0;

	what |= events->exception.ext_dabt_pending ? SF_EVENT_EXTERNAL_ABORT : 0;
	*(struct call *)instance->data = (struct call){ identity((void *)regs->regs[0]), SF_API_EVENTS, what };
	return 0;
}

static int on_irq_line(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct kvm_irq_level *level = (void *)regs->regs[1];
	u32 type = level->irq >> KVM_ARM_IRQ_TYPE_SHIFT & KVM_ARM_IRQ_TYPE_MASK;
	u32 vcpu = level->irq >> KVM_ARM_IRQ_VCPU_SHIFT & KVM_ARM_IRQ_VCPU_MASK;

	if (type != KVM_ARM_IRQ_TYPE_CPU)
		return 1; /* an input of the in-kernel controller: no register of a vCPU changes */
	*(struct call *)instance->data = (struct call){
		vm_flags((void *)regs->regs[0]) | (vcpu & 0xff) << SF_FLAGS_VCPU_SHIFT, SF_API_IRQ_LINE,
		level->irq & KVM_ARM_IRQ_NUM_MASK, level->level };
	return 0;
}

/*
 * Created, changed and deleted slots, at the architecture's hook: the functions before it may be inlined.  It is called
 * only after the last possible failure, and returns nothing.
 */
static int on_slot(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct kvm_memory_slot *old = (void *)regs->regs[1], *new = (void *)regs->regs[2];
	const struct kvm_memory_slot *slot = regs->regs[3] == KVM_MR_DELETE ? old : new;
	u64 size = regs->regs[3] == KVM_MR_DELETE ? 0 : slot->npages << PAGE_SHIFT;

	*(struct call *)instance->data = (struct call){ vm_flags((void *)regs->regs[0]), SF_API_SLOT,
		slot->id, slot->flags, slot->base_gfn << PAGE_SHIFT, size };
	return 0;
}

static int on_device(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	if (regs->regs[1] != KVM_MMIO_BUS)
		return 1; /* no handler at its return */
	*(struct call *)instance->data = (struct call){ vm_flags((void *)regs->regs[0]), SF_API_DEVICE,
		regs->regs[2], (u32)regs->regs[3] };
	return 0;
}

static int on_capability(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct kvm_enable_cap *cap = (void *)regs->regs[1];

	*(struct call *)instance->data = (struct call){ vm_flags((void *)regs->regs[0]), SF_API_CAPABILITY,
		cap->cap, cap->args[0] };
	return 0;
}

#ifdef KVM_ARM_VM_SMCCC_FILTER
/* KVM's only attribute of a VM; the value is in the memory of the program. */
static int on_filter(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct kvm_device_attr *attr = (void *)regs->regs[1];
	struct kvm_smccc_filter filter = {};

	if (copy_from_user_nofault(&filter, (void __user *)attr->addr, sizeof(filter)))
		control->dropped++;
	*(struct call *)instance->data = (struct call){ vm_flags((void *)regs->regs[0]), SF_API_FILTER,
		filter.base, filter.nr_functions, filter.action };
	return 0;
}
#endif

/* Some attributes have no value; their address need not be valid. */
static int on_attribute(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const struct kvm_device_attr *attr = (void *)regs->regs[1];
	u64 value = 0;

	if (attr->addr && copy_from_user_nofault(&value, (void __user *)attr->addr, sizeof(value)))
		value = 0;
	*(struct call *)instance->data = (struct call){ identity((void *)regs->regs[0]), SF_API_ATTRIBUTE,
		attr->group, attr->attr, value };
	return 0;
}

static void forget(struct kvm *kvm)
{
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&vms_lock, flags);
	for (i = 0; i < SF_MAX_VMS; i++)
		if (vms[i].kvm == kvm)
			vms[i].kvm = NULL;
	raw_spin_unlock_irqrestore(&vms_lock, flags);
}

static int on_create(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kvm *kvm = (void *)regs->regs[0];

	forget(kvm); /* a new VM has no entry; one at this address is of a VM whose creation failed */
	*(struct call *)instance->data = (struct call){ vm_flags(kvm), SF_API_CREATE, regs->regs[1] };
	return 0;
}

static int on_destroy(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kvm *kvm = (void *)regs->regs[0];

	*(struct call *)instance->data = (struct call){ vm_flags(kvm), SF_API_DESTROY };
	forget(kvm);
	return 0;
}

static int on_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct call *call = (struct call *)instance->data;
	long result = (int)regs_return_value(regs);

	/* These return nothing; the reset only since 6.7, before it can fail. */
	if ((call->op == SF_API_RESET && SF_LINUX_VERSION >= KERNEL_VERSION(6, 7, 0)) || call->op == SF_API_SLOT ||
	    call->op == SF_API_DESTROY)
		result = 0;
	record_api(call->flags, call->op, call->a, call->b, call->c, call->d, result < 0 ? -result : 0);
	return 0;
}

#define SF_WATCHED(function, at_call) \
	{ .kp.symbol_name = function, .entry_handler = at_call, .handler = on_return, \
	  .data_size = sizeof(struct call), .maxactive = 64 }

static struct kretprobe watched[] = {
	SF_WATCHED("kvm_arch_vcpu_ioctl_run", on_run),
	SF_WATCHED("kvm_arm_set_reg", on_set_reg),
	SF_WATCHED("kvm_reset_vcpu", on_reset),
	SF_WATCHED("__kvm_arm_vcpu_set_events", on_events),
	SF_WATCHED("kvm_vm_ioctl_irq_line", on_irq_line),
	SF_WATCHED("kvm_arch_commit_memory_region", on_slot),
	SF_WATCHED("kvm_io_bus_register_dev", on_device),
	SF_WATCHED("kvm_vm_ioctl_enable_cap", on_capability),
#ifdef KVM_ARM_VM_SMCCC_FILTER
	SF_WATCHED("kvm_vm_smccc_set_attr", on_filter),
#endif
	SF_WATCHED("kvm_arm_vcpu_arch_set_attr", on_attribute),
	SF_WATCHED("kvm_arch_init_vm", on_create),
	SF_WATCHED("kvm_arch_destroy_vm", on_destroy),
};

static int start_watching(void)
{
	int i, error;

	for (i = 0; watch && i < ARRAY_SIZE(watched); i++) {
		error = register_kretprobe(&watched[i]);
		if (error) {
			pr_err("shadowfuzz: %s cannot be watched: %d\n", watched[i].kp.symbol_name, error);
			return error;
		}
	}
	return 0;
}
#endif
#endif
