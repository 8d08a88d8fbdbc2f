# SPDX-License-Identifier: Apache-2.0
"""The map in which the plugin counts edges: one shared file, its layout as rows, its decoding.

An edge is a pair of translation blocks in KVM's text, one executed after the other; a block is known by the offset of
its first instruction in the machine's RAM, which no boot changes.  The plugin begins to count when a scenario begins
(the agent runs into the function ``begin_at``, see ``op_begin`` in agent.c) and stops when the host says so, so that a
map holds what scenarios did, not how the machine booted.
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
"""Places for edges (and so counters), for blocks, for ranges of text.  The corpus takes 3 200 and 3 500 of them."""

Edge = tuple[int, int]
"""Offsets in RAM of the block before (0: none) and the block."""

WORDS: tuple[Word, ...] = (
    Word("magic", "SF_EDGES_MAGIC"),
    Word("ram_inode", "host: inode of the file that is the machine's RAM"),
    Word("begin_at", "host: offset of the block at which a scenario begins"),
    Word("range_count", "host: how many ranges there are"),
    Word("armed", "plugin: 1 from the begin of a scenario; host: 0 behind its end"),
    Word("last", "the block that was executed last, 0 for none"),
    Word("begun", "scenarios that began"),
    Word("edge_count", "places of edges that are taken"),
    Word("edges_dropped", "how often an edge found no place"),
    Word("block_count", "places of blocks that are taken"),
    Word("blocks_dropped", "how often a block found no place"),
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
    """What a map holds: how often each edge was taken (at most 255), and the size in bytes of each block seen."""

    edges: Mapping[Edge, int]
    blocks: Mapping[int, int]


def decode(data: bytes | mmap.mmap, *, taken: bool = True) -> Reached:
    """Return what is in a map; ``taken``: only edges whose counter is not 0, those of the last scenario.

    ValueError: it is no map of this build.
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
    """Return every edge that a map's file ever held, at any time; none if the file is not there or not complete."""
    try:
        return frozenset(decode(path.read_bytes(), taken=False).edges)
    except (OSError, ValueError):
        return frozenset()


class EdgeMap(Words):
    """One map, for one machine at a time; it outlives the machine, so that an edge keeps its place.

    ``path``: the map is this file, for others to read; else it is anonymous.  SetupError: there is no room for it.
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
        """Say what is counted: ranges of offsets in RAM, and where a scenario begins."""
        if len(ranges) > RANGES:
            raise ValueError(f"{len(ranges)} ranges, a map has room for {RANGES}")
        for number, (begin, end) in enumerate(ranges):
            struct.pack_into("<QQ", self._memory, _RANGES_AT + 16 * number, begin, end)
        self.put("range_count", len(ranges))
        self.put("begin_at", begin_at)

    def counters(self) -> bytes:
        """Return the counters of the scenario that ran last, one byte for each place."""
        return self._memory[COUNTERS_AT:_EDGES_AT]

    def edge_at(self, place: int) -> Edge:
        """Return the edge that has a place, for good; (0, 0): none yet."""
        from_, to = struct.unpack_from("<II", self._memory, _EDGES_AT + 8 * place)
        return int(from_), int(to)

    def reached(self) -> Reached:
        """Return what the scenario that ran last reached."""
        return decode(self._memory)
