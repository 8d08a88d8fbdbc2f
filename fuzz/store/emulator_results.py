# SPDX-License-Identifier: Apache-2.0
"""Convert the results of other emulators for a finding to the text that is stored with it, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult


def to_text(found: Sequence[EmulatorResult]) -> str:
    """Return the text to store with a finding."""
    return json.dumps([asdict(place) for place in found])


def from_text(text: str) -> tuple[EmulatorResult, ...]:
    """Return the results that :func:`to_text` wrote; any other text gives no results, as if nothing had been measured.

    ValueError: impossible counts.
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
            raise ValueError(f"{place.same.hits} of {place.same.runs} runs, which is impossible")
    return found
