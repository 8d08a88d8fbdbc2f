# SPDX-License-Identifier: Apache-2.0
"""Format a report on rows that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuzz.store.database import Unreadable
from harness.report.terminal import many, printable

SHOWN = 5
"""Number of rows that are named; the others are only counted."""


def unreadable_lines(rows: Sequence[Unreadable]) -> Iterator[str]:
    """Yield a line with the number of unreadable rows, and a line for each of the first ones."""
    if rows:
        yield f"{many(len(rows), 'row')} of the database cannot be read, the others are shown:"
        yield from (f"  {printable(str(row))[:200]}" for row in rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more"
