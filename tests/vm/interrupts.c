// SPDX-License-Identifier: Apache-2.0
/*
 * A small VMM, as an independent program: two vCPUs, a thread for each, and interrupts.
 *
 *     interrupts gic|lines COUNT
 *
 * gic: with the in-kernel interrupt controller. vCPU 0 starts vCPU 1 by PSCI CPU_ON; an emulated device raises an SPI
 * (KVM_IRQ_LINE) COUNT times, and vCPU 1 sends as many SGIs to vCPU 0.
 * lines: without one.  Each vCPU requests its own IRQ and FIQ COUNT times from the device (KVM_IRQ_LINE).
 *
 * Every fourth access is completed by a KVM_RUN with immediate_exit, after which PC is read.
 * Exit status: 0 every interrupt arrived, 1 any error.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define RAM 0x40000000ul
#define RAM_SIZE 0x10000ul
#define DEVICE 0x09000000ul
#define SPI 40
#define CORE_REG(slot) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (slot) * 2)
#define REG_X(n) CORE_REG(n)
#define REG_PC CORE_REG(32)

/* Registers of the device. */
enum { RAISE = 0x00, LOWER = 0x08, YIELD = 0x10, WRONG = 0x20, RAISE_FIQ = 0x28, LOWER_FIQ = 0x30 };

/* x19 the device, x20 the counters (IRQs of vCPU 0 and 1, FIQs of both, SGIs), x21 COUNT, x22 the vCPU. */
__asm__(
	".pushsection .rodata\n"
	".balign 2048\n"
	".global guest_begin, guest_gic, guest_lines, guest_end\n"
	"guest_begin:\n"
	"	b wrong\n .balign 128\n b wrong\n .balign 128\n b wrong\n .balign 128\n b wrong\n .balign 128\n"
	"	b wrong\n .balign 128\n"
	"	b interrupt\n .balign 128\n"
	"	b fast_interrupt\n .balign 128\n"
	"	b wrong\n .balign 1024\n"
	"wrong:\n"
	"	str	w0, [x19, #0x20]\n"
	"	b	wrong\n"
	/* An IRQ: with a controller it is acknowledged, without one the device must lower its line. */
	"interrupt:\n"
	"	cbnz	x23, 1f\n"
	"	strh	w21, [x19, #0x08]\n"
	"	ldr	x0, [x20, x22, lsl #3]\n"
	"	add	x0, x0, #1\n"
	"	str	x0, [x20, x22, lsl #3]\n"
	"	eret\n"
	"1:	mrs	x1, s3_0_c12_c12_0\n" /* ICC_IAR1_EL1 */
	"	cmp	x1, #1020\n" /* spurious */
	"	b.hs	4f\n"
	"	cmp	x1, #16\n"
	"	b.lo	2f\n"
	"	strh	w21, [x19, #0x08]\n"
	"	ldr	x0, [x20]\n"
	"	add	x0, x0, #1\n"
	"	str	x0, [x20]\n"
	"	b	3f\n"
	"2:	ldr	x0, [x20, #32]\n"
	"	add	x0, x0, #1\n"
	"	str	x0, [x20, #32]\n"
	"3:	msr	s3_0_c12_c12_1, x1\n" /* ICC_EOIR1_EL1 */
	"4:	eret\n"
	"fast_interrupt:\n"
	"	strb	w21, [x19, #0x30]\n"
	"	add	x1, x20, #16\n"
	"	ldr	x0, [x1, x22, lsl #3]\n"
	"	add	x0, x0, #1\n"
	"	str	x0, [x1, x22, lsl #3]\n"
	"	eret\n"
	/* A pending interrupt ends WFI even if it is masked; then it is taken. */
	"await:\n" /* until the counter at x2 is x3 */
	"	ldr	x0, [x2]\n"
	"	cmp	x0, x3\n"
	"	b.hs	1f\n"
	"	wfi\n"
	"	msr	daifclr, #3\n"
	"	isb\n"
	"	msr	daifset, #3\n"
	"	b	await\n"
	"1:	ret\n"
	"common:\n"
	"	mov	x19, #0x09000000\n"
	"	mov	x20, #0x40000000\n"
	"	add	x20, x20, #0x8000\n"
	"	adr	x0, guest_begin\n"
	"	msr	vbar_el1, x0\n"
	"	mrs	x22, mpidr_el1\n"
	"	and	x22, x22, #0xff\n"
	"	isb\n"
	"	ret\n"
	/* This vCPU's part of the controller: redistributor and CPU interface (Arm IHI 0069). */
	"own_interrupts:\n"
	"	mov	x23, #1\n"
	"	mov	x10, #0x080a0000\n"
	"	add	x10, x10, x22, lsl #17\n"
	"	str	wzr, [x10, #0x14]\n" /* GICR_WAKER */
	"	add	x10, x10, #0x10000\n"
	"	mov	w1, #-1\n"
	"	str	w1, [x10, #0x80]\n" /* GICR_IGROUPR0 */
	"	mov	w1, #0xffff\n"
	"	str	w1, [x10, #0x100]\n" /* GICR_ISENABLER0 */
	"	mov	x0, #7\n"
	"	msr	s3_0_c12_c12_5, x0\n" /* ICC_SRE_EL1 */
	"	isb\n"
	"	mov	x0, #0xf0\n"
	"	msr	s3_0_c4_c6_0, x0\n" /* ICC_PMR_EL1 */
	"	mov	x0, #1\n"
	"	msr	s3_0_c12_c12_7, x0\n" /* ICC_IGRPEN1_EL1 */
	"	isb\n"
	"	ret\n"
	"guest_gic:\n"
	"	mov	x21, x0\n"
	"	bl	common\n"
	"	bl	own_interrupts\n"
	"	mov	x10, #0x08000000\n"
	"	mov	w1, #0x12\n"
	"	str	w1, [x10]\n" /* GICD_CTLR: ARE_NS, EnableGrp1A */
	"	mov	w1, #-1\n"
	"	str	w1, [x10, #0x84]\n" /* GICD_IGROUPR1 */
	"	mov	w1, #0x100\n"
	"	str	w1, [x10, #0x104]\n" /* GICD_ISENABLER1 */
	"	movz	x0, #0xc400, lsl #16\n"
	"	movk	x0, #3\n" /* CPU_ON */
	"	mov	x1, #1\n"
	"	adr	x2, second\n"
	"	mov	x3, x21\n"
	"	hvc	#0\n"
	"	cbnz	x0, wrong\n"
	"	mov	x24, #0\n"
	"1:	add	x24, x24, #1\n"
	"	str	x24, [x19, #0x00]\n" /* the device raises its SPI */
	"	mov	x2, x20\n"
	"	mov	x3, x24\n"
	"	bl	await\n"
	"	cmp	x24, x21\n"
	"	b.lo	1b\n"
	"	add	x2, x20, #32\n"
	"	mov	x3, x21\n"
	"	bl	await\n"
	"finish:\n"
	"	ldrh	w5, [x19, #0x10]\n"
	"	movz	x0, #0xc400, lsl #16\n"
	"	movk	x0, #4\n" /* AFFINITY_INFO: until the other one is off */
	"	mov	x1, #1\n"
	"	mov	x2, #0\n"
	"	hvc	#0\n"
	"	cmp	x0, #1\n"
	"	b.ne	finish\n"
	"	movz	x0, #0x8400, lsl #16\n"
	"	movk	x0, #8\n" /* SYSTEM_OFF */
	"	hvc	#0\n"
	"	b	wrong\n"
	/* vCPU 1: send an SGI to vCPU 0, wait until it was taken, repeat. */
	"second:\n"
	"	mov	x21, x0\n"
	"	bl	common\n"
	"	bl	own_interrupts\n"
	"	mov	x24, #0\n"
	"1:	add	x24, x24, #1\n"
	"	movz	x0, #0x0100, lsl #16\n"
	"	orr	x0, x0, #1\n"
	"	msr	s3_0_c12_c11_5, x0\n" /* ICC_SGI1R_EL1: SGI 1 to affinity 0 */
	"	isb\n"
	"2:	ldrb	w5, [x19, #0x10]\n"
	"	ldr	x1, [x20, #32]\n"
	"	cmp	x1, x24\n"
	"	b.lo	2b\n"
	"	cmp	x24, x21\n"
	"	b.lo	1b\n"
	"off:\n"
	"	movz	x0, #0x8400, lsl #16\n"
	"	movk	x0, #2\n" /* CPU_OFF */
	"	hvc	#0\n"
	"	b	wrong\n"
	"guest_lines:\n"
	"	mov	x21, x0\n"
	"	mov	x23, #0\n"
	"	bl	common\n"
	"	mov	x24, #0\n"
	"1:	add	x24, x24, #1\n"
	"	str	w24, [x19, #0x00]\n"
	"	add	x2, x20, x22, lsl #3\n"
	"	mov	x3, x24\n"
	"	bl	await\n"
	"	strh	w24, [x19, #0x28]\n"
	"	add	x2, x20, #16\n"
	"	add	x2, x2, x22, lsl #3\n"
	"	mov	x3, x24\n"
	"	bl	await\n"
	"	cmp	x24, x21\n"
	"	b.lo	1b\n"
	"	cbz	x22, finish\n"
	"	b	off\n"
	"guest_end:\n"
	".popsection\n");

extern const char guest_begin[], guest_gic[], guest_lines[], guest_end[];

static int kvm, vm, gic;
static int vcpus[2];
static struct kvm_run *runs[2];
static char *ram;

static void die(const char *what)
{
	fprintf(stderr, "interrupts: %s: %s\n", what, strerror(errno));
	_Exit(1);
}

static int checked(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

static void set_register(int vcpu, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { id, (uint64_t)&value };

	checked(ioctl(vcpus[vcpu], KVM_SET_ONE_REG, &reg), "KVM_SET_ONE_REG");
}

static uint64_t get_register(int vcpu, uint64_t id)
{
	uint64_t value = 0;
	struct kvm_one_reg reg = { id, (uint64_t)&value };

	checked(ioctl(vcpus[vcpu], KVM_GET_ONE_REG, &reg), "KVM_GET_ONE_REG");
	return value;
}

static void line(int vcpu, int fiq, int level)
{
	unsigned int one = KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT | vcpu << KVM_ARM_IRQ_VCPU_SHIFT | fiq;
	struct kvm_irq_level irq = { .irq = gic ? KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | SPI : one };

	irq.level = level;
	checked(ioctl(vm, KVM_IRQ_LINE, &irq), "KVM_IRQ_LINE");
}

static void access_device(int vcpu)
{
	struct kvm_run *run = runs[vcpu];
	unsigned long offset = run->mmio.phys_addr - DEVICE;

	if (!run->mmio.is_write && offset == YIELD) {
		memset(run->mmio.data, 0xa5, sizeof(run->mmio.data));
		sched_yield();
		return;
	}
	switch (run->mmio.is_write ? offset : WRONG) {
	case RAISE: line(vcpu, 0, 1); break;
	case LOWER: line(vcpu, 0, 0); break;
	case RAISE_FIQ: line(vcpu, 1, 1); break;
	case LOWER_FIQ: line(vcpu, 1, 0); break;
	default:
		errno = EFAULT;
		die("the guest");
	}
}

/*
 * Complete an access without running the guest: the registers then have the values after it (KVM API 5,
 * immediate_exit).
 */
static void complete(int vcpu)
{
	uint64_t pc = get_register(vcpu, REG_PC);

	runs[vcpu]->immediate_exit = 1;
	if (ioctl(vcpus[vcpu], KVM_RUN, 0) != -1 || errno != EINTR)
		die("immediate_exit");
	runs[vcpu]->immediate_exit = 0;
	if (get_register(vcpu, REG_PC) != pc + 4)
		die("an access that was not completed");
}

static void *run_vcpu(void *which)
{
	long n = (long)which, accesses = 0;

	for (;;) {
		if (ioctl(vcpus[n], KVM_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			die("KVM_RUN");
		}
		switch (runs[n]->exit_reason) {
		case KVM_EXIT_MMIO:
			access_device(n);
			if (++accesses % 4 == 0)
				complete(n);
			break;
		case KVM_EXIT_SYSTEM_EVENT:
			return NULL;
		default:
			fprintf(stderr, "interrupts: exit reason %u\n", runs[n]->exit_reason);
			_Exit(1);
		}
	}
}

static void create_vcpu(int n)
{
	struct kvm_vcpu_init init;
	int size = checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");

	vcpus[n] = checked(ioctl(vm, KVM_CREATE_VCPU, n), "KVM_CREATE_VCPU");
	runs[n] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[n], 0);
	if (runs[n] == MAP_FAILED)
		die("mapping kvm_run");
	checked(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init), "KVM_ARM_PREFERRED_TARGET");
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	if (n && gic) /* waits for PSCI CPU_ON */
		init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
	checked(ioctl(vcpus[n], KVM_ARM_VCPU_INIT, &init), "KVM_ARM_VCPU_INIT");
}

static void set_device(int device, unsigned int group, uint64_t attribute, void *value)
{
	struct kvm_device_attr attr = { .group = group, .attr = attribute, .addr = (uint64_t)value };

	checked(ioctl(device, KVM_SET_DEVICE_ATTR, &attr), "KVM_SET_DEVICE_ATTR");
}

static void create_gic(void)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	uint64_t distributor = 0x08000000, redistributors = 0x080a0000;
	uint32_t interrupts = 64;

	checked(ioctl(vm, KVM_CREATE_DEVICE, &device), "KVM_CREATE_DEVICE");
	set_device(device.fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts);
	set_device(device.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &distributor);
	set_device(device.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &redistributors);
	set_device(device.fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = RAM, .memory_size = RAM_SIZE };
	unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;
	const uint64_t *counters;
	pthread_t second;

	if (!count || (strcmp(argv[1], "gic") && strcmp(argv[1], "lines"))) {
		fprintf(stderr, "usage: interrupts gic|lines COUNT\n");
		return 1;
	}
	gic = !strcmp(argv[1], "gic");
	kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		die("guest memory");
	memcpy(ram, guest_begin, guest_end - guest_begin);
	__builtin___clear_cache(ram, ram + RAM_SIZE);
	slot.userspace_addr = (uint64_t)ram;
	checked(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	for (int n = 0; n < 2; n++)
		create_vcpu(n);
	if (gic)
		create_gic();
	for (int n = 0; n < (gic ? 1 : 2); n++) {
		set_register(n, REG_PC, RAM + ((gic ? guest_gic : guest_lines) - guest_begin));
		set_register(n, REG_X(0), count);
	}
	if (pthread_create(&second, NULL, run_vcpu, (void *)1))
		die("pthread_create");
	run_vcpu((void *)0);
	counters = (void *)(ram + 0x8000);
	printf("interrupts: %lu %lu IRQs, %lu %lu FIQs, %lu SGIs\n", counters[0], counters[1], counters[2], counters[3],
	       counters[4]);
	fflush(stdout);
	_Exit(gic ? counters[0] != count || counters[4] != count
		: counters[0] != count || counters[1] != count || counters[2] != count || counters[3] != count);
}
