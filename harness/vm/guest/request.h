/* SPDX-License-Identifier: Apache-2.0 */
/* How the agent waits for what it is to do next.  Included by agent.c. */
#ifndef SF_REQUEST_H
#define SF_REQUEST_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mailbox.h"
#include "protocol.h"

/* Between looks for a request the agent sleeps: one that only looks takes a core from whoever checks the last scenario. */
#define LOOKS 100
#define NAP_NS 50000
#define LONGEST_NAP_NS 1000000
#define MOST_ASLEEP_NS 20000000

static int brake = -1; /* a file of the module's: what is written there stops the machine; -1: nothing does */

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
	line[strcspn(line, " ")] = 0; /* its address, as it stands at the beginning of the line */
	if (setenv("SF_BRAKE", line, 1))
		die("the device that stops the machine");
}

/* A deterministic machine stands still here, between two instructions, until there is a request. */
static void await_request(void)
{
	const char *address = getenv("SF_BRAKE");

	if (brake >= 0 && pwrite(brake, address, strlen(address), 0) < 0)
		die("stopping the machine");
}

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Wake-ups cost more than anything else while nothing is asked: sleep for most of what lay between requests lately. */
static sf_u64 next_request(const volatile struct sf_control *control)
{
	static long usual;
	const long begin = now_ns();
	struct timespec nap = { 0, usual / 4 * 3 };
	sf_u64 request;

	for (unsigned int looks = 0; ; looks++) {
		request = __atomic_load_n(&control->request, __ATOMIC_ACQUIRE);
		if (request != control->reply)
			break;
		if (looks < LOOKS)
			continue;
		if (nap.tv_nsec < NAP_NS)
			nap.tv_nsec = NAP_NS;
		nanosleep(&nap, NULL);
		nap.tv_nsec = (now_ns() - begin) / 8;
		if (nap.tv_nsec > LONGEST_NAP_NS)
			nap.tv_nsec = LONGEST_NAP_NS;
	}
	usual += (now_ns() - begin - usual) / 8;
	if (usual > MOST_ASLEEP_NS)
		usual = MOST_ASLEEP_NS;
	return request;
}

#endif
