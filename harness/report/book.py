# SPDX-License-Identifier: Apache-2.0
"""All that a report tells, as values: findings, runs, the catalogue with its hits, the model's branches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.known import Known
from harness.report.story import Story

TAKEN, NOT_TAKEN = "=yes", "=no"
"""What a branch's name ends with in the counts of a campaign."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How a campaign stood after ``second`` seconds; counts since its start, ``clusters`` unexplained ones."""

    second: int
    scenarios: int
    checked_exits: int
    coverage: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Run:
    """One campaign; ``summary`` is :class:`fuzz.summary.Summary` as JSON, None if it was killed before its end."""

    id: str
    started: str
    asked: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    samples: tuple[Sample, ...]

    def number(self, key: str) -> float:
        """Return a number of the summary; of one that was never written, the last sample's, or 0."""
        if self.summary is not None:
            value = self.summary.get(key)
            return value if isinstance(value, int | float) else 0
        return getattr(self.samples[-1], key, 0) if self.samples else 0

    def counts(self, key: str) -> Mapping[str, int]:
        """Return a table of the summary."""
        table = (self.summary or {}).get(key)
        return table if isinstance(table, dict) else {}


@dataclass(frozen=True, slots=True)
class Branch:
    """A decision of the model: in how many workers of all runs it was seen to go which way."""

    name: str
    yes: int
    no: int

    @property
    def function(self) -> str:
        """The function that decides."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Book:
    """What a report tells; ``made`` is when, ISO 8601; ``known`` the catalogue's entries with how often each helped."""

    made: str
    version: str
    stories: tuple[Story, ...]
    runs: tuple[Run, ...]
    known: tuple[tuple[Known, int], ...]
    branches: tuple[Branch, ...]


def known_hits(entries: Iterable[Known], runs: Iterable[Run]) -> tuple[tuple[Known, int], ...]:
    """Return the catalogue's entries, each once, with their hits in all runs, the most frequent first."""
    hits: Counter[str] = Counter()
    for run in runs:
        hits.update(run.counts("known_by_entry"))
    by_id = {entry.id: entry for entry in entries}
    return tuple(sorted(((e, hits[e.id]) for e in by_id.values()), key=lambda item: (-item[1], item[0].id)))


def branches(runs: Iterable[Run]) -> tuple[Branch, ...]:
    """Return the model's decisions that were seen, by name."""
    seen: Counter[str] = Counter()
    for run in runs:
        seen.update(run.counts("branches"))
    names = sorted({name.rpartition("=")[0] for name in seen})
    return tuple(Branch(name, seen[name + TAKEN], seen[name + NOT_TAKEN]) for name in names)
