// SPDX-License-Identifier: Apache-2.0
/*
 * PID 1 of a recording target: loads the recording module, which watches every user of /dev/kvm, runs the program in
 * /program when the mailbox requests it, and reports its exit status.
 */
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "mailbox.h"

#define MAX_ARGUMENTS 256

/* /program/argv: the arguments, each ending in NUL; the first is the program's path. */
static char **read_arguments(void)
{
	static char text[64 << 10], *arguments[MAX_ARGUMENTS + 1];
	int file = open("/program/argv", O_RDONLY | O_CLOEXEC), count = 0;
	ssize_t size = file < 0 ? -1 : read(file, text, sizeof(text) - 1);

	if (size <= 0)
		die("/program/argv");
	for (char *at = text; at < text + size && count < MAX_ARGUMENTS; at += strlen(at) + 1)
		arguments[count++] = at;
	return arguments;
}

static int run(char **arguments)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		if (chdir("/program"))
			die("/program");
		execv(arguments[0], arguments);
		fprintf(stderr, "shadowfuzz recorder: %s: %s\n", arguments[0], strerror(errno));
		_exit(127); /* as a shell does */
	}
	if (child < 0)
		die("fork");
	for (pid_t ended = 0; ended != child;) { /* PID 1 inherits all orphaned processes */
		ended = wait(&status);
		if (ended < 0 && errno != EINTR)
			die("wait");
	}
	return status;
}

int main(void)
{
	const struct timespec nap = { 0, 1000000 };
	char **arguments = read_arguments();
	volatile struct sf_control *control;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mkdir("/tmp", 0777);
	mknod("/dev/kvm", S_IFCHR | 0600, makedev(10, 232));
	control = (void *)map_mailbox("watch=1");
	__atomic_store_n(&control->magic, SF_MAGIC, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&control->request, __ATOMIC_ACQUIRE))
		nanosleep(&nap, NULL);
	control->exit_status = run(arguments);
	control->status = SF_STATUS_OK;
	__atomic_store_n(&control->reply, control->request, __ATOMIC_RELEASE);
	for (;;)
		pause();
}
