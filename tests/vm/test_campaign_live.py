# SPDX-License-Identifier: Apache-2.0
"""A real campaign: two workers, two machines, one of which is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from harness.scenario.scenario import load
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from tests.vm.killing import COMMAND, descendants, gone, run

SECONDS = 10


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> None:
    prepare(load_config("kvm-nvhe"))


def machines(pid: int) -> list[int]:
    """Return the QEMU processes below ``pid``."""
    return [child for child, line in descendants(pid) if line.startswith("qemu-system")]


def wait_for_machines(campaign: subprocess.Popen[str]) -> list[int]:
    """Return the QEMU processes once both are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert campaign.poll() is None, campaign.stderr and campaign.stderr.read()
        if len(found := machines(campaign.pid)) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no two machines within 60 s")


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """Start a campaign."""
    argv = [*COMMAND, "--out", str(out), "--seed", "1", *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(120)
def test_a_campaign_survives_a_killed_machine_and_tells_the_truth(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", str(SECONDS), "--json") as campaign:
        found = wait_for_machines(campaign)
        time.sleep(SECONDS / 2)
        everyone = {pid for pid, _ in descendants(campaign.pid)}
        os.kill(found[0], signal.SIGKILL)
        time.sleep(SECONDS / 4)
        everyone |= {pid for pid, _ in descendants(campaign.pid)}
        output, errors = campaign.communicate(timeout=60)
    assert gone(everyone), "a process still exists"
    summary = json.loads(output)
    assert errors.count("\n") < 30, "not a terminal: a line every 10 s"

    assert summary["lost_vms"] == 1 and summary["worker_deaths"] == [] and summary["failure"] == ""
    assert summary["internal_errors"] == 0 and summary["findings_unwritten"] == {}
    assert summary["scenarios"] > 0 and summary["checked_exits"] > 100
    assert summary["exits"] == sum(summary["exits_by_class"].values()) >= summary["checked_exits"]
    assert summary["scenarios"] == sum(summary["statuses"].values())
    assert summary["checked_exits_per_s"] == pytest.approx(summary["checked_exits"] / summary["seconds"], rel=0.01)
    assert SECONDS <= summary["seconds"] < SECONDS + 5
    assert summary["divergences_known"] == sum(summary["known_by_entry"].values()) > 0
    assert summary["coverage"] > 50 and summary["corpus"] > 67
    assert (summary["guide"], summary["kvm_off"]) == ("both", "") and summary["kvm_edges"] > 500

    crashes = [finding for finding in summary["findings"] if finding["kind"] == "crash"]
    assert len(crashes) == 1 and "QEMU ended with status -9" in crashes[0]["what"]
    assert (Path(crashes[0]["where"]) / "console.txt").is_file()
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    assert {finding["id"] for finding in summary["findings"]} == set(store.ids())
    for id_ in store.ids():
        assert store.load(id_).subject.target == "kvm-nvhe"
        load(tmp_path / "findings" / id_ / "scenario.scn")
    assert any("esr-el1-sign-extended" in finding["like"] for finding in summary["findings"]), "a seed shows it"
    unexplained = any(finding["kind"] == "divergence" for finding in summary["findings"])
    assert unexplained == bool(summary["divergences_unexplained"])
    assert campaign.returncode == (1 if unexplained else 3)


@pytest.mark.timeout(120)
def test_without_coverage_of_kvm_a_campaign_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = tmp_path / "gcc"
    gcc.write_text("#!/bin/sh\necho edges.c:11:10: fatal error: string.h: No such file or directory\nexit 1\n")
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with start(tmp_path / "out", "--seconds", "2", "--json") as campaign:
        output, errors = campaign.communicate(timeout=60)
    summary = json.loads(output)
    assert (summary["guide"], summary["kvm_edges"], summary["failure"]) == ("model", None, "")
    assert "string.h: No such file or directory; run make setup, or sudo apt-get install" in summary["kvm_off"]
    assert f"fuzz: WARNING: coverage of KVM is off, the model alone guides: {summary['kvm_off']}\n" in errors


@pytest.mark.timeout(120)
def test_ctrl_c_ends_with_a_summary(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "1000") as campaign:
        wait_for_machines(campaign)
        time.sleep(2)
        everyone = {pid for pid, _ in descendants(campaign.pid)}
        campaign.send_signal(signal.SIGINT)
        output, _ = campaign.communicate(timeout=20)
    assert gone(everyone), "a process still exists"
    assert "stopped early by a signal" in output and "CHECKED " in output


@pytest.mark.timeout(120)
def test_machines_die_with_a_killed_campaign(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "1000") as campaign:
        wait_for_machines(campaign)
        everyone = {pid for pid, _ in descendants(campaign.pid)}
        campaign.kill()
        campaign.communicate(timeout=20)
    assert gone(everyone), "a process still exists"


@pytest.mark.timeout(180)
def test_killed_campaigns_lose_nothing(tmp_path: Path) -> None:
    """A few kills of live campaigns; `python -m tests.vm.killing` does two hundred (docs/triage.md)."""
    tally = run(5, 1, tmp_path, 7, lambda line: None)
    assert tally.wrong == []
    assert sum(tally.kills.values()) == 5 and tally.findings > 0
