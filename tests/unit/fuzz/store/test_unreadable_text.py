# SPDX-License-Identifier: Apache-2.0
"""The report on unreadable rows has a few lines, for any number of rows."""

from __future__ import annotations

from fuzz.store.database import Unreadable
from fuzz.store.unreadable_text import SHOWN, unreadable_lines


def test_lines() -> None:
    assert list(unreadable_lines(())) == []
    one = list(unreadable_lines((Unreadable("findings x", "no JSON\x1b[2J"),)))
    assert one == ["1 row of the database cannot be read, the others are shown:", "  findings x: no JSON\\x1b[2J"]
    many = list(unreadable_lines((Unreadable("findings x", "y" * 5000),) * 2000))
    assert len(many) == SHOWN + 2 and many[-1] == f"  and {2000 - SHOWN} more"
    assert max(map(len, many)) < 250
