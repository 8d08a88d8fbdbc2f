// SPDX-License-Identifier: Apache-2.0
/*
 * A TCG plugin: copies pKVM's hyp vCPU out of memory that the host's kernel cannot read, at two points: before its
 * registers are loaded into the CPU, and after they were saved.
 *
 * Both points are blocks of the kernel's EL2 text.  A per-CPU variable of EL2 points to the loaded vCPU.
 * hypcopy.h has the file's layout; harness/vm/plugins/hyp_copy.py renders it, creates the file and reads it.
 */
#include <string.h>

#include "qemu_plugin.h"
#include "hypcopy.h"

static struct sf_hyp *map;
static unsigned char *ram;

/* RAM at an address of EL2 or of the host's linear map: the low bits of both are the offset in RAM. */
static const unsigned char *at(uint64_t address, uint64_t size)
{
	uint64_t offset = address & map->ram_mask;

	return address && offset + size <= map->ram_size ? ram + offset : NULL;
}

static uint64_t word(uint64_t address)
{
	const unsigned char *place = at(address, 8);
	uint64_t value = 0;

	if (place)
		memcpy(&value, place, sizeof(value));
	return value;
}

static void copy(uint64_t kind)
{
	uint64_t vcpu = word(word(map->percpu_at) + map->loaded_at);
	const unsigned char *context = at(vcpu + map->context_at, map->context_size);
	unsigned char *out = map->records + map->count * map->record_size;
	uint64_t head[4];

	if (!vcpu || !context) { /* the host runs a vCPU without a hyp copy */
		map->missed++;
		return;
	}
	if (map->count >= map->room) {
		map->dropped++;
		return;
	}
	head[0] = kind;
	head[1] = vcpu;
	head[2] = word(vcpu + map->host_at);
	head[3] = word(vcpu + map->hcr_at);
	memcpy(out, head, sizeof(head));
	memcpy(out + sizeof(head), context, map->context_size);
	map->count++;
}

static void on_block(unsigned int cpu, void *data)
{
	uint64_t offset = (uintptr_t)data;

	(void)cpu;
	if (offset == map->begin_at) {
		map->count = map->dropped = map->missed = 0;
		map->armed = 1;
	} else if (map->armed) {
		copy(offset == map->enter_at ? SF_HYP_ENTER : SF_HYP_LEAVE);
	}
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	const unsigned char *place = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));
	uint64_t offset, i;

	(void)id;
	if (!ram)
		ram = find_ram(map->ram_inode);
	if (!ram || place < ram)
		return;
	offset = place - ram;
	if (offset == map->begin_at || offset == map->enter_at)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)offset);
	for (i = 0; i < map->leave_count; i++)
		if (offset == map->leave_at[i])
			qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS,
							     (void *)(uintptr_t)offset);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
							       char **argv)
{
	(void)info;
	map = open_map(argc, argv, SF_HYP_SIZE, SF_HYP_MAGIC);
	if (!map)
		return -1;
	if (map->leave_count > SF_HYP_LEAVES)
		return refuse("shadowfuzz: the map is not one of this plugin's build\n");
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
