/* SPDX-License-Identifier: Apache-2.0 */
/* Write a flattened device tree sequentially.  Format: Devicetree Specification 0.4, chapter 5. */
#ifndef FDT_H
#define FDT_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define FDT_ROOM 8192
#define FDT_STRINGS 1024

struct fdt {
	unsigned char tree[FDT_ROOM];
	char strings[FDT_STRINGS];
	uint32_t size, strings_size;
};

static void fdt_cell(struct fdt *f, uint32_t value)
{
	value = htobe32(value);
	memcpy(f->tree + f->size, &value, 4);
	f->size += 4;
}

static void fdt_bytes(struct fdt *f, const void *data, uint32_t size)
{
	memcpy(f->tree + f->size, data, size);
	f->size = (f->size + size + 3) & ~3u;
}

static void fdt_begin(struct fdt *f, const char *name)
{
	fdt_cell(f, 1);
	fdt_bytes(f, name, strlen(name) + 1);
}

static void fdt_end(struct fdt *f)
{
	fdt_cell(f, 2);
}

static uint32_t fdt_name(struct fdt *f, const char *name)
{
	uint32_t at = 0;

	for (; at < f->strings_size; at += strlen(f->strings + at) + 1)
		if (!strcmp(f->strings + at, name))
			return at;
	strcpy(f->strings + at, name);
	f->strings_size += strlen(name) + 1;
	return at;
}

static void fdt_data(struct fdt *f, const char *name, const void *data, uint32_t size)
{
	fdt_cell(f, 3);
	fdt_cell(f, size);
	fdt_cell(f, fdt_name(f, name));
	fdt_bytes(f, data, size);
}

static void fdt_text(struct fdt *f, const char *name, const char *text)
{
	fdt_data(f, name, text, strlen(text) + 1);
}

#define fdt_cells(f, name, ...) \
	do { \
		const uint32_t list[] = { __VA_ARGS__ }; \
		fdt_cell(f, 3); \
		fdt_cell(f, sizeof(list)); \
		fdt_cell(f, fdt_name(f, name)); \
		for (unsigned long i_ = 0; i_ < sizeof(list) / 4; i_++) \
			fdt_cell(f, list[i_]); \
	} while (0)

/* An address and a size, two cells each. */
#define FDT_RANGE(base, size) (uint32_t)((uint64_t)(base) >> 32), (uint32_t)(base), \
	(uint32_t)((uint64_t)(size) >> 32), (uint32_t)(size)

/* Write header, an empty list of reservations, tree and strings to `out`; return their size. */
static uint32_t fdt_finish(struct fdt *f, unsigned char *out)
{
	const uint32_t reserved = 40, tree = reserved + 16;
	uint32_t strings, total, header[10];

	fdt_cell(f, 9);
	strings = tree + f->size;
	total = strings + f->strings_size;
	header[0] = 0xd00dfeed;
	header[1] = total;
	header[2] = tree;
	header[3] = strings;
	header[4] = reserved;
	header[5] = 17;
	header[6] = 16;
	header[7] = 0;
	header[8] = f->strings_size;
	header[9] = f->size;
	for (int i = 0; i < 10; i++)
		header[i] = htobe32(header[i]);
	memset(out, 0, tree);
	memcpy(out, header, sizeof(header));
	memcpy(out + tree, f->tree, f->size);
	memcpy(out + strings, f->strings, f->strings_size);
	return total;
}

#endif
