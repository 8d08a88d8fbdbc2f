# SPDX-License-Identifier: Apache-2.0
"""pKVM's hyp copy of the vCPU in campaigns and after them: a worker with clones and edges, confirm, minimise."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign.campaign_results import CampaignOptions
from fuzz.campaign.counters_file import StatsWriter, read_stats
from fuzz.campaign.limits import BOTH
from fuzz.campaign.parent import RUN, Outcome, campaign_directory
from fuzz.campaign.summary import summarise
from fuzz.campaign.worker import Worker
from fuzz.campaign.worker_job import Launcher
from fuzz.campaign.worker_process import Guides, context_of
from fuzz.cli.main import main
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from fuzz.triage.confirm import stages_of
from fuzz.triage.minimise import minimise_on
from harness.scenario.scenario import format_scenario
from harness.trace.events import Trace
from harness.vm.build.prepare import prepare
from harness.vm.cache import Cache, default_root
from harness.vm.clone import Clones
from harness.vm.config import load_config
from harness.vm.target import boot, hyp_copy_of
from tests.vm.killing import descendants
from tests.vm.running import REGRESSIONS, SEEDS

TARGET = "kvm-7.3-protected"
LOSES, LOST = "protected_vm_interrupt_lines", "flush.hcr_el2"
"""A regression in which a register of the host is not flushed."""
SOME = ("hvc_immediates", "host_writes_every_gpr", "protected_vm", "two_vms_take_turns", "mmio_load_word")


def machines() -> list[int]:
    """Return the QEMU processes of this process."""
    return [pid for pid, line in descendants(os.getpid()) if "qemu-system" in line.split(" ")[0]]


@pytest.mark.timeout(120)
def test_a_worker_counts_and_keeps_what_the_copies_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clones, both plugins in one QEMU, a lost machine, a finding, and the line that shows it."""
    url, stats = default_url(tmp_path), tmp_path / RUN / "worker-0-0.stats"
    launch = Launcher(TargetOptions(TARGET, "spec", hyp_copy=None), 1, tmp_path, url, BOTH)
    with campaign_directory(tmp_path, []):
        done = context_of(launch.job(0, 0, stats), StatsWriter(stats), Guides(None, None))
        worker = Worker(done)
        worker.ending = True  # a loss is not reproduced
        worker.begin()
        for name in SOME:
            worker.run_input(format_scenario(SEEDS[name]).encode())
        before = read_stats(stats).group("relations")
        assert before["flush"] == before["sync"] == before["switch"] > len(SOME)
        (machine,) = machines()
        os.kill(machine, signal.SIGKILL)
        for name in (SOME[0], *SOME):
            worker.run_input(format_scenario(SEEDS[name]).encode())
        worker.run_input(format_scenario(REGRESSIONS[LOSES]).encode())
        worker.close()
        counted = read_stats(stats)
    relations = counted.group("relations")
    assert counted.total("lost") == 1 and counted.total("internal") == 0
    assert relations["flush"] == relations["sync"] == relations["switch"] > 2 * before["flush"]
    store = Store(Database(url), FINDINGS)
    store.export(tmp_path / FINDINGS)
    asked = CampaignOptions(done.targets.subjects, (TARGET,), None, 1, 1, tmp_path, 0.0, url, BOTH)
    summary = summarise(asked, Outcome(counted, 1.0, (), "", False))
    assert (summary.kvm_edges or 0) > 500
    found, *_ = [finding for finding in summary.findings if finding.what.startswith(LOST)]
    assert found.replay.endswith("--hyp-copy --level spec")
    capsys.readouterr()
    assert main(["replay", *shlex.split(found.replay)[2:]]) == 1
    assert LOST in capsys.readouterr().out
    assert main(["findings", "show", found.id, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "verdict" in shown and LOST in shown and "--hyp-copy" in shown


@pytest.fixture(scope="module")
def targets() -> Iterator[PreparedTargets]:
    with open_targets(TargetOptions(TARGET, "spec", hyp_copy=None)) as targets:
        yield targets


@pytest.mark.timeout(120)
def test_confirm_and_minimise_keep_it(targets: PreparedTargets) -> None:
    scenario = REGRESSIONS[LOSES]
    checked = targets.run_and_check(scenario).checked
    wanted, *_ = [key for key in signatures(checked) if ".".join(key[:2]) == LOST]
    counted = stages_of(targets, scenario, (wanted,), 2, 1)[wanted]
    assert [(s.tries.hits, s.tries.runs) for s in counted] == [(2, 2), (2, 2), (1, 1)]
    least = minimise_on(targets, scenario, wanted)
    assert least.confirmed and len(least.scenario.steps) < len(scenario.steps)
    assert any(step.kind == "vcpu" for step in least.scenario.steps), "only protected VMs show it"


def test_it_changes_nothing_of_what_is_deterministic() -> None:
    config = load_config(TARGET)
    prepared = prepare(config)
    ran: list[list[Trace]] = []
    how = {"deterministic": True, "clones": Clones(Cache(default_root(os.environ)))}
    for hyp_copy in (None, *[hyp_copy_of(config, prepared)] * 2):
        with boot(config, prepared, hyp_copy=hyp_copy, **how) as machine:
            ran.append([machine.run(SEEDS[name]) for name in SOME])
    without, one, other = ran
    assert one == other and all(trace.hyp for trace in one)
    assert [replace(trace, hyp=()) for trace in one] == without
