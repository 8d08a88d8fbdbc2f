# SPDX-License-Identifier: Apache-2.0
"""Compare runs of campaigns on the same target: what each found that no earlier run had, and what is gone.  Pure.

A run's findings are in its summary (:mod:`fuzz.campaign.summary`), which may be of another version: missing keys count
as empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.report.campaign_data import Run

MAX_NAMES = 10_000
"""Maximum number of names of one kind that are read from a summary."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change since the run before: names that no earlier run had, and names that are gone."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Night:
    """A finished run, and its differences to the runs before it; None: it is the first on its target.

    ``problems`` are ids of their first findings, ``errata`` names, ``clusters`` ids of findings.
    """

    run: Run
    problems: Change | None
    errata: Change | None
    clusters: Change | None


@dataclass(frozen=True, slots=True)
class _Before:
    """Names of one kind in the run before, and in all earlier runs."""

    last: frozenset[str]
    ever: frozenset[str]


def nights_of(runs: Iterable[Run]) -> tuple[Night, ...]:
    """Return the finished runs, the oldest first, each compared with the earlier ones on the same target."""
    before: dict[tuple[tuple[str, ...], str], _Before] = {}
    nights = []
    for run in runs:
        if run.summary is None:
            continue
        changes = []
        for key in ("problems", "errata", "findings"):
            now, here = ids_of(run, key), (_subject(run), key)
            earlier = before.get(here)
            changes.append(None if earlier is None else _change(now, earlier))
            before[here] = _Before(now, now if earlier is None else earlier.ever | now)
        nights.append(Night(run, *changes))
    return tuple(nights)


def nights_with(runs: Iterable[Run], ids: Iterable[str]) -> tuple[int, int]:
    """Return the number of finished runs that found at least one of some findings, and the number of finished runs."""
    wanted = frozenset(ids)
    ended = [run for run in runs if run.summary is not None]
    return sum(not wanted.isdisjoint(ids_of(run, "findings")) for run in ended), len(ended)


def nights_with_erratum(runs: Iterable[Run], id_: str) -> tuple[int, int]:
    """Return how many of the runs that ended had an erratum come back, and how many there are."""
    ended = [run for run in runs if run.summary is not None]
    return sum(id_ in ids_of(run, "errata") for run in ended), len(ended)


def ids_of(run: Run, key: str) -> frozenset[str]:
    """Return the ids of a list in a run's summary."""
    rows = (run.summary or {}).get(key)
    some = rows[:MAX_NAMES] if isinstance(rows, list) else []
    return frozenset(str(row["id"])[:200] for row in some if isinstance(row, Mapping) and "id" in row)


def _subject(run: Run) -> tuple[str, ...]:
    asked: Mapping[str, Any] = run.asked
    return tuple(str(asked.get(name)) for name in ("target", "level", "against"))


def _change(now: frozenset[str], earlier: _Before) -> Change:
    return Change(tuple(sorted(now - earlier.ever)), tuple(sorted(earlier.last - now)))
