// SPDX-License-Identifier: Apache-2.0
/*
 * @TITLE@
 *
 * Seen on @WHERE@.  Written by shadowfuzz from @ID@; it does not need shadowfuzz.  In the style of KVM's selftests:
 * exit status 0 if KVM gives the expected value, 1 if it diverges, 2 if this machine cannot run it.
 *
 *	aarch64-linux-gnu-gcc -static -O1 -Wall -o repro @FILE@ && scp repro TARGET: && ssh TARGET ./repro
 *
 * As PID 1 of an initramfs it creates /dev/kvm, and powers off at the end.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

#define BASE	@BASE@ull	/* code, then EL1 vectors, both read-only; then data */
#define VECTORS	@VECTORS@ull
#define DATA	@DATA@ull
#define END	@END@ull
#define STAY	0x14000000u	/* b . */
#define PC_ID	@PC@ull
#define NAP_US	@NAP@
#define MAX_NAPS 20
#define STEP	0x32u		/* exception class of a software step */

enum what {
	SET, GUEST, COMPLETE, RESET, FINISH, ABORT, SERROR, IRQ_LINE, GIC_LINE, MP_STATE, WRITE, SLOT, DROP_SLOT,
	DEBUG, BREAKPOINT, WATCHPOINT
};

static const struct step {
	enum what what;
	uint64_t a, b;		/* SET: register id, value; GUEST: address, instruction; COMPLETE: data;
				   SERROR: syndrome; IRQ_LINE, GIC_LINE: line, level; MP_STATE: state;
				   WRITE: address, eight bytes;
				   SLOT, DROP_SLOT: guest address | flags << 4 | slot, offset in RAM << 32 | size;
				   DEBUG: 1 step, 2 BRK; BREAKPOINT, WATCHPOINT: address, control and number << 32 */
	const char *text;
} steps[] = {
@STEPS@
};

static const struct { uint64_t id, expected, seen; const char *name; } check =
	{ @CHECK@ };

static int kvm, vm, vcpu, stopped;
static struct kvm_run *run;
static unsigned char *ram;
static struct kvm_vcpu_init init;

static int done(int status, const char *why)
{
	printf("RESULT %d: %s%s%s\n", status, why, status == 2 ? ": " : "", status == 2 ? strerror(errno) : "");
	fflush(stdout);
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	_exit(status);
}

static void on_alarm(int number)
{
	(void)number;
}

static int set(uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uint64_t)(unsigned long)&value };

	return ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

static uint64_t get(uint64_t id)
{
	uint64_t value = 0;
	struct kvm_one_reg reg = { .id = id, .addr = (uint64_t)(unsigned long)&value };

	if (ioctl(vcpu, KVM_GET_ONE_REG, &reg))
		done(2, "KVM_GET_ONE_REG");
	return value;
}

/* `home` is the memory's guest address in the default layout. */
static int slot(unsigned int number, uint64_t guest, uint64_t size, unsigned int flags, uint64_t home)
{
	struct kvm_userspace_memory_region region = {
		.slot = number, .flags = flags, .guest_phys_addr = guest, .memory_size = size,
		.userspace_addr = (uint64_t)(unsigned long)(ram + (home - BASE)),
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static void put(uint64_t address, uint32_t word)
{
	uint32_t *at = (uint32_t *)(ram + (address - BASE));

	*at = word;
	__builtin___clear_cache((char *)at, (char *)(at + 1));
}

static void run_nothing(void)
{
	run->immediate_exit = 1;
	ioctl(vcpu, KVM_RUN, 0);
	run->immediate_exit = 0;
}

static void events(const struct step *step)
{
	struct kvm_vcpu_events events = { 0 };

	if (step->what == ABORT) {
		if (run->exit_reason != KVM_EXIT_MMIO)
			return; /* there is no access that could abort */
		events.exception.ext_dabt_pending = 1;
	} else {
		events.exception.serror_pending = 1;
		events.exception.serror_has_esr = step->a != 0;
		events.exception.serror_esr = step->a;
	}
	if (ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events))
		printf("  KVM_SET_VCPU_EVENTS: %s\n", strerror(errno));
}

static void mp_state(uint64_t to)
{
	struct kvm_mp_state state = { .mp_state = to };

	if (ioctl(vcpu, KVM_SET_MP_STATE, &state))
		printf("  KVM_SET_MP_STATE: %s\n", strerror(errno));
	stopped = to != KVM_MP_STATE_RUNNABLE;
}

static struct kvm_guest_debug debugging;

static void debug(const struct step *step)
{
	struct kvm_guest_debug_arch *arch = &debugging.arch;
	unsigned int number = step->b >> 32, hardware = 0;

	if (step->what == BREAKPOINT) {
		arch->dbg_bvr[number] = step->a;
		arch->dbg_bcr[number] = (uint32_t)step->b;
	} else if (step->what == WATCHPOINT) {
		arch->dbg_wvr[number] = step->a;
		arch->dbg_wcr[number] = (uint32_t)step->b;
	} else {
		if (!step->a)
			memset(arch, 0, sizeof(*arch));
		debugging.control = (step->a & 1 ? KVM_GUESTDBG_SINGLESTEP : 0) | (step->a & 2 ? KVM_GUESTDBG_USE_SW_BP : 0);
	}
	for (int i = 0; i < KVM_ARM_MAX_DBG_REGS; i++)
		hardware |= arch->dbg_bcr[i] | arch->dbg_wcr[i];
	debugging.control &= KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP;
	if (hardware)
		debugging.control |= KVM_GUESTDBG_USE_HW;
	if (debugging.control)
		debugging.control |= KVM_GUESTDBG_ENABLE;
	if (ioctl(vcpu, KVM_SET_GUEST_DEBUG, &debugging))
		printf("  KVM_SET_GUEST_DEBUG: %s\n", strerror(errno));
}

static void host(const struct step *step)
{
	struct kvm_irq_level line = {
		.irq = KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT | step->a, .level = step->b != 0,
	}, input = { .irq = step->a, .level = step->b != 0 };

	switch (step->what) {
	case SET:
		if (set(step->a, step->b))
			printf("  KVM_SET_ONE_REG: %s\n", strerror(errno));
		break;
	case RESET:
		stopped = 0;
		if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init))
			done(2, "KVM_ARM_VCPU_INIT");
		break;
	case COMPLETE:
		if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
			memcpy(run->mmio.data, &step->a, sizeof(step->a));
		break;
	case IRQ_LINE:
		if (ioctl(vm, KVM_IRQ_LINE, &line))
			printf("  KVM_IRQ_LINE: %s\n", strerror(errno));
		break;
	case GIC_LINE: /* there is no GIC: it fails */
		if (ioctl(vm, KVM_IRQ_LINE, &input))
			printf("  KVM_IRQ_LINE: %s\n", strerror(errno));
		break;
	case FINISH:
		run_nothing();
		break;
	case ABORT:
	case SERROR:
		events(step);
		break;
	case MP_STATE:
		mp_state(step->a);
		break;
	case WRITE:
		memcpy(ram + (step->a - BASE), &step->b, sizeof(step->b));
		break;
	case SLOT:
	case DROP_SLOT:
		if (slot(step->a & 0xf, step->a & ~0xfffull, (uint32_t)step->b, step->a >> 4 & 3, DATA + (step->b >> 32)))
			printf("  KVM_SET_USER_MEMORY_REGION: %s\n", strerror(errno));
		break;
	case DEBUG:
	case BREAKPOINT:
	case WATCHPOINT:
		debug(step);
		break;
	case GUEST:
		break;
	}
}

/* Run one instruction, until it exits to userspace, or the guest loops after it or at its vectors. */
static void guest(const struct step *step)
{
	struct itimerval nap = { .it_value = { 0, NAP_US }, .it_interval = { 0, NAP_US } }, none = { 0 };

	if (stopped)
		mp_state(KVM_MP_STATE_RUNNABLE); /* else KVM_RUN would not return */
	put(step->a, step->b);
	setitimer(ITIMER_REAL, &nap, NULL);
	for (int naps = 0; naps < MAX_NAPS; naps++) {
		if (!ioctl(vcpu, KVM_RUN, 0)) {
			/* The exception of the previous step may be taken first. */
			if (run->exit_reason == KVM_EXIT_DEBUG && run->debug.arch.hsr >> 26 == STEP && get(PC_ID) == step->a)
				continue;
			break;
		}
		if (errno != EINTR) {
			printf("  KVM_RUN: %s\n", strerror(errno));
			break;
		}
		if (get(PC_ID) != step->a)
			break; /* else a slow machine has not reached it yet */
	}
	setitimer(ITIMER_REAL, &none, NULL);
	if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
		memset(run->mmio.data, 0, sizeof(run->mmio.data)); /* unless it is completed */
	if (run->exit_reason == KVM_EXIT_SYSTEM_EVENT)
		mp_state(KVM_MP_STATE_RUNNABLE);
}

static void create(void)
{
	kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0)
		done(2, "/dev/kvm");
	/* A slot may extend beyond END. */
	ram = mmap(NULL, END - BASE + (END - DATA), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (ram == MAP_FAILED || vm < 0)
		done(2, "KVM_CREATE_VM");
	for (uint64_t address = BASE; address < DATA; address += 4)
		*(uint32_t *)(ram + (address - BASE)) = STAY;
	__builtin___clear_cache((char *)ram, (char *)ram + (DATA - BASE));
	if (slot(0, BASE, DATA - BASE, KVM_MEM_READONLY, BASE) || slot(1, DATA, END - DATA, 0, DATA))
		done(2, "KVM_SET_USER_MEMORY_REGION");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (vcpu < 0 || run == MAP_FAILED || ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init))
		done(2, "KVM_CREATE_VCPU");
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init))
		done(2, "KVM_ARM_VCPU_INIT");
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	uint64_t value, next = BASE;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (getpid() == 1) {
		mkdir("/dev", 0755);
		mknod("/dev/kvm", S_IFCHR | 0600, makedev(10, 232));
	}
	sigaction(SIGALRM, &action, NULL);
	create();
	for (unsigned int i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		const struct step *step = &steps[i];

		printf("%s\n", step->text);
		host(step);
		if (step->what != GUEST)
			continue;
		/* The previous instruction may have branched away: set PC to this one. */
		value = get(PC_ID);
		if (step->a != BASE && value != step->a && run->exit_reason != KVM_EXIT_MMIO)
			set(PC_ID, next);
		guest(step);
		next = step->a + 4;
	}
	/* Complete pending work, as a return into the guest does, without entering it. */
	run_nothing();
	value = get(check.id);
	printf("%s: expected %#llx, observed %#llx; shadowfuzz saw %#llx\n", check.name,
	       (unsigned long long)check.expected, (unsigned long long)value, (unsigned long long)check.seen);
	return done(value == check.expected ? 0 : 1, value == check.expected ? "as expected" : "diverges");
}
