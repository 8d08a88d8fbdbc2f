# SPDX-License-Identifier: Apache-2.0
"""The map of edges: decoding of synthetic bytes; tests/vm tests that the plugin writes such bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.vm.plugins import edges
from harness.vm.plugins.edges import EdgeMap, Reached, decode, read_edges


def a_map(rows: dict[int, tuple[int, int, int]], blocks: dict[int, int]) -> bytes:
    """Return a map with (from, to, count) at places, and blocks with their sizes."""
    data = bytearray(edges.SIZE)
    struct.pack_into("<Q", data, 0, edges.MAGIC)
    for place, (before, block, count) in rows.items():
        data[edges.COUNTERS_AT + place] = count
        struct.pack_into("<II", data, edges.COUNTERS_AT + edges.EDGES + 8 * place, before, block)
    for place, (start, size) in enumerate(blocks.items()):
        struct.pack_into("<II", data, edges.COUNTERS_AT + 9 * edges.EDGES + 8 * place, start, size)
    return bytes(data)


ROWS = {0: (0, 0x24_5000, 1), 7: (0x24_5000, 0x24_5010, 255), edges.EDGES - 1: (0x24_5010, 0x24_5000, 0)}
BLOCKS = {0x24_5000: 16, 0x24_5010: 4}


def test_only_edges_of_the_last_scenario_are_taken() -> None:
    assert decode(a_map(ROWS, BLOCKS)) == Reached({(0, 0x24_5000): 1, (0x24_5000, 0x24_5010): 255}, BLOCKS)


def test_a_file_has_all_edges_ever_recorded(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(a_map(ROWS, BLOCKS))
    assert read_edges(path) == {(0, 0x24_5000), (0x24_5000, 0x24_5010), (0x24_5010, 0x24_5000)}


@pytest.mark.parametrize("data", [b"", bytes(edges.SIZE), a_map(ROWS, BLOCKS)[:-1], b"x" + a_map(ROWS, BLOCKS)[1:]])
def test_what_is_no_map_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a map"):
        decode(data)
    path = tmp_path / "map"
    path.write_bytes(data)
    assert read_edges(path) == frozenset()
    assert read_edges(tmp_path / "not there") == frozenset()


def test_the_host_writes_what_the_plugin_reads(tmp_path: Path) -> None:
    map_ = EdgeMap(tmp_path / "map")
    map_.describe([(0x10, 0x20), (0x30, 0x40)], 0x38)
    map_.attach(4711)
    names = ("magic", "ram_inode", "begin_at", "range_count", "armed")
    assert [map_.word(name) for name in names] == [edges.MAGIC, 4711, 0x38, 2, 0]
    assert map_.counters() == bytes(edges.EDGES)
    with pytest.raises(ValueError, match="9 ranges"):
        map_.describe([(0, 1)] * 9, 0)
    map_.close()
