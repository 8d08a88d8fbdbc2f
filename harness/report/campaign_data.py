# SPDX-License-Identifier: Apache-2.0
"""All that a report tells, as values: findings, runs, the catalogue with its hits, the model's branches."""

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
"""What a branch's name ends with in the counts of a campaign."""
MAX_COUNT = 1 << 62
"""A number of a summary is less, or none at all."""


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
    """One campaign; ``summary`` is :class:`fuzz.campaign.summary.Summary` as JSON, None if it was killed before its
    end.

    ``live`` has tables of the summary as far as they are known of a campaign that runs, or was killed.
    """

    id: str
    started: str
    asked: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    samples: tuple[Sample, ...]
    live: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def number(self, key: str) -> float:
        """Return a number of the summary; of one that was never written, the last sample's, or 0."""
        if self.summary is not None:
            value = self.summary.get(key)
            return value if isinstance(value, int | float) and abs(value) < MAX_COUNT else 0
        return getattr(self.samples[-1], key, 0) if self.samples else 0

    def counts(self, key: str) -> Mapping[str, int]:
        """Return a table of the summary; what is no table of numbers is none."""
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
    """A decision of the model: at how many checked exits of all runs it went which way.

    ``why_not`` says of ways that were never taken whether that is possible at all.
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
class Said:
    """What somebody says of a finding: its status, who looks at it, a note."""

    status: str
    assignee: str
    note: str


@dataclass(frozen=True, slots=True)
class Book:
    """What a report tells; ``made`` is when, ISO 8601; ``known`` the catalogue's entries with how often each helped.

    ``problems`` and ``errata`` are the confirmed ones of ``stories``; ``errata_words`` say what an erratum does, by id.
    ``releases`` are the kernels that were measured to show an erratum, by its id and by mode of KVM
    (:class:`harness.findings.regressions.Regression`).  ``said`` is what people say of findings, by id; ``unreadable``
    has a line for each row that could not be read.  ``out`` is the campaign's directory, for commands.  ``nodes`` are
    those of campaigns on many machines.
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
    said: Mapping[str, Said] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    out: str = ""
    nodes: tuple[NodeRow, ...] = ()


def known_hits(entries: Iterable[Known], runs: Iterable[Run]) -> tuple[tuple[Known, int], ...]:
    """Return the catalogue's entries, each once, with their hits in all runs, the most frequent first."""
    hits: Counter[str] = Counter()
    for run in runs:
        hits.update(run.counts("known_by_entry"))
    by_id = {entry.id: entry for entry in entries}
    return tuple(sorted(((e, hits[e.id]) for e in by_id.values()), key=lambda item: (-item[1], item[0].id)))


def branches(runs: Iterable[Run], possible: Iterable[tuple[str, bool]] = ()) -> tuple[Branch, ...]:
    """Return the model's decisions, by name; ``possible`` are all ways that there are, taken or not."""
    seen: Counter[str] = Counter()
    for run in runs:
        seen.update(run.counts("branches"))
    ways = {f"{name}{TAKEN if taken else NOT_TAKEN}" for name, taken in possible}
    names = sorted({name.rpartition("=")[0] for name in {*seen, *ways}})
    return tuple(Branch(name, seen[name + TAKEN], seen[name + NOT_TAKEN], _why_not(name, seen, ways)) for name in names)


def _why_not(name: str, seen: Mapping[str, int], possible: Set[str]) -> str:
    missing = [way for way in (name + TAKEN, name + NOT_TAKEN) if way in possible and not seen[way]]
    rows = [row for row in NEVER_TAKEN for way in missing if fnmatchcase(way, row.what)]
    return "; ".join(dict.fromkeys(row.why for row in rows)) or ("not yet, nothing forbids it" if missing else "")
