/* SPDX-License-Identifier: Apache-2.0 */
/* The first steps of every PID 1 of a target: map the mailbox, and load the recording module, which also maps it. */
#ifndef SF_MAILBOX_H
#define SF_MAILBOX_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "protocol.h"

static void die(const char *what)
{
	fprintf(stderr, "shadowfuzz agent: %s: %s\n", what, strerror(errno));
	tcdrain(STDERR_FILENO); /* a panic does not wait for buffered output of a terminal */
	_exit(1); /* PID 1: the kernel panics, QEMU stops */
}

/* Returns the address of the mailbox; `parameters` are further parameters of the module. */
static unsigned char *map_mailbox(const char *parameters)
{
	const char *base = getenv("SF_BASE"), *size = getenv("SF_SIZE");
	char all[160];
	void *shared;
	int memory, module;

	if (!base || !size)
		die("SF_BASE and SF_SIZE must be on the kernel command line");
	mknod("/mem", S_IFCHR | 0600, makedev(1, 1));
	memory = open("/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	if (memory < 0)
		die("/dev/mem");
	shared = mmap(NULL, strtoul(size, NULL, 0), PROT_READ | PROT_WRITE, MAP_SHARED, memory, strtoul(base, NULL, 0));
	if (shared == MAP_FAILED)
		die("mapping the mailbox");
	module = open("/probe.ko", O_RDONLY);
	snprintf(all, sizeof(all), "shared_base=%s shared_size=%s %s", base, size, parameters);
	if (module < 0 || syscall(SYS_finit_module, module, all, 0))
		die("loading probe.ko");
	close(module);
	return shared;
}

#endif
