# SPDX-License-Identifier: Apache-2.0
"""The plugin in a real QEMU: the functions of KVM that a scenario reaches, by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign.guidance import edges_in
from fuzz.campaign.limits import KVM
from fuzz.campaign.parent import Plan, campaign_directory, run_campaign
from fuzz.campaign.worker_job import Launcher
from fuzz.cli.main import main
from fuzz.store.database import default_url
from fuzz.targets.options import TargetOptions
from harness.scenario.scenario import format_scenario, parse
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from harness.vm.kernels.kvm_functions import EL1, EL2
from harness.vm.plugins.edges import Reached
from harness.vm.plugins.kvm_coverage import prepare_coverage
from harness.vm.target import boot

HEAD = "shadowfuzz-scenario 1\nabout Made up for a test.\n"
HVC = parse(f"{HEAD}reg x0 0x84000000\nhvc 0x0\n".encode())
MMIO = parse(f"{HEAD}reg x1 0x9000000\nldr x3, [x1, 0x10]\ncomplete 0x55\n".encode())


@pytest.mark.parametrize("target", ["kvm-nvhe", "kvm-vhe"])
def test_a_scenario_reaches_its_handler_and_no_other(target: str) -> None:
    config = load_config(target)
    prepared = prepare(config)
    coverage = prepare_coverage(prepared)
    plugin = coverage.plugin()
    entered, parts = {}, set()
    with boot(config, prepared, plugin=plugin) as executor:
        assert not plugin.map.reached().edges  # the boot is not counted
        for name, scenario in (("mmio", MMIO), ("hvc", HVC), ("mmio again", MMIO)):
            for _ in range(5):  # a machine that waits for a CPU may abort a scenario
                if executor.run(scenario, fresh_vm=False).status == "ok":
                    break
            found = [(coverage.text.find(block), block) for _, block in plugin.map.reached().edges]
            entered[name] = {function.name for function, block in found if function and function.begin == block}
            parts |= {function.part for function, _ in found if function}
    own = {"mmio": "io_mem_abort", "mmio again": "io_mem_abort", "hvc": "handle_hvc"}
    for name, function in own.items():
        assert {"handle_exit", function} <= entered[name]
        assert not entered[name] & (set(own.values()) - {function})
    assert {EL1} <= parts
    assert (EL2 in parts) == (target != "kvm-vhe")
    assert plugin.map.word("edges_dropped") == plugin.map.word("blocks_dropped") == 0
    plugin.map.close()


def test_two_deterministic_runs_give_the_same_map() -> None:
    config = load_config("kvm-nvhe")
    prepared = prepare(config)
    coverage = prepare_coverage(prepared)

    def maps() -> list[tuple[bytes, Reached]]:
        plugin, found = coverage.plugin(), []
        with boot(config, prepared, plugin=plugin, deterministic=True) as executor:
            for scenario in (MMIO, HVC, MMIO):
                executor.run(scenario, fresh_vm=True)
                found.append((plugin.map.counters(), plugin.map.reached()))
        plugin.map.close()
        return found

    assert maps() == maps()


def test_a_corpus_is_measured_and_distilled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, out, page = tmp_path / "corpus", tmp_path / "out", tmp_path / "page.html"
    corpus.mkdir()
    (corpus / "hvc.scn").write_text(format_scenario(HVC))
    (corpus / "same_but_longer").write_text(format_scenario(replace(HVC, steps=HVC.steps * 3)))
    (corpus / "mmio.scn").write_text(format_scenario(MMIO))
    (corpus / "junk").write_text("no scenario")
    assert main(["cmin", str(corpus), str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} >= {"hvc.scn", "mmio.scn"}
    assert (facts["scenarios"], facts["invalid_files"]) == (3, 1)
    assert facts["reached_by_kept"]["model_decisions"] == facts["reached"]["model_decisions"] > 0
    assert main(["coverage", str(out), "--json", "--html", str(page)]) == 0
    report = json.loads(capsys.readouterr().out)
    entered = {row["name"] for row in report["handlers"] if row["scenarios"]}
    assert {"handle_hvc", "kvm_handle_guest_abort"} <= entered
    assert all(row["scenarios"] or row["why"] for row in (*report["handlers"], *report["decisions"]))
    assert "kvm_handle_guest_abort" in page.read_text()


def test_a_campaign_is_guided_by_what_kvm_executes(tmp_path: Path) -> None:
    launch = Launcher(TargetOptions("kvm-nvhe", "spec"), 5, tmp_path, default_url(tmp_path), KVM)
    with campaign_directory(tmp_path, []):
        outcome = run_campaign(Plan(4.0, 1, tmp_path), launch, lambda progress: None)
        seen = edges_in(tmp_path / "run")
    assert outcome.failure == ""
    log = "".join(path.read_text(errors="replace") for path in (tmp_path / "run").glob("*.log"))
    assert "Loaded 1 modules   (16384 inline 8-bit counters)" in log
    # libFuzzer counts the edges that it saw: those of the map, without the input that it was about to process.
    assert 500 < max(int(found) for found in re.findall(r"cov: (\d+)", log)) <= len(seen)
