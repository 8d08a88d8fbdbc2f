# SPDX-License-Identifier: Apache-2.0
"""What is said of rows that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuzz.store.database import Unreadable
from harness.report.terminal import many, printable

SHOWN = 5
"""So many rows are named; of the others only the number is given."""


def unreadable_lines(rows: Sequence[Unreadable]) -> Iterator[str]:
    """Yield a line that says how many rows cannot be read, and one for each of the first."""
    if rows:
        yield f"{many(len(rows), 'row')} of the database cannot be read, the others are shown:"
        yield from (f"  {printable(str(row))[:200]}" for row in rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more"
