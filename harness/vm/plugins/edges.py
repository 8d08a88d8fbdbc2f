# SPDX-License-Identifier: Apache-2.0
"""Define and decode the map in which the plugin counts edges: one shared file, its layout as rows.

An edge is a pair of translation blocks in KVM's text, one executed after the other; a block is identified by the offset
of its first instruction in the machine's RAM, which is equal in all boots.  The plugin starts to count when a scenario
begins (the agent calls the function ``begin_at``, see ``op_begin`` in agent.c) and stops when the host clears
``armed``, so that a map covers scenarios only, not the boot.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.protocol import Word
from harness.vm.plugins.plugin import Words, struct_members

MAGIC = 0x3147_4445_5A46_4853  # "SHFZEDG1"
EDGE_BITS, BLOCK_BITS, EDGE_TRIES = 14, 14, 64
EDGES, BLOCKS, RANGES = 1 << EDGE_BITS, 1 << BLOCK_BITS, 8
"""Number of places for edges (and their counters), for blocks, for ranges of text.  The corpus uses 3 200 edges and 3
500 blocks."""

Edge = tuple[int, int]
"""Offsets in RAM of the previous block (0: none) and of the block."""

WORDS: tuple[Word, ...] = (
    Word("magic", "SF_EDGES_MAGIC"),
    Word("ram_inode", "host: inode of the file that is the machine's RAM"),
    Word("begin_at", "host: offset of the block whose execution begins a scenario"),
    Word("range_count", "host: number of ranges"),
    Word("armed", "plugin: 1 from the begin of a scenario; host: 0 after its end"),
    Word("last", "the block that was executed last, 0: none"),
    Word("begun", "scenarios that began"),
    Word("edge_count", "places of edges in use"),
    Word("edges_dropped", "number of edges that were dropped: no free place"),
    Word("block_count", "places of blocks in use"),
    Word("blocks_dropped", "number of blocks that were dropped: no free place"),
)
_RANGES_AT = 8 * len(WORDS)
COUNTERS_AT = 4096
_EDGES_AT = COUNTERS_AT + EDGES
_BLOCKS_AT = _EDGES_AT + 8 * EDGES
SIZE = _BLOCKS_AT + 8 * BLOCKS


def render() -> str:
    """Return the text of ``edges.h`` for the plugin."""
    return f"""\
/* Generated from harness/vm/plugins/edges.py: do not edit. */
#define SF_EDGES_MAGIC {MAGIC:#x}u
#define SF_EDGE_BITS {EDGE_BITS}
#define SF_EDGE_TRIES {EDGE_TRIES}
#define SF_EDGES {EDGES}
#define SF_BLOCK_BITS {BLOCK_BITS}
#define SF_BLOCKS {BLOCKS}
#define SF_RANGES {RANGES}
struct sf_edge {{ uint32_t from, to; }};
struct sf_block {{ uint32_t start, size; }};
struct sf_edges {{
{struct_members(WORDS)}
\tstruct {{ uint64_t begin, end; }} ranges[SF_RANGES];
\tuint8_t counters[SF_EDGES] __attribute__((aligned({COUNTERS_AT})));
\tstruct sf_edge edges[SF_EDGES];
\tstruct sf_block blocks[SF_BLOCKS];
}};
_Static_assert(offsetof(struct sf_edges, ranges) == {_RANGES_AT}, "layout");
_Static_assert(offsetof(struct sf_edges, counters) == {COUNTERS_AT}, "layout");
_Static_assert(offsetof(struct sf_edges, blocks) == {_BLOCKS_AT}, "layout");
"""


@dataclass(frozen=True, slots=True)
class Reached:
    """The content of a map: how often each edge was executed (at most 255), and the size in bytes of each block."""

    edges: Mapping[Edge, int]
    blocks: Mapping[int, int]


def decode(data: bytes | mmap.mmap, *, taken: bool = True) -> Reached:
    """Decode a map; ``taken``: only edges whose counter is not 0, those of the last scenario.

    ValueError: it is not a map of this build.
    """
    if len(data) != SIZE or int.from_bytes(data[:8], "little") != MAGIC:
        raise ValueError("not a map of edges, or one of another version")
    counters = bytes(data[COUNTERS_AT:_EDGES_AT])
    edges: dict[Edge, int] = {}
    for slot, (from_, to) in enumerate(struct.iter_unpack("<II", data[_EDGES_AT:_BLOCKS_AT])):
        if to and (counters[slot] or not taken):
            edges[from_, to] = counters[slot]
    blocks = {start: size for start, size in struct.iter_unpack("<II", data[_BLOCKS_AT:SIZE]) if start}
    return Reached(edges, blocks)


def read_edges(path: Path) -> frozenset[Edge]:
    """Return every edge that a map's file ever held; none if the file is missing or incomplete."""
    try:
        return frozenset(decode(path.read_bytes(), taken=False).edges)
    except (OSError, ValueError):
        return frozenset()


class EdgeMap(Words):
    """One map, for one machine at a time; later machines reuse it, so that an edge keeps its place.

    ``path``: the map is this file, which other processes can read; else it is anonymous.  SetupError: no space for it.
    """

    def __init__(self, path: Path | None = None) -> None:
        try:
            if path is None:
                fd = os.memfd_create("shadowfuzz-edges")
            else:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.posix_fallocate(fd, 0, SIZE)
            memory = mmap.mmap(fd, SIZE)
        except OSError as error:
            raise SetupError(f"cannot create the map of edges {path or ''}: {error.strerror}") from error
        super().__init__(fd, memory, WORDS)
        self.put("magic", MAGIC)

    def describe(self, ranges: Sequence[tuple[int, int]], begin_at: int) -> None:
        """Set the ranges (offsets in RAM) that are counted, and the offset of the block that begins a scenario."""
        if len(ranges) > RANGES:
            raise ValueError(f"{len(ranges)} ranges, a map has room for {RANGES}")
        for number, (begin, end) in enumerate(ranges):
            struct.pack_into("<QQ", self._memory, _RANGES_AT + 16 * number, begin, end)
        self.put("range_count", len(ranges))
        self.put("begin_at", begin_at)

    def counters(self) -> bytes:
        """Return the counters of the last scenario, one byte for each place."""
        return self._memory[COUNTERS_AT:_EDGES_AT]

    def edge_at(self, place: int) -> Edge:
        """Return the edge that has a place, for good; (0, 0): none yet."""
        from_, to = struct.unpack_from("<II", self._memory, _EDGES_AT + 8 * place)
        return int(from_), int(to)

    def reached(self) -> Reached:
        """Return the edges and blocks that the last scenario executed."""
        return decode(self._memory)
