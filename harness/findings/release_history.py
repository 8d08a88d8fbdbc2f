# SPDX-License-Identifier: Apache-2.0
"""The release history of a finding: which kernels were asked, in version order, and which of them show it.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

SHOWS, SHOWS_NOT, CANNOT = "shows it", "does not show it", "cannot run"
ANSWERS = (SHOWS, SHOWS_NOT, CANNOT)
HISTORY = "releases.json"
"""The text of a finding that holds its history."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A kernel's package version on a configuration, what it answered, and in how many runs of how many it showed."""

    config: str
    version: str
    answer: str
    seen: int
    runs: int


def history_text(asked: Iterable[Asked]) -> str:
    """Return a history as JSON."""
    return json.dumps([asdict(each) for each in asked], indent=0)


def read_history(text: str) -> tuple[Asked, ...]:
    """Return the history that a text holds; nothing if it is another version's.  ValueError: counts that cannot be."""
    try:
        rows = [Asked(**row) for row in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return ()
    rows = [row for row in rows if row.answer in ANSWERS]
    for row in rows:
        if not (isinstance(row.config, str) and isinstance(row.version, str)):
            raise ValueError("a kernel whose configuration and version are no text")
        if not (type(row.seen) is type(row.runs) is int and 0 <= row.seen <= row.runs):
            raise ValueError(f"{str(row.seen)[:20]} of {str(row.runs)[:20]} runs, which cannot be")
    return tuple(rows)


def sentences(asked: Iterable[Asked]) -> tuple[str, ...]:
    """Say what a history tells: from which to which kernel, a sentence for each stretch of the same answer.

    Kernels between two that were asked and agree are taken to agree, too: that is how a bisection works.
    """
    stretches: list[list[Asked]] = []
    for each in asked:
        if each.answer == CANNOT:
            continue
        if not stretches or stretches[-1][-1].answer != each.answer or stretches[-1][-1].config != each.config:
            stretches.append([])
        stretches[-1].append(each)
    return tuple(f"{rows[0].config}: {_span(rows)} {rows[0].answer}" for rows in stretches)


def _span(rows: list[Asked]) -> str:
    first, last = rows[0].version, rows[-1].version
    return first if first == last else f"{first} to {last}"
