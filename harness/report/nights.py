# SPDX-License-Identifier: Apache-2.0
"""Runs of campaigns compared: what each found that no run before it on the same target had, and what is gone.  Pure.

What a run found is in its summary (:mod:`fuzz.campaign.summary`), as text that may be of another version: what is not
there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.report.campaign_data import Run

MAX_NAMES = 10_000
"""So many of a kind are read of one summary."""


@dataclass(frozen=True, slots=True)
class Change:
    """What changed from the run before: names that are there and were in no run before, and names that are gone."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Night:
    """A run that ended, and how it differs from those before it; None: there was none on the same target.

    ``problems`` are ids of the findings that lead them, ``errata`` names, ``clusters`` ids of findings.
    """

    run: Run
    problems: Change | None
    errata: Change | None
    clusters: Change | None


@dataclass(frozen=True, slots=True)
class _Before:
    """Names of one kind in the run before, and in any run before."""

    last: frozenset[str]
    ever: frozenset[str]


def nights_of(runs: Iterable[Run]) -> tuple[Night, ...]:
    """Return the runs that ended, the oldest first, each compared with those before it on the same target."""
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
    """Return how many of the runs that ended found one of some findings, and how many there are."""
    wanted = frozenset(ids)
    ended = [run for run in runs if run.summary is not None]
    return sum(not wanted.isdisjoint(ids_of(run, "findings")) for run in ended), len(ended)


def nights_with_erratum(runs: Iterable[Run], id_: str) -> tuple[int, int]:
    """Return how many of the runs that ended had an erratum come back, and how many there are."""
    ended = [run for run in runs if run.summary is not None]
    return sum(id_ in ids_of(run, "errata") for run in ended), len(ended)


def ids_of(run: Run, key: str) -> frozenset[str]:
    """Return the ids of a list of a run's summary."""
    rows = (run.summary or {}).get(key)
    some = rows[:MAX_NAMES] if isinstance(rows, list) else []
    return frozenset(str(row["id"])[:200] for row in some if isinstance(row, Mapping) and "id" in row)


def _subject(run: Run) -> tuple[str, ...]:
    asked: Mapping[str, Any] = run.asked
    return tuple(str(asked.get(name)) for name in ("target", "level", "against"))


def _change(now: frozenset[str], earlier: _Before) -> Change:
    return Change(tuple(sorted(now - earlier.ever)), tuple(sorted(earlier.last - now)))
