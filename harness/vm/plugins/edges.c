// SPDX-License-Identifier: Apache-2.0
/*
 * A TCG plugin: counts pairs of consecutive translation blocks, in chosen parts of the kernel's text, in a mapped file.
 *
 * A block is identified by its offset in the machine's RAM, not by its virtual address: the text that KVM runs at EL2
 * has another address in every boot.  Blocks outside the chosen text are not counted: after a call out of it the next
 * block is the one after the call.
 *
 * edges.h has the file's layout; harness/vm/plugins/edges.py renders it, creates the file and reads it.
 */
#include <string.h>

#include "qemu_plugin.h"
#include "edges.h"

static struct sf_edges *map;
static unsigned char *ram;

static void on_block(unsigned int cpu, void *data)
{
	uint32_t from = map->last, to = (uint32_t)(uintptr_t)data;
	uint32_t slot = ((from * 0x9E3779B1u) ^ (to * 0x85EBCA6Bu)) >> (32 - SF_EDGE_BITS);

	(void)cpu;
	if (to == map->begin_at) {
		memset(map->counters, 0, sizeof(map->counters));
		map->armed = 1;
		map->begun++;
		map->last = 0;
		return;
	}
	if (!map->armed)
		return;
	map->last = to;
	for (unsigned int tries = 0; tries < SF_EDGE_TRIES; tries++, slot = (slot + 1) % SF_EDGES) {
		struct sf_edge *edge = &map->edges[slot];

		if (!edge->to) {
			*edge = (struct sf_edge){ from, to };
			map->edge_count++;
		}
		if (edge->to == to && edge->from == from) {
			if (map->counters[slot] != 255)
				map->counters[slot]++;
			return;
		}
	}
	map->edges_dropped++;
}

static void note_block(uint32_t start, uint32_t size)
{
	uint32_t slot = (start * 0x9E3779B1u) >> (32 - SF_BLOCK_BITS);

	for (unsigned int tries = 0; tries < SF_BLOCKS; tries++, slot = (slot + 1) % SF_BLOCKS) {
		struct sf_block *block = &map->blocks[slot];

		if (!block->start) {
			*block = (struct sf_block){ start, size };
			map->block_count++;
			return;
		}
		if (block->start == start) {
			if (block->size < size)
				block->size = size;
			return;
		}
	}
	map->blocks_dropped++;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	const unsigned char *at = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));
	uintptr_t offset;

	(void)id;
	if (!ram)
		ram = find_ram(map->ram_inode);
	if (!ram || at < ram) /* code in ROM or a device has no offset in RAM */
		return;
	offset = at - ram;
	for (uint64_t i = 0; i < map->range_count; i++) {
		if (offset < map->ranges[i].begin || offset >= map->ranges[i].end)
			continue;
		note_block(offset, 4 * qemu_plugin_tb_n_insns(tb));
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, (void *)offset);
		return;
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
							       char **argv)
{
	(void)info;
	map = open_map(argc, argv, sizeof(*map), SF_EDGES_MAGIC);
	if (!map)
		return -1;
	if (map->range_count > SF_RANGES)
		return refuse("shadowfuzz: the map is not one of this plugin's build\n");
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
