/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that the plugins share: prototypes of the functions of QEMU's plugin interface that they use, the search for the
 * machine's RAM, and the file that they fill.
 */
#ifndef SF_QEMU_PLUGIN_H
#define SF_QEMU_PLUGIN_H

#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * The used part of QEMU's plugin interface; Debian does not package the header.  Source of names and types:
 * include/qemu/qemu-plugin.h, the same in QEMU 7.2 and 10.0 for all of these.
 */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_CB_NO_REGS };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*cb)(unsigned int, void *), int flags,
					  void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_outs(const char *text);

/*
 * QEMU refuses a plugin of another interface version: 7.2 requires 1, 10.0 accepts 2. A function that is new in version
 * 2 (QEMU 9.0) distinguishes them.
 */
extern void qemu_plugin_scoreboard_new(void) __attribute__((weak));
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

__attribute__((constructor)) static void choose_version(void)
{
	if (qemu_plugin_scoreboard_new)
		qemu_plugin_version = 2;
}

/* The address of the machine's RAM in QEMU: the mapping of the file of this inode. */
static unsigned char *find_ram(uint64_t wanted)
{
	char line[512];
	unsigned char *found = NULL;
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && !found && fgets(line, sizeof(line), maps)) {
		uintptr_t begin, end;
		uint64_t offset, inode;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64 " %*s %" SCNu64, &begin, &end, &offset,
			   &inode) == 4 && inode == wanted && offset == 0)
			found = (unsigned char *)begin;
	}
	if (maps)
		fclose(maps);
	return found;
}

static int refuse(const char *why)
{
	qemu_plugin_outs(why);
	return -1;
}

/*
 * Map the file that the argument map=FILE names; it must begin with `magic`. NULL: failed, QEMU has printed the reason.
 */
static void *open_map(int argc, char **argv, size_t size, uint64_t magic)
{
	static const char option[] = "map=";
	void *map;
	int file;

	if (argc != 1 || strncmp(argv[0], option, strlen(option))) {
		refuse("shadowfuzz: expected one argument, map=FILE\n");
		return NULL;
	}
	file = open(argv[0] + strlen(option), O_RDWR | O_CLOEXEC);
	if (file < 0) {
		refuse("shadowfuzz: cannot open the map\n");
		return NULL;
	}
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (map == MAP_FAILED || *(uint64_t *)map != magic) {
		refuse("shadowfuzz: the map is not one of this plugin's build\n");
		return NULL;
	}
	return map;
}

#endif
