# SPDX-License-Identifier: Apache-2.0
"""A short benchmark on real KVM: every mode runs, and no process remains.  No timing is asserted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fuzz.cli.main import main
from harness.vm.config import CONFIG_DIR, DEFAULT_TARGET
from tests.support.commands import launcher
from tests.support.paths import ROOT


def test_a_short_benchmark(tmp_path: Path) -> None:
    """As it is installed: its workers are spawned, and run the script of the command before their own work."""
    plot = tmp_path / "bench.svg"
    config = tmp_path / "mine.toml"
    config.write_text((CONFIG_DIR / f"{DEFAULT_TARGET}.toml").read_text())
    argv = ["bench", "--target", str(config), "--seconds", "1", "--jobs", "1", "--seed", "3", "--json"]
    done = subprocess.run(
        [launcher(tmp_path), *argv, "--plot", plot], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["target"] == "mine"
    assert [s["mode"] for s in result["samples"]] == ["raw", "recorded", "checked"]
    assert all(s["exits"] > 0 and s["scenarios"] > 0 and s["qemu_seconds"] > 0 for s in result["samples"])
    assert result["checked_over_raw"] > 0 and result["first_checked_exit_s"] > result["start_s"] > 0
    assert all(us > 0 for us in result["by_relations_us"].values())
    exits = [point["exits"] for point in result["by_length"]]
    assert exits == sorted(exits)
    assert "<svg" in plot.read_text()


def test_a_short_comparison(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot = tmp_path / "bench.svg"
    argv = ["bench", "compare", "pure", str(ROOT), "--rounds", "1", "--scenarios", "3", "--seed", "3", "--json"]
    assert main([*argv, "--plot", str(plot)]) == 0
    result = json.loads(capsys.readouterr().out)
    one, other, again = result["variants"]
    assert (one["name"], other["name"], again["name"]) == ("pure", str(ROOT), "pure again")
    assert min(each["exits"] for each in result["variants"]) > 0
    assert all(each["our_us"] > 0 and each["budget_us"]["decode"] > 0 for each in result["variants"])
    assert result["control"] > 0 and "<svg" in plot.read_text()
