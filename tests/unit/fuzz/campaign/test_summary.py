# SPDX-License-Identifier: Apache-2.0
"""What a campaign says at its end, and its exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign import summary
from fuzz.campaign.counters_file import EMPTY, read_stats
from fuzz.campaign.parent import Outcome, Progress
from fuzz.campaign.status_line import NewClusterCounter, status_line
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from harness.errors import VmLost
from harness.findings.regressions import Regression
from harness.relations.divergence import Divergence
from tests.support.fake_worker import DIVERGENCE, TEXT, bench, checked
from tests.support.summaries import summary_of


@pytest.mark.parametrize(("accept", "new", "status"), [(True, False, 0), (True, True, 3), (False, False, 3)])
def test_machines_that_ended_as_kept_ones_do(tmp_path: Path, accept: bool, new: bool, status: int) -> None:
    b = bench(tmp_path, checked())
    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, Outcome(read_stats(tmp_path / "stats"), 0.5, (), "", False))
    crash = summary.Cluster("crash-1", "crash", "oops", () if new else ("a",), new, 1, 1, "", "")
    assert replace(result, lost_vms=1, findings=(crash,), accept_kept=accept).exit_status == status


def test_summary_tells_what_was_counted(tmp_path: Path) -> None:
    b = bench(tmp_path, *[checked(DIVERGENCE)] * 3)
    b.worker.run_input(TEXT)
    stats = read_stats(tmp_path / "stats")
    result = summary_of(tmp_path, Outcome(stats, 0.5, (), "", False))
    table = json.loads(json.dumps(result.to_json()))
    assert (table["scenarios"], table["exits"], table["exits_by_class"]) == (1, 2, {"HVC64": 2})
    assert (table["checked_exits_per_s"], table["divergences_known"], table["divergences_unexplained"]) == (2.0, 0, 1)
    assert result.exit_status == 1
    (cluster,) = table["findings"]
    where = tmp_path / "findings" / cluster["id"] / "scenario.scn"
    assert cluster["where"] == str(where.parent)
    assert cluster["replay"] == f"shadowfuzz replay {where} --target fake --kernel 'an image' --level spec"
    shown = summary.text(result)
    assert cluster["replay"] in shown and "restore.x3 at HVC64, model: prep_hvc: expected 0x1, observed 0x2" in shown
    forged = {"HVC64": 2, "forged:WFX": 3, "forged:CODE7": 1}
    assert "exits by class     HVC64 2, forged 4 (of 2 classes)\n" in summary.text(
        replace(result, exits_by_class=forged)
    )
    assert "unstable" not in shown and (table["run_again"], table["unstable"]) == (0, 0)
    sampled = summary.text(replace(result, run_again=250, unstable=2))
    assert "unstable           0.8% (2 of 250 scenarios that were run again)\n" in sampled
    assert table["kvm_off"] == "" and "coverage of KVM" not in shown  # nobody asked for anything but the model
    blind = summary.text(replace(result, kvm_off="gcc is missing"))
    assert "\ncoverage of KVM    OFF, the model alone guided: gcc is missing\n" in blind
    shares = {"host": 0.75, "switch": 1.0}
    whole = summary.text(replace(result, complete=0.9, complete_by_relation=shares, stood_in={"restore: why": 2}))
    assert "\ncomplete           90.0% of all comparisons  (host 75.0%, switch 100.0%)\n" in whole
    assert "\nstood in           2\n    2  restore: why\n" in whole
    said = {"asserted": {"bad_trap at a forged x, ESR_EL2 0x1": 1}, "boot_alarms": ("fake: a WARN fired",)}
    noisy = summary.text(replace(result, **said))
    assert (
        "\n    1  bad_trap at a forged x, ESR_EL2 0x1\n" in noisy
        and "\nalarm at boot      fake: a WARN fired\n" in noisy
    )
    assert "asserted" not in shown and "alarm at boot" not in shown
    line = status_line(Progress(2.0, 58.2, 2, stats))
    assert line.startswith("1 scenarios, 0 checked exits/s, coverage") and line.endswith("0:58 left")


def test_new_clusters_come_first_and_kept_ones_may_be_accepted(tmp_path: Path) -> None:
    """Three of one cluster, then one that nothing is like."""
    kept = [Regression("old-bug", "", "", "kvm", "", ("fake",), ("restore.xN/HVC64/prep_hvc",), ("s",))]
    new = Divergence("host", "pc", 1, 2, "WFX", 1, 0)
    b = bench(tmp_path, *[checked(DIVERGENCE)] * 3, *[checked(new)] * 3)
    news = NewClusterCounter(Store(Database(default_url(tmp_path)), FINDINGS), kept)

    def outcome() -> Outcome:
        return Outcome(read_stats(tmp_path / "stats"), 1.0, (), "", False)

    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, outcome(), kept)
    assert (result.clusters, result.clusters_new, result.exit_status) == (1, 0, 1)
    assert "unexplained        1 divergences in 1 clusters, none of them new" in summary.text(result)
    assert summary_of(tmp_path, outcome(), kept, accept_kept=True).exit_status == 0
    assert news.count(outcome().stats.group("unexplained")) == 0

    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, outcome(), kept, accept_kept=True)
    assert result.exit_status == 1
    assert [(cluster.like, cluster.new) for cluster in result.findings] == [((), True), (("old-bug",), False)]
    first, second = (f"  {cluster.id}" for cluster in result.findings)
    assert f"2 divergences in 2 clusters, 1 of them new\n{first}, new: host.pc at WFX" in summary.text(result)
    assert f"\n{second}: restore.x3 at HVC64" in summary.text(result)
    assert "    1 times, like old-bug; shadowfuzz replay " in summary.text(result)
    count = news.count([*outcome().stats.group("unexplained"), "divergence-000000000000"])
    assert "unexplained 2 in 2 clusters (1 new), " in status_line(Progress(1.0, 1.0, 1, outcome().stats), count)


def test_summary_of_nothing(tmp_path: Path) -> None:
    result = summary_of(tmp_path, Outcome(EMPTY, 0.0, (), "", True))
    assert (result.exit_status, result.checked_exits_per_s, result.seconds_to_first_checked_exit) == (0, 0.0, None)
    assert "stopped before its time, as asked" in summary.text(result)
    assert status_line(Progress(0.0, 60.0, 2, EMPTY)) == "2 workers booting"


def test_lost_machine_without_divergence_is_status_3(tmp_path: Path) -> None:
    b = bench(tmp_path, VmLost("fake", "gone"))
    b.worker.run_input(TEXT)
    assert summary_of(tmp_path, Outcome(read_stats(tmp_path / "stats"), 1.0, (), "", False)).exit_status == 3
