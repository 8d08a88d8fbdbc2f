// SPDX-License-Identifier: Apache-2.0
/*
 * A small VMM with features of KVM's selftests: RAM at address 0, stores above 1 GiB that KVM handles itself (coalesced
 * MMIO), calls that userspace filters, and a vCPU with an external abort before its first run.
 *
 * Exit status: 0 all steps succeeded, else the number of the failed step.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define RAM_SIZE 0x20000ul
#define CODE 0x10000ul
#define VECTORS 0x10800ul
#define DATA 0x18000ul
#define TAKEN 0x80000000ul /* by KVM */
#define DEVICE 0xc0000000ul
#define STORES 80 /* up to 6.11 there is room for 85 (coalesced_mmio_has_room in virt/kvm/coalesced_mmio.c) */
#define FUNCTION 0xc600ff00ul /* in the vendor's range, not assigned */
#define CORE_REG(slot) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (slot) * 2)
#define REG_PC CORE_REG(32)
#define REG_VBAR ARM64_SYS_REG(3, 0, 12, 0, 0)

/* x19 data, x20 the coalesced MMIO zone, x21 the device, x22 a counter, x23 a function. */
__asm__(
	".pushsection .rodata\n"
	".balign 2048\n"
	".global guest_begin, guest_end\n"
	"guest_begin:\n"
	"	ldr	x0, [x19]\n"
	"	str	x0, [x19, #0x1000]\n"
	"1:	str	w22, [x20]\n"
	"	subs	x22, x22, #1\n"
	"	b.ne	1b\n"
	"	movz	x0, #0x000e\n movk x0, #0xc400, lsl #16\n" /* SYSTEM_SUSPEND */
	"	mov	x1, #0x10000\n"
	"	hvc	#0\n"
	"	str	x0, [x21]\n"
	"	mov	x0, x23\n"
	"	hvc	#0\n"
	"	str	x0, [x21]\n"
	"	.balign 2048\n"
	"	.fill	128, 4, 0xd503201f\n" /* current EL with SP_EL0: not used */
	"	str	x30, [x21, #8]\n" /* current EL with SP_ELx, synchronous */
	"	.balign 2048\n"
	"guest_end:\n"
	".popsection\n");
extern const char guest_begin[], guest_end[];

static int kvm, vm;

static void set(int vcpu, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { id, (uint64_t)(unsigned long)&value };

	ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

static struct kvm_run *new_vcpu(int number, int *vcpu)
{
	const uint64_t values[] = { DATA, TAKEN, DEVICE, STORES, FUNCTION };
	struct kvm_vcpu_init init;

	*vcpu = ioctl(vm, KVM_CREATE_VCPU, number);
	ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init);
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	if (ioctl(*vcpu, KVM_ARM_VCPU_INIT, &init))
		return NULL;
	for (int i = 0; i < 5; i++)
		set(*vcpu, CORE_REG(19 + i), values[i]);
	set(*vcpu, REG_PC, CODE);
	set(*vcpu, REG_VBAR, VECTORS);
	return mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, *vcpu, 0);
}

static int runs_until(int vcpu, struct kvm_run *run, uint32_t reason)
{
	return !ioctl(vcpu, KVM_RUN, 0) && run->exit_reason == reason;
}

static int filter(void)
{
	/*
	 * struct kvm_smccc_filter, which headers of 6.1 do not have: first function, count,
	 * KVM_SMCCC_FILTER_FWD_TO_USER.
	 */
	struct { uint32_t base, count; uint8_t action, pad[15]; } filter = { .base = FUNCTION, .count = 1, .action = 2 };
	/* KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER */
	struct kvm_device_attr attr = { .group = 0, .attr = 0, .addr = (uint64_t)(unsigned long)&filter };

	return !ioctl(vm, KVM_SET_DEVICE_ATTR, &attr); /* since 6.4 */
}

int main(void)
{
	void *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region slot = { .memory_size = RAM_SIZE, .userspace_addr = (uint64_t)(unsigned long)ram };
	struct kvm_coalesced_mmio_zone zone = { .addr = TAKEN, .size = 0x1000 };
	struct kvm_enable_cap suspend = { .cap = KVM_CAP_ARM_SYSTEM_SUSPEND };
	struct kvm_vcpu_events events = { .exception = { .ext_dabt_pending = 1 } };
	struct kvm_run *run, *other_run;
	int vcpu, other, filters;

	kvm = open("/dev/kvm", O_RDWR);
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	memcpy((char *)ram + CODE, guest_begin, guest_end - guest_begin);
	__builtin___clear_cache(ram, (char *)ram + RAM_SIZE);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) || ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone))
		return 1;
	if (ioctl(vm, KVM_ENABLE_CAP, &suspend))
		return 2;
	filters = filter();
	run = new_vcpu(0, &vcpu);
	other_run = new_vcpu(1, &other); /* pKVM rejects a new vCPU after the VM's first run */
	if (!run || !other_run || !runs_until(vcpu, run, KVM_EXIT_SYSTEM_EVENT))
		return 3;
	set(vcpu, CORE_REG(0), -1); /* denied */
	if (!runs_until(vcpu, run, KVM_EXIT_MMIO))
		return 4;
	if (filters && !runs_until(vcpu, run, KVM_EXIT_HYPERCALL))
		return 5;
	if (!runs_until(vcpu, run, KVM_EXIT_MMIO) || run->mmio.phys_addr != DEVICE)
		return 6;
	if (ioctl(other, KVM_SET_VCPU_EVENTS, &events))
		return 7;
	return runs_until(other, other_run, KVM_EXIT_MMIO) && other_run->mmio.phys_addr == DEVICE + 8 ? 0 : 8;
}
