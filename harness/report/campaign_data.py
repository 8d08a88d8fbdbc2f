# SPDX-License-Identifier: Apache-2.0
"""Define the values that a report shows: findings, runs, the catalogue with its hits, the model's branches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from harness.coverage.kvm_handlers import NEVER_TAKEN
from harness.findings.known_divergences import Known
from harness.report.finding_data import Story
from harness.report.problem_data import ErratumStory, ProblemStory

TAKEN, NOT_TAKEN = "=yes", "=no"
"""Suffixes of a branch's name in the counts of a campaign."""
MAX_COUNT = 1 << 62
"""Upper bound of a number in a summary; a larger one is invalid."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of a campaign after ``second`` seconds: counts since its start; ``clusters`` are unexplained."""

    second: int
    scenarios: int
    checked_exits: int
    coverage: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Run:
    """One campaign; ``summary`` is :class:`fuzz.campaign.summary.Summary` as JSON, None if it was killed before its
    end.

    ``live`` has the known tables of the summary of a campaign that is running, or was killed.
    """

    id: str
    started: str
    asked: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    samples: tuple[Sample, ...]
    live: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def number(self, key: str) -> float:
        """Return a number of the summary; without a summary, that of the last sample, or 0."""
        if self.summary is not None:
            value = self.summary.get(key)
            return value if isinstance(value, int | float) and abs(value) < MAX_COUNT else 0
        return getattr(self.samples[-1], key, 0) if self.samples else 0

    def counts(self, key: str) -> Mapping[str, int]:
        """Return a table of the summary; empty if it is not a table of numbers."""
        table = (self.live if self.summary is None else self.summary).get(key)
        return {name: n for name, n in table.items() if isinstance(n, int)} if isinstance(table, dict) else {}


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of ``run``, a campaign on many machines.

    ``state`` is one word or a sentence.  ``seen`` is when it last said something, ISO 8601.  ``rate`` are checked
    exits a second lately; the other numbers count since it joined.
    """

    run: str
    node: str
    host: str
    target: str
    state: str
    seen: str
    workers: int
    scenarios: int
    checked_exits: int
    coverage: int
    rate: int


@dataclass(frozen=True, slots=True)
class Branch:
    """A decision of the model, with the number of checked exits of all runs at which it was true and false.

    ``why_not`` says, for an outcome that never occurred, whether it is possible.
    """

    name: str
    yes: int
    no: int
    why_not: str = ""

    @property
    def function(self) -> str:
        """The function that decides."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Annotation:
    """A user's annotation of a finding: its status, its assignee, a note."""

    status: str
    assignee: str
    note: str


@dataclass(frozen=True, slots=True)
class Book:
    """The content of a report; ``made`` is its time, ISO 8601; ``known`` are the catalogue's entries with their hits.

    ``problems`` and ``errata`` are the confirmed ones of ``stories``; ``errata_words`` describe the effect of an
    erratum, by id. ``releases`` are the kernels that were measured to have an erratum, by its id and by mode of KVM
    (:class:`harness.findings.regressions.Regression`).  ``said`` are users' annotations of findings, by id;
    ``unreadable`` has a line for each row that could not be read.  ``out`` is the campaign's directory, for commands.
    ``nodes`` are those of campaigns on many machines.
    """

    made: str
    version: str
    stories: tuple[Story, ...]
    runs: tuple[Run, ...]
    known: tuple[tuple[Known, int], ...]
    branches: tuple[Branch, ...]
    problems: tuple[ProblemStory, ...] = ()
    errata: tuple[ErratumStory, ...] = ()
    errata_words: Mapping[str, str] = field(default_factory=dict)
    releases: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    said: Mapping[str, Annotation] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    out: str = ""
    nodes: tuple[NodeRow, ...] = ()


def known_hits(entries: Iterable[Known], runs: Iterable[Run]) -> tuple[tuple[Known, int], ...]:
    """Return the catalogue's entries, each once, with its hits in all runs, the most frequent first."""
    hits: Counter[str] = Counter()
    for run in runs:
        hits.update(run.counts("known_by_entry"))
    by_id = {entry.id: entry for entry in entries}
    return tuple(sorted(((e, hits[e.id]) for e in by_id.values()), key=lambda item: (-item[1], item[0].id)))


def branches(runs: Iterable[Run], possible: Iterable[tuple[str, bool]] = ()) -> tuple[Branch, ...]:
    """Return the model's decisions, by name; ``possible`` are all their possible outcomes."""
    seen: Counter[str] = Counter()
    for run in runs:
        seen.update(run.counts("branches"))
    ways = {f"{name}{TAKEN if taken else NOT_TAKEN}" for name, taken in possible}
    names = sorted({name.rpartition("=")[0] for name in {*seen, *ways}})
    return tuple(Branch(name, seen[name + TAKEN], seen[name + NOT_TAKEN], _why_not(name, seen, ways)) for name in names)


def _why_not(name: str, seen: Mapping[str, int], possible: Set[str]) -> str:
    missing = [way for way in (name + TAKEN, name + NOT_TAKEN) if way in possible and not seen[way]]
    rows = [row for row in NEVER_TAKEN for way in missing if fnmatchcase(way, row.what)]
    return "; ".join(dict.fromkeys(row.why for row in rows)) or ("not yet, but possible" if missing else "")
