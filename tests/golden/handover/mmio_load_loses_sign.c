// SPDX-License-Identifier: GPL-2.0-only
/*
 * A sign-extending MMIO load (LDRSB, LDRSH, LDRSW) writes zero-extended data
 * to its register.
 *
 * Required by: Arm ARM C6.2 LDRSB; arch/arm64/kvm/mmio.c
 * kvm_handle_mmio_return, asm/kvm_emulate.h vcpu_data_host_to_guest.
 * Seen on Linux 6.1.0-57-cloud-arm64, nVHE.
 *
 * Its place in a kernel tree is
 * tools/testing/selftests/kvm/aarch64/mmio_load_loses_sign.c
 * (arm64/mmio_load_loses_sign.c in newer trees). The guest's code is
 * instruction words that the program writes to the guest's memory one at a
 * time; a comment has the assembly of each. Written by shadowfuzz from
 * mmio-load-loses-sign.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define CODE_GPA	0x40000000ull
#define VECTORS_GPA	0x40010000ull
#define DATA_GPA	0x40020000ull
#define RAM_END		0x40100000ull
/*
 * "ldr xzr, . - 0x80000": the address is in no memory slot, so KVM_RUN returns with KVM_EXIT_MMIO,
 * and no register changes.
 */
#define SYNC_INSN	0x58c0001f
#define SYNC_OFFSET	0x80000ull
#define NAP_US		50000
#define MAX_NAPS	20

#define PC		ARM64_CORE_REG(regs.pc)

static uint8_t *ram;		/* the memory at CODE_GPA and after it */
static uint64_t stopped_at;	/* the PC at the last exit of the guest */

static void nop_handler(int sig)
{
}

static void put_insn(uint64_t gpa, uint32_t insn)
{
	uint32_t *at = (uint32_t *)(ram + (gpa - CODE_GPA));

	*at = insn;
	__builtin___clear_cache((char *)at, (char *)(at + 1));
}

static void create_ram(void)
{
	struct sigaction action = { .sa_handler = nop_handler };
	/* A slot may be longer than the rest of the memory. */
	size_t size = RAM_END - CODE_GPA + (RAM_END - DATA_GPA);

	ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(ram != MAP_FAILED, "mmap");
	for (uint64_t gpa = CODE_GPA; gpa < DATA_GPA; gpa += 4)
		put_insn(gpa, SYNC_INSN); /* at any address, the guest exits */
	sigaction(SIGALRM, &action, NULL);
}

static struct kvm_vm *create_vm(void)
{
	struct kvm_vm *vm = vm_create_barebones();

	vm_set_user_memory_region(vm, 0, KVM_MEM_READONLY, CODE_GPA, DATA_GPA - CODE_GPA, ram);
	vm_set_user_memory_region(vm, 1, 0, DATA_GPA, RAM_END - DATA_GPA, ram + (DATA_GPA - CODE_GPA));
	return vm;
}

static void init_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_init init;

	vm_ioctl(vcpu->vm, KVM_ARM_PREFERRED_TARGET, &init);
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	vcpu_ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
}

static uint64_t get_reg(struct kvm_vcpu *vcpu, uint64_t id)
{
	uint64_t value = 0;

	/* Not vcpu_get_reg(): in 6.12 it takes a pointer, in newer trees it returns the value. */
	TEST_ASSERT(!__vcpu_get_reg(vcpu, id, &value), "KVM_GET_ONE_REG 0x%lx", id);
	return value;
}

/* The vCPU starts at its own code, with the MMU off. */
static void start_vcpu(struct kvm_vcpu *vcpu, uint64_t gpa)
{
	init_vcpu(vcpu);
	vcpu_set_reg(vcpu, KVM_ARM64_SYS_REG(SYS_VBAR_EL1), VECTORS_GPA);
	vcpu_set_reg(vcpu, PC, gpa);
}

static bool at_sync(struct kvm_vcpu *vcpu)
{
	uint64_t from = vcpu->run->mmio.phys_addr + SYNC_OFFSET;

	return vcpu->run->exit_reason == KVM_EXIT_MMIO && from >= CODE_GPA && from < DATA_GPA;
}

/* Complete the load that made the guest exit, without any other effect. */
static void leave_sync(struct kvm_vcpu *vcpu)
{
	vcpu_run_complete_io(vcpu);
	vcpu_set_reg(vcpu, PC, stopped_at);
	vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
}

/*
 * Let the guest execute @insn, which is at @gpa.  It exits with an access of its own, or with the
 * load that follows @insn and is in all vectors; the PC is then set to the instruction after @insn.
 * A timer interrupts a guest that sleeps or loops.
 */
static void run_insn(struct kvm_vcpu *vcpu, uint64_t gpa, uint32_t insn)
{
	struct itimerval nap = { { 0, NAP_US }, { 0, NAP_US } }, none = { 0 };
	uint64_t start = get_reg(vcpu, PC);
	int naps = 0, ret, err;

	put_insn(gpa, insn);
	put_insn(gpa + 4, SYNC_INSN);
	setitimer(ITIMER_REAL, &nap, NULL);
	do {
		ret = __vcpu_run(vcpu);
		err = errno;
		stopped_at = get_reg(vcpu, PC);
	} while (ret && err == EINTR && stopped_at == start && ++naps < MAX_NAPS);
	setitimer(ITIMER_REAL, &none, NULL);
	if (ret)
		vcpu->run->exit_reason = KVM_EXIT_INTR;
	else if (at_sync(vcpu))
		leave_sync(vcpu);
	if (vcpu->run->exit_reason != KVM_EXIT_MMIO)
		vcpu_set_reg(vcpu, PC, gpa + 4);
	else if (!vcpu->run->mmio.is_write)
		memset(vcpu->run->mmio.data, 0, sizeof(vcpu->run->mmio.data));
}

/* Write the data of the guest's pending MMIO read. */
static void complete_read(struct kvm_vcpu *vcpu, uint64_t data)
{
	if (vcpu->run->exit_reason == KVM_EXIT_MMIO && !vcpu->run->mmio.is_write)
		memcpy(vcpu->run->mmio.data, &data, sizeof(data));
}

int main(void)
{
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu0;

	create_ram();
	vm = create_vm();
	vcpu0 = __vm_vcpu_add(vm, 0);
	start_vcpu(vcpu0, 0x40000000);
	vcpu_set_reg(vcpu0, ARM64_CORE_REG(regs.pstate), 0x3c0);
	vcpu_set_reg(vcpu0, ARM64_CORE_REG(regs.regs[1]), 0x9000000);

	run_insn(vcpu0, 0x40000000, 0x39800022); /* ldrsb x2, [x1] */
	complete_read(vcpu0, 0x80);

	/* Complete pending work, as a return into the guest does, without entering it. */
	vcpu_run_complete_io(vcpu0);
	TEST_ASSERT(get_reg(vcpu0, ARM64_CORE_REG(regs.regs[2])) == 0xffffffffffffff80ull,
		    "X2 is 0x%lx, required 0xffffffffffffff80",
		    get_reg(vcpu0, ARM64_CORE_REG(regs.regs[2])));

	kvm_vm_free(vm);
	return 0;
}
