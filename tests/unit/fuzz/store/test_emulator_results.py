# SPDX-License-Identifier: Apache-2.0
"""What other emulators showed, as it is kept with a finding."""

from __future__ import annotations

from fuzz.store.emulator_results import from_text, to_text
from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult


def test_what_is_kept_with_a_finding() -> None:
    found = (
        EmulatorResult("max", Tries(1, 3), 2),
        EmulatorResult("qemu-10.0", Tries(0, 0), why="it is gone", unlike="less"),
    )
    assert from_text(to_text(found)) == found
    for damaged in ("", "{", "[1]", '[{"name": "max"}]', "null"):
        assert from_text(damaged) == ()
