// SPDX-License-Identifier: Apache-2.0
/* PID 1 of the Linux guest: print that user space is reached, and power off. */
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <unistd.h>

int main(void)
{
	struct utsname name;

	uname(&name);
	printf("guest: user space of Linux %s reached, %ld CPUs\n", name.release, sysconf(_SC_NPROCESSORS_ONLN));
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 1;
}
