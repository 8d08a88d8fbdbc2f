/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stop the machine by a write to its pvpanic device, whose address is the argument; the host resumes it.  While it
 * stops, the emulator may or may not advance the machine's time to its next timer: so there must be no armed timer. Not
 * local_irq_save(): it has alternatives, which a module with borrowed headers must not have.  Included by probe.c.
 */
#ifndef SF_BRAKE_H
#define SF_BRAKE_H

static int sf_brake(const char *value, const struct kernel_param *param)
{
	static void __iomem *brake;
	unsigned long address, daif, timer;
	int error = kstrtoul(value, 0, &address);

	if (error)
		return error;
	if (!brake)
		brake = map_device(address);
	if (!brake)
		return -ENOMEM;
	asm volatile("mrs %0, daif; msr daifset, #0xf" : "=r" (daif) : : "memory");
	asm volatile("mrs %0, cntp_ctl_el0; msr cntp_ctl_el0, xzr; isb" : "=&r" (timer) : : "memory");
	__raw_writeb(1, brake);
	asm volatile("dsb sy; msr cntp_ctl_el0, %0; isb" : : "r" (timer) : "memory");
	asm volatile("msr daif, %0" : : "r" (daif) : "memory");
	return 0;
}

static const struct kernel_param_ops brake_ops = { .set = sf_brake };
module_param_cb(brake, &brake_ops, NULL, 0200);

#endif
