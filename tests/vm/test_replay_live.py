# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz replay`` on the real target: seeds are clean, regressions are not, and the output is complete."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fuzz.cli.main import main
from harness.trace.tracefile import trace_from_json
from tests.support.paths import CORPUS

SEEDS = [
    str(CORPUS / "seeds" / f"{name}.scn")
    for name in ("hvc_immediates", "mmio_load_byte", "psci_version", "touch_ram_by_store", "wfi_wfe")
]
REGRESSION = str(CORPUS / "regressions" / "fetch_outside_slots.scn")

pytestmark = pytest.mark.timeout(180)


def replay_json(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    status = main(["replay", "--json", *argv])
    data = json.loads(capsys.readouterr().out)
    assert data["exit_status"] == status
    return status, data


def test_seeds_are_explained_to_the_last_bit(capsys: pytest.CaptureFixture[str]) -> None:
    status, data = replay_json(capsys, *SEEDS, "--repeat", "2", "--trace")
    (target,) = data["targets"]
    assert status == 0
    assert data["clusters"] == []
    assert (target["target"], target["boots"], target["totals"]["runs"]) == ("kvm-nvhe", 1, 2 * len(SEEDS))
    assert target["totals"]["exits"] > 10 * len(SEEDS)
    assert target["totals"]["known"] > 0
    for run in target["runs"]:
        assert run["status"] == "ok"
        trace = trace_from_json(run["trace"])
        assert len(trace.events) > sum(run["exits"].values())


def test_a_regression_is_shown_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", REGRESSION]) == 1
    out = capsys.readouterr().out
    assert re.search(r"fetch_outside_slots\.scn +\d+ +\d+ +\d+ +[1-9]\d* +\d+\n", out)
    assert re.search(r"\n    register +before +host +predicted +observed\n", out)
    assert re.search(r"\n    esr_el1 ( +0x[0-9a-f]{16}){4}\n +restore: bits .*\^", out)
    assert "unexplained divergence" in out.splitlines()[-1]
