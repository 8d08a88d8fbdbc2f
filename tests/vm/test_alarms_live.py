# SPDX-License-Identifier: Apache-2.0
"""Real alarms of real kernels: a WARN of KVM that a recorded program causes, and a taint that a scenario causes.

No stock target is known on which a scenario causes a WARN.  So alarms of scenarios are tested with a line that KVM
prints once in each boot, when the first protected VM is created: "tainting kernel".  The line is expected, so
:data:`harness.vm.alarms.INTENDED` has it; these tests remove that row.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import StatsWriter
from fuzz.campaign.worker import Worker, WorkerContext
from fuzz.cli.main import main
from fuzz.paths import ALARMS, CRASHES
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS, Dumps
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.findings.regressions import alarm_text, load_regressions
from harness.vm import alarms
from harness.vm.cache import Cache, default_root
from harness.vm.config import PROJECT
from harness.vm.kernels.fetch import load_kernels

PROTECTED = "kvm-7.3-protected"
WARNS = "7.2.6"
UNMAPS = "6.18.15"
"""A kernel that WARNs in protected mode for an unknown ioctl of a VM; 7.2.9 and later do not."""
SEED = PROJECT / "corpus" / "seeds" / "protected_vm.scn"
WORDS = "kvm: protected VMs are experimental and for development only, tainting kernel"


def listed(version: str) -> bool:
    kernels = load_kernels(Cache(default_root(os.environ))).kernels
    return any(kernel.version.partition("-")[0] == version for kernel in kernels)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("target", "warns"), [(f"kvm-protected@{WARNS}", True), (PROTECTED, False)])
def test_a_program_that_makes_kvm_warn(
    target: str, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if warns and not listed(WARNS):
        pytest.skip(f"Linux {WARNS} is not in the archive any more")
    row = next(row for row in load_regressions(ALARMS) if row.id == "unknown-vm-ioctl-warns")
    (name,) = row.scenarios
    binary, out = tmp_path / name, tmp_path / f"{name}.trace"
    source = ALARMS.with_name(f"{name}.c")
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-O2", "-o", binary, source], check=True)
    assert main(["record", "--json", "--target", target, "--out", str(out), str(binary)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["end"]["status"], result["end"]["code"]) == ("exited", 0)
    assert any("made_up" in line for line in result["console"])
    assert [row.matching(alarm_text(alarm["signature"])) for alarm in result["alarms"]] == [*row.signatures] * warns
    assert row.elsewhere == f"kvm-protected@{WARNS}"
    for alarm in result["alarms"]:
        assert "__arm64_sys_ioctl+" in alarm["splat"] and alarm["splat"].endswith("]---")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("target", "complains"), [(f"kvm-protected@{UNMAPS}", True), (PROTECTED, False)])
def test_a_scenario_that_makes_kvm_shift_by_garbage(
    target: str, complains: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if complains and not listed(UNMAPS):
        pytest.skip(f"Linux {UNMAPS} is not in the archive any more")
    row = next(row for row in load_regressions(ALARMS) if row.id == "protected-mode-unmaps-nested-tables")
    (name,) = row.scenarios
    argv = ["replay", str(ALARMS.with_name(f"{name}.scn")), "--target", target, "--no-hyp-copy", "--json"]
    assert main(argv) == int(complains)
    (run,) = json.loads(capsys.readouterr().out)["targets"][0]["runs"]
    assert [row.matching(alarm_text(alarm["signature"])) for alarm in run["alarms"]] == [*row.signatures] * complains


@pytest.mark.timeout(180)
def test_an_assertion_of_kvm_about_a_forged_exit_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """Older kernels have a BUG here (corpus/crashes/expected.toml); newer ones have a WARN and inject UNDEFINED."""
    scenario = CRASHES.with_name("forged_mpidr_read.scn")
    assert main(["replay", str(scenario), "--target", "kvm-7.3-nvhe", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["targets"][0]["runs"]
    assert (run["unexplained"], run["alarms"]) == (0, [])
    (asserted,) = run["asserted"]
    assert (asserted["function"], asserted["kind_of_exit"]) == ("bad_trap", "register-without-accessor")
    assert asserted["esr"] == "0x623a0081" and asserted["splat"].endswith("]---")


@pytest.mark.timeout(180)
def test_replay_shows_the_alarm_where_it_is_and_the_intended_one_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["replay", str(SEED), "--target", PROTECTED, "--no-hyp-copy", "--json", "--repeat", "2"]
    assert main(argv) == 0
    quiet = json.loads(capsys.readouterr().out)["targets"][0]
    assert quiet["totals"]["alarms"] == 0
    monkeypatch.setattr(alarms, "INTENDED", ())
    assert main(argv) == 1
    loud = json.loads(capsys.readouterr().out)["targets"][0]
    first, second = (run["alarms"] for run in loud["runs"])
    assert [alarm["words"] for alarm in first] == [WORDS] and second == [], "once in each boot"
    assert loud["totals"]["unexplained"] == 0


@pytest.mark.timeout(180)
def test_a_worker_confirms_an_alarm_in_fresh_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "INTENDED", ())
    database = Database(default_url(tmp_path))
    findings, flaky, stats = Store(database, FINDINGS), Store(database, FLAKY), StatsWriter(tmp_path / "stats")
    worker = Worker(
        WorkerContext(
            targets=open_targets(TargetOptions(PROTECTED, "spec")),
            count_coverage=lambda index: None,
            on_run=lambda: None,
            stats=stats,
            findings=findings,
            flaky=flaky,
            dumps=Dumps(tmp_path / DUMPS),
            now=lambda: "2026-01-01T00:00:00+00:00",
            ticks=time.monotonic_ns,
        )
    )
    worker.begin()
    try:
        for _ in range(3):
            worker.run_input(SEED.read_bytes())
    finally:
        worker.close()
    (id_,) = findings.ids()
    finding, texts = findings.load(id_), findings.texts(id_)
    assert (finding.kind, finding.signature) == ("alarm", ("taint", WORDS))
    assert (texts["fresh_qemu"], texts["console.txt"], flaky.ids()) == ("3 3", WORDS, ())
    assert [stats.get("count", "scenarios"), stats.get("alarms", id_)] == [3, 1]
