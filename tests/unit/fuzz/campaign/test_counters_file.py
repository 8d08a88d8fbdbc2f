# SPDX-License-Identifier: Apache-2.0
"""Counters survive the end of their process."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import COVERAGE_SIZE, EMPTY, SLOTS, StatsWriter, merge, read_stats


def test_counters_are_read_while_they_are_written(tmp_path: Path) -> None:
    writer = StatsWriter(tmp_path / "s")
    writer.add("exits", "HVC64", 3)
    writer.add("exits", "HVC64")
    writer.add_all("exits", {"WFX": 7, "a/b \N{SNOWMAN}": 1})
    writer.put("time", "ready", 5)
    writer.saw(0)
    writer.saw(COVERAGE_SIZE - 1)
    stats = read_stats(tmp_path / "s")
    assert stats.group("exits") == {"WFX": 7, "HVC64": 4, "a/b \N{SNOWMAN}": 1}
    assert (stats.total("exits"), stats.get("time", "ready"), stats.coverage) == (12, 5, 2)
    assert writer.get("exits", "HVC64") == 4 and writer.get("exits", "none") == 0


def test_counters_survive_a_killed_process(tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from fuzz.campaign.counters_file import StatsWriter
        stats = StatsWriter(Path({str(tmp_path / "s")!r}))
        for i in range(1234):
            stats.add("count", "scenarios")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode == -signal.SIGKILL
    assert read_stats(tmp_path / "s").get("count", "scenarios") == 1234


def test_more_names_than_room_are_counted_without_a_name(tmp_path: Path) -> None:
    writer = StatsWriter(tmp_path / "s")
    for i in range(SLOTS + 10):
        writer.add("unchecked", f"reason {i} " + "x" * 300)
    stats = read_stats(tmp_path / "s")
    assert stats.total("unchecked") + stats.total("overflow") == SLOTS + 10
    assert stats.total("overflow") == 11


@pytest.mark.parametrize("data", [b"", b"short", bytes(600_000)])
def test_a_file_of_something_else_counts_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    assert read_stats(tmp_path / "s") == EMPTY == read_stats(tmp_path / "absent")


def test_merge_adds_counts_and_takes_the_first_time(tmp_path: Path) -> None:
    for name, ready, index in (("a", 9, 1), ("b", 4, 2), ("c", 0, 1)):
        writer = StatsWriter(tmp_path / name)
        writer.add("exits", "WFX", 2)
        writer.put("time", "ready", ready)
        writer.saw(index)
    stats = merge(read_stats(tmp_path / name) for name in "abc")
    assert (stats.get("exits", "WFX"), stats.get("time", "ready"), stats.coverage) == (6, 4, 2)
