# SPDX-License-Identifier: Apache-2.0
"""Represent the release history of a finding: the tested kernels in version order, and which of them show it.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

SHOWS, SHOWS_NOT, CANNOT = "shows it", "does not show it", "cannot run"
ANSWERS = (SHOWS, SHOWS_NOT, CANNOT)
HISTORY = "releases.json"
"""The text of a finding that holds its history."""


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """A kernel's package version on a configuration, its result, and in how many of its runs the finding showed."""

    config: str
    version: str
    answer: str
    seen: int
    runs: int


def history_text(asked: Iterable[ReleaseResult]) -> str:
    """Return a history as JSON."""
    return json.dumps([asdict(each) for each in asked], indent=0)


def read_history(text: str) -> tuple[ReleaseResult, ...]:
    """Return the history that a text holds; empty for another version's.  ValueError: impossible counts."""
    try:
        rows = [ReleaseResult(**row) for row in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return ()
    rows = [row for row in rows if row.answer in ANSWERS]
    for row in rows:
        if not (isinstance(row.config, str) and isinstance(row.version, str)):
            raise ValueError("a kernel whose configuration and version are no text")
        if not (type(row.seen) is type(row.runs) is int and 0 <= row.seen <= row.runs):
            raise ValueError(f"{str(row.seen)[:20]} of {str(row.runs)[:20]} runs, which is impossible")
    return tuple(rows)


def sentences(asked: Iterable[ReleaseResult]) -> tuple[str, ...]:
    """Return a history as sentences: from which to which kernel, one for each stretch of the same result.

    Kernels between two tested kernels that agree are assumed to agree, too, as in a bisection.
    """
    stretches: list[list[ReleaseResult]] = []
    for each in asked:
        if each.answer == CANNOT:
            continue
        if not stretches or stretches[-1][-1].answer != each.answer or stretches[-1][-1].config != each.config:
            stretches.append([])
        stretches[-1].append(each)
    return tuple(f"{rows[0].config}: {_span(rows)} {rows[0].answer}" for rows in stretches)


def _span(rows: list[ReleaseResult]) -> str:
    first, last = rows[0].version, rows[-1].version
    return first if first == last else f"{first} to {last}"
