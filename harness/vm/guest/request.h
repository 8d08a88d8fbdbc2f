/* SPDX-License-Identifier: Apache-2.0 */
/* Wait for requests of the host and signal replies.  Included by agent.c. */
#ifndef SF_REQUEST_H
#define SF_REQUEST_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include "mailbox.h"
#include "protocol.h"

#define SERIAL_MAJOR 4 /* Documentation/admin-guide/devices.txt */
#define FIRST_8250 64

static int bell = -1; /* a serial port: input signals a request, output signals a reply */
static int brake = -1; /* a parameter file of the module: a write stops the machine; -1: not used */

static void find_brake(void)
{
	int enable = open("/sys/bus/pci/devices/0000:00:01.0/enable", O_WRONLY);
	FILE *bars = fopen("/sys/bus/pci/devices/0000:00:01.0/resource", "r");
	char line[64] = "";

	brake = open("/sys/module/probe/parameters/brake", O_WRONLY | O_CLOEXEC);
	if (enable < 0 || !bars || brake < 0 || write(enable, "1", 1) != 1 || !fgets(line, sizeof(line), bars))
		die("the device that stops the machine");
	fclose(bars);
	close(enable);
	line[strcspn(line, " ")] = 0; /* its address is the first word of the line */
	if (setenv("SF_BRAKE", line, 1))
		die("the device that stops the machine");
}

static void find_bell(void)
{
	struct termios raw;

	mknod("/bell", S_IFCHR | 0600, makedev(SERIAL_MAJOR, FIRST_8250));
	bell = open("/bell", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (bell < 0 || tcgetattr(bell, &raw))
		die("the serial port that brings requests");
	cfmakeraw(&raw);
	if (tcsetattr(bell, TCSANOW, &raw))
		die("the serial port that brings requests");
}

/* A deterministic machine is stopped here, between two instructions, until there is a request. */
static void await_request(void)
{
	const char *address = getenv("SF_BRAKE");
	char rung[64];

	if (brake < 0 ? read(bell, rung, sizeof(rung)) <= 0 : pwrite(brake, address, strlen(address), 0) < 0)
		die("waiting for a request");
}

/*
 * QEMU saves the EL1 timers of a machine, not those of EL2, which a VHE host uses (target/arm/machine.c): in a clone the
 * tick that was due never comes, and nothing ends a guest that runs away.  A timer whose time has passed comes before
 * every other one, so that the kernel sets the CPU's timer again.  Without CONFIG_TIMERFD it is as it was.
 */
static void restart_tick(void)
{
	struct itimerspec passed = {.it_value = {.tv_nsec = 1}};
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

	if (timer < 0)
		return;
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &passed, NULL);
	close(timer);
}

static void ring(void)
{
	if (bell >= 0 && write(bell, "", 1) != 1)
		die("telling of a reply");
}

#endif
