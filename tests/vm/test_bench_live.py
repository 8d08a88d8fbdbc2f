# SPDX-License-Identifier: Apache-2.0
"""A short benchmark on real KVM: every mode runs, nothing is left behind.  No timing is asserted."""

from __future__ import annotations

import json

import pytest

from fuzz.cli import main


def test_a_short_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "1", "--jobs", "1", "--seed", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [s["mode"] for s in result["samples"]] == ["raw", "recorded", "checked"]
    assert all(s["exits"] > 0 and s["scenarios"] > 0 for s in result["samples"])
    assert result["checked_over_raw"] > 0
