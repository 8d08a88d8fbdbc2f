# SPDX-License-Identifier: Apache-2.0
"""A worker starts with the checker that there is, and does what its job says."""

from __future__ import annotations

import sys

import pytest

from fuzz.campaign.worker_start import main
from fuzz.compiled.use import PURE, is_compiled


def test_a_worker_is_started(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(PURE, "1")
    monkeypatch.setattr(sys, "argv", ["worker_start.py", "{}"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("worker job: ")
    assert not is_compiled()
