# SPDX-License-Identifier: Apache-2.0
"""Counters that survive their process: one mapped file per worker, which the campaign reads.

A worker exits from C code or by a signal, so it cannot write a file at its end.  The file has named u64 words, which
are updated in place, and a map of the coverage counters that were hit.  A name gets a slot at its first use; it is
written before the word that marks the slot as used, so that a reader sees a consistent table at any time.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x5354_4154_5346_5A31
SLOTS = 2048
NAME_BYTES = 248
SLOT_BYTES = 8 + NAME_BYTES
COVERAGE_SIZE = 1 << 14
"""Number of coverage counters."""
_HEAD = 16
_MAP_AT = _HEAD + SLOTS * SLOT_BYTES
FILE_SIZE = _MAP_AT + COVERAGE_SIZE

Name = tuple[str, str]
"""A group, and the name of a word in it."""
MINIMUM = "time"
"""The group whose words are points in time: the earliest of several workers is used."""
OVERFLOW: Name = ("overflow", "counted under no name")


class StatsWriter:
    """The counters of one worker, in a new file at ``path``.

    OSError: the disk is full; this cannot occur later, because the whole file is allocated here.
    """

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            # If the disk is full, a write to a hole of a mapped file raises SIGBUS.
            os.posix_fallocate(handle, 0, FILE_SIZE)
            self._memory = mmap.mmap(handle, FILE_SIZE)
        finally:
            os.close(handle)
        self._words = memoryview(self._memory).cast("Q")
        self._at: dict[Name, int] = {}
        self._used = 0
        self._overflow = self._new(OVERFLOW)
        self._words[0] = MAGIC

    def _new(self, name: Name) -> int:
        if self._used == SLOTS:
            return self._overflow
        start = _HEAD + self._used * SLOT_BYTES
        text = "/".join(name).encode()[:NAME_BYTES]
        self._memory[start + 8 : start + 8 + len(text)] = text
        self._used += 1
        self._words[1] = self._used
        return start // 8

    def add(self, group: str, name: str, count: int = 1) -> None:
        """Add to a counter."""
        key = group, name
        at = self._at.get(key)
        if at is None:
            at = self._at[key] = self._new(key)
        self._words[at] += count

    def add_all(self, group: str, counts: Mapping[str, int]) -> None:
        """Add to every counter of a group."""
        for name, count in counts.items():
            self.add(group, name, count)

    def put(self, group: str, name: str, value: int) -> None:
        """Set a word to a value."""
        self.add(group, name, 0)
        self._words[self._at[group, name]] = value

    def get(self, group: str, name: str) -> int:
        """Return a word, 0 if it does not exist."""
        at = self._at.get((group, name))
        return 0 if at is None else self._words[at]

    def saw(self, index: int) -> None:
        """Mark a coverage counter as hit."""
        self._memory[_MAP_AT + index] = 1


@dataclass(frozen=True, slots=True)
class Stats:
    """The counts of one worker, or of all; ``seen`` has a byte 1 for each coverage counter that was hit."""

    words: Mapping[Name, int]
    seen: bytes

    def get(self, group: str, name: str) -> int:
        """Return a word, 0 if it was not counted."""
        return self.words.get((group, name), 0)

    def group(self, group: str) -> dict[str, int]:
        """Return the words of a group that are not 0, the largest first."""
        rows = ((name, value) for (of, name), value in self.words.items() if of == group and value)
        return dict(sorted(rows, key=lambda row: (-row[1], row[0])))

    def total(self, group: str) -> int:
        """Return the sum of a group."""
        return sum(value for (of, _), value in self.words.items() if of == group)

    @property
    def coverage(self) -> int:
        """Return the number of coverage counters that were hit."""
        return self.seen.count(1)


EMPTY = Stats({}, bytes(COVERAGE_SIZE))


def read_stats(path: Path) -> Stats:
    """Read a worker's file, at any time; return empty counts if it does not exist or is not complete yet."""
    try:
        data = path.read_bytes()
    except OSError:
        return EMPTY
    if len(data) != FILE_SIZE or int.from_bytes(data[:8], "little") != MAGIC:
        return EMPTY
    words: dict[Name, int] = {}
    for i in range(min(int.from_bytes(data[8:16], "little"), SLOTS)):
        start = _HEAD + i * SLOT_BYTES
        text = data[start + 8 : start + SLOT_BYTES].rstrip(b"\0").decode(errors="replace")
        group, _, name = text.partition("/")
        words[group, name] = int.from_bytes(data[start : start + 8], "little")
    return Stats(words, data[_MAP_AT:])


def merge(many: Iterable[Stats]) -> Stats:
    """Return the sum of counts; of points in time, the earliest that is set."""
    words: Counter[Name] = Counter()
    seen = 0
    for stats in many:
        for name, value in stats.words.items():
            if name[0] != MINIMUM:
                words[name] += value
            elif value:
                words[name] = min(value, words[name] or value)
        seen |= int.from_bytes(stats.seen, "little")
    return Stats(dict(words), seen.to_bytes(COVERAGE_SIZE, "little"))
