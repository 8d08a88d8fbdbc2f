# SPDX-License-Identifier: Apache-2.0
"""What other emulators showed of a finding, as the text that is stored with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult


def to_text(found: Sequence[EmulatorResult]) -> str:
    """Return what is kept with a finding."""
    return json.dumps([asdict(place) for place in found])


def from_text(text: str) -> tuple[EmulatorResult, ...]:
    """Return what :func:`to_text` wrote; empty for anything else, which is as if nothing had been measured.

    ValueError: counts that cannot be.
    """
    try:
        found = tuple(
            EmulatorResult(
                name=str(row["name"]),
                same=Tries(int(row["same"]["hits"]), int(row["same"]["runs"])),
                changed=int(row["changed"]),
                why=str(row["why"]),
                unlike=str(row["unlike"]),
            )
            for row in json.loads(text)
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return ()
    for place in found:
        if not place.same.possible:
            raise ValueError(f"{place.same.hits} of {place.same.runs} runs, which cannot be")
    return found
