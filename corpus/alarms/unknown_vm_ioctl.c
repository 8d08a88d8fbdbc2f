// SPDX-License-Identifier: Apache-2.0
/* An ioctl that no VM has.  Required: it fails (ENOTTY or EINVAL), and the host's log stays quiet. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(void)
{
	int vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0);

	/* A program may print what it likes: it is no line of the kernel's. */
	printf("WARNING: a.c:1 at made_up+0x1/0x2, CPU#0: x/1\n");
	return vm < 0 || ioctl(vm, _IO(KVMIO, 0xf7)) != -1;
}
