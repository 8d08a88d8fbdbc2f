// SPDX-License-Identifier: Apache-2.0
/*
 * A small VMM: boots an arm64 Linux Image through /dev/kvm, with the in-kernel interrupt controller and timers, an
 * emulated serial port (PL011), and PSCI for power.  What the guest prints goes to standard output.
 *
 *     linuxguest IMAGE INITRD CPUS MEMORY_MIB "KERNEL ARGUMENTS"
 *
 * Exit status: 0 the guest powered off, 1 anything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fdt.h"

#define RAM_BASE 0x40000000ul
#define DIST_BASE 0x08000000ul
#define DIST_SIZE 0x10000ul
#define REDIST_BASE 0x080a0000ul
#define REDIST_SIZE 0x20000ul /* for each CPU */
#define UART_BASE 0x09000000ul
#define UART_SIZE 0x1000ul
#define UART_SPI 1
#define MAX_CPUS 8
#define SPI_COUNT 64
#define MIB (1ul << 20)
#define CORE_REG(slot) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (slot) * 2)

static int kvm, vm;
static unsigned char *ram;
static unsigned long ram_size;
static unsigned long run_size;
static int vcpus[MAX_CPUS];
static struct kvm_run *runs[MAX_CPUS];

static void die(const char *what)
{
	fprintf(stderr, "linuxguest: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static int checked(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

/* The serial port: PL011, Arm DDI 0183; only the registers that Linux' driver uses. */
static struct {
	pthread_mutex_t lock;
	unsigned int control, mask, divisor, fraction, line_control, level, raw;
	int line; /* the level of the interrupt line that KVM has */
} uart = { .lock = PTHREAD_MUTEX_INITIALIZER };

#define UART_TX_INTERRUPT (1 << 5)

static void uart_interrupt(void)
{
	int line = (uart.raw & uart.mask) != 0;
	struct kvm_irq_level irq = {
		.irq = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (32 + UART_SPI),
		.level = line,
	};

	if (line != uart.line)
		checked(ioctl(vm, KVM_IRQ_LINE, &irq), "KVM_IRQ_LINE");
	uart.line = line;
}

static void uart_write(unsigned long offset, unsigned int value)
{
	char c = value;

	switch (offset) {
	case 0x000: /* DR: sent at once, so that the FIFO is never full */
		if (write(STDOUT_FILENO, &c, 1) != 1)
			die("standard output");
		uart.raw |= UART_TX_INTERRUPT;
		break;
	case 0x024: uart.divisor = value; break;
	case 0x028: uart.fraction = value; break;
	case 0x02c: uart.line_control = value; break;
	case 0x030: uart.control = value; break;
	case 0x034: uart.level = value; break;
	case 0x038: uart.mask = value; break;
	case 0x044: uart.raw &= ~value; break; /* ICR */
	}
	uart_interrupt();
}

static unsigned int uart_read(unsigned long offset)
{
	/* PeriphID and PCellID: a PL011 of revision 1. */
	static const unsigned char id[] = { 0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1 };

	switch (offset) {
	case 0x018: return 0x90; /* FR: both FIFOs empty */
	case 0x024: return uart.divisor;
	case 0x028: return uart.fraction;
	case 0x02c: return uart.line_control;
	case 0x030: return uart.control;
	case 0x034: return uart.level;
	case 0x038: return uart.mask;
	case 0x03c: return uart.raw;
	case 0x040: return uart.raw & uart.mask;
	}
	return offset >= 0xfe0 ? id[(offset - 0xfe0) / 4] : 0;
}

static void mmio(struct kvm_run *run)
{
	unsigned long offset = run->mmio.phys_addr - UART_BASE;
	unsigned int value = 0;

	if (offset < UART_SIZE) {
		pthread_mutex_lock(&uart.lock);
		if (run->mmio.is_write) {
			memcpy(&value, run->mmio.data, run->mmio.len < 4 ? run->mmio.len : 4);
			uart_write(offset, value);
		} else {
			value = uart_read(offset);
		}
		pthread_mutex_unlock(&uart.lock);
	}
	if (!run->mmio.is_write) {
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		memcpy(run->mmio.data, &value, sizeof(value));
	}
}

static void *run_vcpu(void *which)
{
	long n = (long)which;

	for (;;) {
		if (ioctl(vcpus[n], KVM_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			die("KVM_RUN");
		}
		switch (runs[n]->exit_reason) {
		case KVM_EXIT_MMIO:
			mmio(runs[n]);
			break;
		case KVM_EXIT_SYSTEM_EVENT:
			_exit(runs[n]->system_event.type != KVM_SYSTEM_EVENT_SHUTDOWN);
		default:
			fprintf(stderr, "linuxguest: exit reason %u\n", runs[n]->exit_reason);
			_exit(1);
		}
	}
}

static unsigned long load(const char *path, unsigned long offset)
{
	int file = checked(open(path, O_RDONLY | O_CLOEXEC), path);
	unsigned long at = offset;
	ssize_t count;

	while ((count = read(file, ram + at, ram_size - at)) > 0)
		at += count;
	checked(count, path);
	if (at == ram_size) {
		errno = ENOMEM;
		die(path);
	}
	close(file);
	return at;
}

static void *describe(void *out, int cpus, const char *arguments, unsigned long initrd, unsigned long initrd_end)
{
	static struct fdt f;
	static const char uart_names[] = "arm,pl011\0arm,primecell", clock_names[] = "uartclk\0apb_pclk";
	static const char psci_names[] = "arm,psci-1.0\0arm,psci-0.2";
	char name[16];

	fdt_begin(&f, "");
	fdt_text(&f, "compatible", "linux,dummy-virt");
	fdt_cells(&f, "#address-cells", 2);
	fdt_cells(&f, "#size-cells", 2);
	fdt_cells(&f, "interrupt-parent", 1);
	fdt_begin(&f, "chosen");
	fdt_text(&f, "bootargs", arguments);
	fdt_text(&f, "stdout-path", "/serial@9000000");
	fdt_cells(&f, "linux,initrd-start", 0, RAM_BASE + initrd);
	fdt_cells(&f, "linux,initrd-end", 0, RAM_BASE + initrd_end);
	fdt_end(&f);
	fdt_begin(&f, "memory@40000000");
	fdt_text(&f, "device_type", "memory");
	fdt_cells(&f, "reg", FDT_RANGE(RAM_BASE, ram_size));
	fdt_end(&f);
	fdt_begin(&f, "cpus");
	fdt_cells(&f, "#address-cells", 1);
	fdt_cells(&f, "#size-cells", 0);
	for (int i = 0; i < cpus; i++) {
		snprintf(name, sizeof(name), "cpu@%x", i);
		fdt_begin(&f, name);
		fdt_text(&f, "device_type", "cpu");
		fdt_text(&f, "compatible", "arm,armv8");
		fdt_text(&f, "enable-method", "psci");
		fdt_cells(&f, "reg", i);
		fdt_end(&f);
	}
	fdt_end(&f);
	fdt_begin(&f, "psci");
	fdt_data(&f, "compatible", psci_names, sizeof(psci_names));
	fdt_text(&f, "method", "hvc");
	fdt_end(&f);
	fdt_begin(&f, "timer");
	fdt_text(&f, "compatible", "arm,armv8-timer");
	fdt_cells(&f, "interrupts", 1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4);
	fdt_data(&f, "always-on", "", 0);
	fdt_end(&f);
	fdt_begin(&f, "interrupt-controller@8000000");
	fdt_text(&f, "compatible", "arm,gic-v3");
	fdt_cells(&f, "#interrupt-cells", 3);
	fdt_data(&f, "interrupt-controller", "", 0);
	fdt_cells(&f, "reg", FDT_RANGE(DIST_BASE, DIST_SIZE), FDT_RANGE(REDIST_BASE, cpus * REDIST_SIZE));
	fdt_cells(&f, "phandle", 1);
	fdt_end(&f);
	fdt_begin(&f, "clock");
	fdt_text(&f, "compatible", "fixed-clock");
	fdt_cells(&f, "#clock-cells", 0);
	fdt_cells(&f, "clock-frequency", 24000000);
	fdt_cells(&f, "phandle", 2);
	fdt_end(&f);
	fdt_begin(&f, "serial@9000000");
	fdt_data(&f, "compatible", uart_names, sizeof(uart_names));
	fdt_cells(&f, "reg", FDT_RANGE(UART_BASE, UART_SIZE));
	fdt_cells(&f, "interrupts", 0, UART_SPI, 4);
	fdt_cells(&f, "clocks", 2, 2);
	fdt_data(&f, "clock-names", clock_names, sizeof(clock_names));
	fdt_end(&f);
	fdt_end(&f);
	return (char *)out + fdt_finish(&f, out);
}

static void set_register(int vcpu, unsigned long id, unsigned long value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (unsigned long)&value };

	checked(ioctl(vcpu, KVM_SET_ONE_REG, &reg), "KVM_SET_ONE_REG");
}

static void set_device(int device, unsigned int group, unsigned long attribute, unsigned long *value)
{
	struct kvm_device_attr attr = { .group = group, .attr = attribute, .addr = (unsigned long)value };

	checked(ioctl(device, KVM_SET_DEVICE_ATTR, &attr), "KVM_SET_DEVICE_ATTR");
}

static void create_gic(int cpus)
{
	struct kvm_create_device gic = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	unsigned long distributor = DIST_BASE, redistributors = REDIST_BASE | (unsigned long)cpus << 52;
	unsigned int interrupts = SPI_COUNT;

	checked(ioctl(vm, KVM_CREATE_DEVICE, &gic), "KVM_CREATE_DEVICE");
	set_device(gic.fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, (void *)&interrupts);
	set_device(gic.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &distributor);
	set_device(gic.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, &redistributors);
	set_device(gic.fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

static void create_vcpu(int n)
{
	struct kvm_vcpu_init init;

	vcpus[n] = checked(ioctl(vm, KVM_CREATE_VCPU, n), "KVM_CREATE_VCPU");
	runs[n] = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpus[n], 0);
	if (runs[n] == MAP_FAILED)
		die("mapping kvm_run");
	checked(ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init), "KVM_ARM_PREFERRED_TARGET");
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	if (n) /* waits for PSCI CPU_ON */
		init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
	checked(ioctl(vcpus[n], KVM_ARM_VCPU_INIT, &init), "KVM_ARM_VCPU_INIT");
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = RAM_BASE };
	int cpus = argc == 6 ? atoi(argv[3]) : 0;
	unsigned long initrd, initrd_end, tree, text_offset;
	pthread_t thread;

	if (cpus < 1 || cpus > MAX_CPUS || atol(argv[4]) < 64) {
		fprintf(stderr, "usage: linuxguest IMAGE INITRD CPUS MEMORY_MIB ARGUMENTS (1 to 8 CPUs, at least 64 MiB)\n");
		return 1;
	}
	ram_size = atol(argv[4]) * MIB;
	kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	run_size = checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram == MAP_FAILED)
		die("guest memory");
	slot.memory_size = ram_size;
	slot.userspace_addr = (unsigned long)ram;
	checked(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	/* Documentation/arm64/booting.rst: the image at a multiple of 2 MiB plus its own offset, x0 the device tree. */
	load(argv[1], 0);
	memcpy(&text_offset, ram + 8, sizeof(text_offset));
	if (text_offset) {
		errno = ENOEXEC;
		die(argv[1]);
	}
	tree = ram_size - 2 * MIB;
	initrd = ram_size - 18 * MIB;
	initrd_end = load(argv[2], initrd);
	if (initrd_end > tree) {
		errno = EFBIG;
		die(argv[2]);
	}
	describe(ram + tree, cpus, argv[5], initrd, initrd_end);
	for (int n = 0; n < cpus; n++)
		create_vcpu(n);
	create_gic(cpus);
	set_register(vcpus[0], CORE_REG(0), RAM_BASE + tree);
	set_register(vcpus[0], CORE_REG(32), RAM_BASE);
	for (long n = 1; n < cpus; n++)
		if (pthread_create(&thread, NULL, run_vcpu, (void *)n))
			die("pthread_create");
	run_vcpu((void *)0);
}
