# SPDX-License-Identifier: Apache-2.0
"""Results of other emulators as the text that is stored with a finding."""

from __future__ import annotations

from fuzz.store.emulator_results import from_text, to_text
from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult


def test_the_stored_text_is_read_unchanged() -> None:
    found = (
        EmulatorResult("max", Tries(1, 3), 2),
        EmulatorResult("qemu-10.0", Tries(0, 0), why="it is gone", unlike="less"),
    )
    assert from_text(to_text(found)) == found
    for damaged in ("", "{", "[1]", '[{"name": "max"}]', "null"):
        assert from_text(damaged) == ()
