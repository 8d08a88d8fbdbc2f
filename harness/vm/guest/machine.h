/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPUs of a scenario and their VMs, as harness/layout.py lists them (CONTEXTS). All VMs map the same RAM, except
 * the protected one: the host loses access to the pages that it touches.  Each vCPU has its own window for its code.
 */
#ifndef SF_MACHINE_H
#define SF_MACHINE_H

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protocol.h"

#define RAM_BASE SF_CODE_BASE
#define RAM_SIZE (SF_CODE_SIZE + SF_VECTORS_SIZE + 2 * SF_DATA_SIZE) /* a slot may extend beyond the data pages */
#define PROTECTED_TYPE (1UL << 31) /* KVM_VM_TYPE_ARM_PROTECTED */
#define READ_ONLY_SIZE (SF_CODE_SIZE + SF_VECTORS_SIZE)

/* The place of a vCPU's code. */
struct window {
	sf_u64 base; /* guest address */
	sf_u32 *code; /* the agent's address of it */
	sf_u32 *end; /* after the last instruction of the scenario */
	sf_u32 *stale; /* after the last instruction of an earlier scenario */
	bool changed;
};

struct context {
	int vm, vcpu;
	sf_u32 number; /* of the vCPU in its VM */
	struct kvm_run *run;
	struct kvm_vcpu_init init;
	struct window *window;
	bool clean; /* unchanged since KVM_ARM_VCPU_INIT */
	bool used; /* by this scenario */
	bool returned; /* the last KVM_RUN returned by itself, not because of a signal */
	bool access; /* it returned for an access that is not completed yet */
	bool stopped; /* by KVM_SET_MP_STATE */
	bool paired; /* there is another vCPU in its VM */
	bool gic; /* its VM has an in-kernel GIC, which a reset of a vCPU does not reset */
	bool protected; /* its VM is protected */
	bool reshaped; /* its VM's memory slots differ from those of create_vm() */
	sf_u32 lines; /* interrupt lines that userspace raised, one bit each: a reset need not lower them */
	bool displaced; /* an external abort that userspace injected replaced its pending access */
	bool aborted; /* an SError was injected, which a reset need not clear (6.12) */
	struct kvm_guest_debug debug; /* how userspace debugs it */
	bool hit; /* stopped by a breakpoint, a watchpoint or a BRK at hit_pc, where a further run would stop again */
	sf_u64 hit_pc;
	sf_u64 code_pc, far_pc; /* the control words of that name while another vCPU runs */
};

static const struct { sf_u32 machine, number, window; } rows[SF_CONTEXTS] = {
#define SF_ROW(machine, number, window) { machine, number, window },
	SF_CONTEXT_ROWS(SF_ROW)
#undef SF_ROW
};
static struct window windows[SF_WINDOWS];
static struct context contexts[SF_CONTEXTS];
static struct context *m = contexts;
static unsigned char *ram, *protected_ram; /* the latter exists while a scenario has the protected VM */
static int kvm;

/* `home` is the address of the slot's memory in the default layout of `memory`. */
static int set_slot(int vm, unsigned char *memory, sf_u32 slot, sf_u64 guest, sf_u64 size, sf_u32 flags, sf_u64 home)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = guest,
		.memory_size = size,
		.userspace_addr = (sf_u64)(unsigned long)(memory + (home - RAM_BASE)),
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static int create_vm(bool reports_accesses)
{
	struct kvm_enable_cap nisv = { .cap = KVM_CAP_ARM_NISV_TO_USER };
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);

	/* Read-only: a store of the guest must not change its code. */
	if (vm < 0 || set_slot(vm, ram, 0, RAM_BASE, READ_ONLY_SIZE, KVM_MEM_READONLY, RAM_BASE) ||
	    set_slot(vm, ram, 1, SF_DATA_BASE, SF_DATA_SIZE, 0, SF_DATA_BASE) ||
	    (reports_accesses && ioctl(vm, KVM_ENABLE_CAP, &nisv)))
		return -1;
	return vm;
}

/* The memory of the current VM. */
static unsigned char *current_ram(void)
{
	return m->protected ? protected_ram : ram;
}

/* Whether this kernel supports protected VMs. */
static bool can_protect(void)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, PROTECTED_TYPE);

	if (vm >= 0)
		close(vm);
	return vm >= 0;
}

/* The slots of a protected VM cannot be read-only (Documentation/virt/kvm/arm/pkvm.rst). */
static int create_protected_vm(void)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, PROTECTED_TYPE);

	if (vm >= 0 && (!protected_ram || set_slot(vm, protected_ram, 0, RAM_BASE, READ_ONLY_SIZE, 0, RAM_BASE) ||
			set_slot(vm, protected_ram, 1, SF_DATA_BASE, SF_DATA_SIZE, 0, SF_DATA_BASE)))
		return -1;
	return vm;
}

static int create_vcpu(struct context *context, int vm, int number)
{
	size_t size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	context->vm = vm;
	context->number = number;
	context->vcpu = ioctl(vm, KVM_CREATE_VCPU, number);
	if (context->vcpu < 0)
		return -1;
	context->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, context->vcpu, 0);
	if (context->run == MAP_FAILED || ioctl(vm, KVM_ARM_PREFERRED_TARGET, &context->init))
		return -1;
	context->init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	context->clean = true;
	return ioctl(context->vcpu, KVM_ARM_VCPU_INIT, &context->init);
}

/* After all vCPUs were created, before any runs (Documentation/virt/kvm/devices/arm-vgic-v3.rst). */
static int create_gic(int vm)
{
	const sf_u64 distributor = SF_GICD_BASE, redistributors = SF_GICR_BASE;
	const sf_u32 interrupts = SF_GIC_INTERRUPTS;
	struct kvm_create_device gic = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	const struct kvm_device_attr attributes[] = {
		{ .group = KVM_DEV_ARM_VGIC_GRP_NR_IRQS, .addr = (sf_u64)(unsigned long)&interrupts },
		{ .group = KVM_DEV_ARM_VGIC_GRP_ADDR, .attr = KVM_VGIC_V3_ADDR_TYPE_DIST,
		  .addr = (sf_u64)(unsigned long)&distributor },
		{ .group = KVM_DEV_ARM_VGIC_GRP_ADDR, .attr = KVM_VGIC_V3_ADDR_TYPE_REDIST,
		  .addr = (sf_u64)(unsigned long)&redistributors },
		{ .group = KVM_DEV_ARM_VGIC_GRP_CTRL, .attr = KVM_DEV_ARM_VGIC_CTRL_INIT },
	};
	int error = ioctl(vm, KVM_CREATE_DEVICE, &gic);

	for (unsigned int i = 0; !error && i < sizeof(attributes) / sizeof(*attributes); i++)
		error = ioctl(gic.fd, KVM_SET_DEVICE_ATTR, &attributes[i]);
	if (!error)
		close(gic.fd); /* the VM keeps it */
	return error;
}

/* Create the VM of a context, with all its vCPUs. */
static int create(const struct context *wanted)
{
	sf_u32 machine = rows[wanted - contexts].machine;
	int vm = machine == SF_PROTECTED_MACHINE ? create_protected_vm() : create_vm(machine == SF_NISV_MACHINE);
	int vcpus = 0;

	if (vm < 0)
		return -1;
	for (int i = 0; i < SF_CONTEXTS; i++) {
		if (rows[i].machine != machine)
			continue;
		contexts[i].window = &windows[rows[i].window];
		if (create_vcpu(&contexts[i], vm, rows[i].number))
			return -1;
		vcpus++;
	}
	for (int i = 0; i < SF_CONTEXTS; i++) {
		if (contexts[i].vm != vm)
			continue;
		contexts[i].paired = vcpus > 1;
		contexts[i].gic = machine == SF_GIC_MACHINE;
		contexts[i].protected = machine == SF_PROTECTED_MACHINE;
	}
	return machine == SF_GIC_MACHINE ? create_gic(vm) : 0;
}

static void destroy(int vm)
{
	size_t size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	for (struct context *context = contexts; context < contexts + SF_CONTEXTS; context++) {
		if (context->vm != vm)
			continue;
		munmap(context->run, size);
		close(context->vcpu);
		*context = (struct context){ .vm = -1, .vcpu = -1 };
	}
	close(vm);
}

static void destroy_all(void)
{
	for (int i = 0; i < SF_CONTEXTS; i++)
		if (contexts[i].vm >= 0)
			destroy(contexts[i].vm);
}

/* The host gets its memory back zeroed: no content can be reused for another scenario. */
static void destroy_protected(void)
{
	if (contexts[SF_CONTEXT_PROTECTED].vm >= 0)
		destroy(contexts[SF_CONTEXT_PROTECTED].vm);
	if (protected_ram)
		munmap(protected_ram, RAM_SIZE);
	protected_ram = NULL;
	for (int i = 0; i < SF_CONTEXTS; i++)
		if (rows[i].machine == SF_PROTECTED_MACHINE)
			windows[rows[i].window] = (struct window){ .base = windows[rows[i].window].base };
}

/* Words outside the scenario's code trap and change nothing: two alternating instructions. */
static void fill_with_traps(sf_u32 *from, const sf_u32 *to, sf_u32 even, sf_u32 odd)
{
	for (; from < to; from++)
		*from = (unsigned long)from & 4 ? odd : even;
}

static unsigned char *map_ram(void)
{
	void *memory = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, RAM_SIZE, MADV_NOHUGEPAGE); /* each page must fault separately */
	return memory;
}

/* Allocate memory for the protected VM of this scenario, before any of it is donated to the VM. */
static int create_protected_ram(void)
{
	protected_ram = map_ram();
	if (!protected_ram)
		return errno;
	fill_with_traps((sf_u32 *)protected_ram, (sf_u32 *)(protected_ram + READ_ONLY_SIZE),
			SF_PROTECTED_FILL_0, SF_PROTECTED_FILL_1);
	__builtin___clear_cache((char *)protected_ram, (char *)protected_ram + READ_ONLY_SIZE);
	for (int i = 0; i < SF_CONTEXTS; i++) {
		struct window *window = &windows[rows[i].window];

		if (rows[i].machine == SF_PROTECTED_MACHINE)
			window->code = window->end = window->stale =
				(sf_u32 *)(protected_ram + (window->base - RAM_BASE));
	}
	return 0;
}

static int create_ram(void)
{
	ram = map_ram();
	if (!ram)
		return -1;
	fill_with_traps((sf_u32 *)ram, (sf_u32 *)(ram + READ_ONLY_SIZE), SF_FILL_0, SF_FILL_1);
	__builtin___clear_cache((char *)ram, (char *)ram + READ_ONLY_SIZE);
	for (int i = 0; i < SF_CONTEXTS; i++)
		contexts[i].vm = contexts[i].vcpu = -1;
	for (int i = 0; i < SF_WINDOWS; i++) {
		sf_u32 *code = (sf_u32 *)(ram + i * SF_WINDOW_SIZE);

		windows[i] = (struct window){ SF_CODE_BASE + i * SF_WINDOW_SIZE, code, code, code, false };
	}
	return 0;
}

static int new_ram(void)
{
	destroy_all();
	munmap(ram, RAM_SIZE);
	return create_ram();
}

/* Complete work that the last scenario left pending: it must not affect the next one. */
static void retire(struct context *context)
{
	if (context->returned) { /* not by a signal: an MMIO access or an increment of PC may be pending */
		context->run->immediate_exit = 1;
		/*
		 * Completes it, always fails with EINTR. 6.1 leaves an increment of PC pending after an abort, even
		 * across resets.
		 */
		for (int runs = 1 + context->displaced; runs; runs--)
			ioctl(context->vcpu, KVM_RUN, 0);
		context->run->immediate_exit = 0;
	}
	if (context->debug.control) {
		memset(&context->debug, 0, sizeof(context->debug));
		ioctl(context->vcpu, KVM_SET_GUEST_DEBUG, &context->debug);
	}
	context->displaced = false;
	context->used = context->returned = context->access = context->stopped = context->hit = false;
}

static int set_line(const struct context *context, sf_u32 line, bool level)
{
	struct kvm_irq_level request = {
		.irq = KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT |
			context->number << KVM_ARM_IRQ_VCPU_SHIFT | line,
		.level = level,
	};

	return ioctl(context->vm, KVM_IRQ_LINE, &request);
}

/* Undo what a reset does not.  If that fails the VM must be destroyed, which takes three times as long. */
static bool take_back(struct context *context)
{
	struct kvm_vcpu_events events = { 0 };
	bool done = !context->reshaped && !context->gic;

	for (sf_u32 line = 0; line < SF_LINES; line++)
		if (context->lines >> line & 1)
			done &= !set_line(context, line, false);
	if (context->aborted) {
		done &= !ioctl(context->vcpu, KVM_ARM_VCPU_INIT, &context->init) &&
			!ioctl(context->vcpu, KVM_GET_VCPU_EVENTS, &events) && !events.exception.serror_pending;
		context->clean = true;
	}
	context->lines = 0;
	context->aborted = false;
	return done;
}

static void destroy_spoiled(void)
{
	for (int i = 0; i < SF_CONTEXTS; i++)
		if (contexts[i].vm >= 0 && !take_back(&contexts[i]))
			destroy(contexts[i].vm);
}

/* Bring a vCPU to its initial state. */
static int start(struct context *context)
{
	sf_u64 zero = 0;
	int error = 0;

	if (context->vm < 0 && create(context))
		return -1;
	/*
	 * The reset makes the vCPU runnable, and on most CPUs KVM unmaps stage 2 then: page by page it takes three
	 * times as long.
	 */
	if (!context->clean)
		error = ioctl(context->vcpu, KVM_ARM_VCPU_INIT, &context->init);
#define SF_CLEAR(register_id) do { \
		struct kvm_one_reg reg = { .id = register_id, .addr = (sf_u64)(unsigned long)&zero }; \
		error |= ioctl(context->vcpu, KVM_SET_ONE_REG, &reg); \
	} while (0);
	SF_KEPT_BY_RESET(SF_CLEAR)
#undef SF_CLEAR
	context->clean = false;
	context->code_pc = context->window->base - 4;
	context->far_pc = 0;
	return error;
}

/* The present code belongs to a finished scenario. */
static void retire_code(struct window *window)
{
	if (window->stale < window->end)
		window->stale = window->end;
	window->end = window->code;
}

static bool is_protected(const struct window *window)
{
	for (int i = 0; i < SF_CONTEXTS; i++)
		if (rows[i].machine == SF_PROTECTED_MACHINE && window == &windows[rows[i].window])
			return true;
	return false;
}

static int put_code(sf_u64 address, sf_u32 instruction)
{
	struct window *window = &windows[(address - SF_CODE_BASE) / SF_WINDOW_SIZE];
	sf_u32 *word;

	if (address < SF_CODE_BASE || address >= SF_CODE_BASE + SF_WINDOWS * SF_WINDOW_SIZE || address & 3)
		return ERANGE;
	if (is_protected(window) && !protected_ram && create_protected_ram())
		return ENOMEM;
	word = window->code + (address - window->base) / 4;
	if (word >= window->end)
		window->end = word + 1;
	if (*word != instruction) { /* an emulator translates written code again */
		*word = instruction;
		window->changed = true;
	}
	return 0;
}

/* Make the instructions of the scenario, and the traps after them, visible to instruction fetches. */
static void sync_code(struct window *window)
{
	if (window->stale > window->end) {
		fill_with_traps(window->end, window->stale, SF_FILL_0, SF_FILL_1);
		__builtin___clear_cache((char *)window->end, (char *)window->stale);
		window->stale = window->end;
	}
	if (window->changed) {
		__builtin___clear_cache((char *)window->code, (char *)window->end);
		window->changed = false;
	}
}

#endif
