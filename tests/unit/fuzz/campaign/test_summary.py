# SPDX-License-Identifier: Apache-2.0
"""The summary of a campaign, and its exit status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign.campaign_results import CampaignOptions, Cluster, ErratumSeen, ProblemSeen
from fuzz.campaign.counters_file import EMPTY, read_stats
from fuzz.campaign.parent import Outcome, Progress
from fuzz.campaign.status_line import NewClusterCounter, status_line
from fuzz.campaign.summary_text import all_counts, screen
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from harness.errors import VmLost
from harness.findings.regressions import Regression
from harness.relations.divergence import Divergence
from tests.support.fake_worker import DIVERGENCE, SUBJECT, TEXT, checked, make_worker
from tests.support.summaries import summary_of


@pytest.mark.parametrize(("accept", "new", "status"), [(True, False, 0), (True, True, 3), (False, False, 3)])
def test_losses_like_kept_ones(tmp_path: Path, accept: bool, new: bool, status: int) -> None:
    b = make_worker(tmp_path, checked())
    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, Outcome(read_stats(tmp_path / "stats"), 0.5, (), "", False))
    crash = Cluster("crash-1", "crash", "oops", () if new else ("a",), new, 1, 1, "", "")
    assert replace(result, lost_vms=1, findings=(crash,), accept_kept=accept).exit_status == status


def test_summary_shows_all_counts(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 3)
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
    shown = all_counts(result)
    assert cluster["replay"] in shown and "restore.x3 at HVC64, model: prep_hvc: expected 0x1, observed 0x2" in shown
    forged = {"HVC64": 2, "forged:WFX": 3, "forged:CODE7": 1}
    assert "exits by class     HVC64 2, forged 4 (of 2 classes)\n" in all_counts(replace(result, exits_by_class=forged))
    assert "unstable" not in shown and (table["run_again"], table["unstable"]) == (0, 0)
    sampled = all_counts(replace(result, run_again=250, unstable=2))
    assert "unstable           0.8% (2 of 250 scenarios that were run again)\n" in sampled
    assert table["kvm_off"] == "" and "coverage of KVM" not in shown  # only the model was requested
    assert "fast QEMU" not in shown + screen(result)
    fast = replace(result, confirmed_on="7.2.22")
    words = "fast QEMU, problems confirmed on Debian's own 7.2.22"
    assert f"\n{words}\n" in all_counts(fast) and words in " ".join(screen(fast).split())
    assert table["store"] == "" and "--store" not in screen(result)
    blind = all_counts(replace(result, kvm_off="gcc is missing"))
    assert "\ncoverage of KVM    OFF, the model alone guided: gcc is missing\n" in blind
    shares = {"host": 0.75, "switch": 1.0}
    whole = all_counts(replace(result, complete=0.9, complete_by_relation=shares, stood_in={"restore: why": 2}))
    assert "\ncomplete           90.0% of all comparisons  (host 75.0%, switch 100.0%)\n" in whole
    assert "\nstood in           2\n    2  restore: why\n" in whole
    said = {"asserted": {"bad_trap at a forged x, ESR_EL2 0x1": 1}, "boot_alarms": ("fake: WARN",)}
    noisy = all_counts(replace(result, **said))
    assert "\n    1  bad_trap at a forged x, ESR_EL2 0x1\n" in noisy and "\nalarm at boot      fake: WARN\n" in noisy
    assert "asserted" not in shown and "alarm at boot" not in shown
    line = status_line(Progress(2.0, 58.2, 2, stats))
    assert line.startswith("0:58 left, 0 new, 1 clusters, 0 checked exits/s, coverage") and len(line) < 80


def test_commands_name_a_database_elsewhere_without_its_password(tmp_path: Path) -> None:
    """``shadowfuzz findings`` alone would look into the campaign's directory."""
    b = make_worker(tmp_path, checked())
    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, Outcome(read_stats(tmp_path / "stats"), 0.5, (), "", False))
    url = "postgresql://fuzz:secret@database/fuzz?password=secret&sslmode=require"
    options = CampaignOptions((SUBJECT,), ("fake",), None, 7, 2, tmp_path, 0.0, url)
    assert options.shown_store == "postgresql://fuzz@database/fuzz?sslmode=require"
    found = Cluster("crash-1", "crash", "oops", (), True, 1, 1, "", "")
    away = replace(result, out="out/campaign", store="postgresql://fuzz@database/fuzz", findings=(found,))
    shown = " ".join(screen(away).split())
    assert "NEXT shadowfuzz findings --store postgresql://fuzz@database/fuzz " in shown
    assert "shadowfuzz findings open --store postgresql://fuzz@database/fuzz" in shown


def test_new_clusters_come_first_and_kept_ones_may_be_accepted(tmp_path: Path) -> None:
    """Count three members of one cluster, then one of a new cluster."""
    kept = [Regression("old-bug", "", "", "kvm", "", ("fake",), ("restore.xN/HVC64/prep_hvc",), ("s",))]
    new = Divergence("host", "pc", 1, 2, "WFX", 1, 0)
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 3, *[checked(new)] * 3)
    news = NewClusterCounter(Store(Database(default_url(tmp_path)), FINDINGS), kept)

    def outcome() -> Outcome:
        return Outcome(read_stats(tmp_path / "stats"), 1.0, (), "", False)

    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, outcome(), kept)
    assert (result.clusters, result.clusters_new, result.exit_status) == (1, 0, 1)
    assert "unexplained        1 divergences in 1 clusters, none of them new" in all_counts(result)
    assert summary_of(tmp_path, outcome(), kept, accept_kept=True).exit_status == 0
    assert news.count(outcome().stats.group("unexplained")) == 0

    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, outcome(), kept, accept_kept=True)
    assert result.exit_status == 1
    assert [(cluster.like, cluster.new) for cluster in result.findings] == [((), True), (("old-bug",), False)]
    first, second = (f"  {cluster.id}" for cluster in result.findings)
    assert f"2 divergences in 2 clusters, 1 of them new\n{first}, new: host.pc at WFX" in all_counts(result)
    assert f"\n{second}: restore.x3 at HVC64" in all_counts(result)
    assert "    1 times, like old-bug; shadowfuzz replay " in all_counts(result)
    ids = [*outcome().stats.group("unexplained"), "divergence-000000000000"]
    assert [news.add(ids), news.add(ids)] == [(result.findings[0].id,), ()], "each is written once"
    count = news.count(ids)
    assert "1 new, 2 clusters, " in status_line(Progress(1.0, 1.0, 1, outcome().stats), count)


def test_summary_of_nothing(tmp_path: Path) -> None:
    result = summary_of(tmp_path, Outcome(EMPTY, 0.0, (), "", True))
    assert (result.exit_status, result.checked_exits_per_s, result.seconds_to_first_checked_exit) == (0, 0.0, None)
    assert "stopped early by a signal" in all_counts(result)
    assert status_line(Progress(0.0, 60.0, 2, EMPTY)) == "2 workers booting"


def test_lost_machine_without_divergence_is_status_3(tmp_path: Path) -> None:
    b = make_worker(tmp_path, VmLost("fake", "gone"))
    b.worker.run_input(TEXT)
    assert summary_of(tmp_path, Outcome(read_stats(tmp_path / "stats"), 1.0, (), "", False)).exit_status == 3


def test_everything_important_fits_on_one_screen(tmp_path: Path) -> None:
    """There are more problems and errata than fit, and long names; commands may be longer than a line."""
    plain = summary_of(tmp_path, Outcome(EMPTY, 60.0, (), "", False))
    problem = ProblemSeen("divergence-0", "divergence", "what", "words " * 40, ("a", "b"), 1200, 2, 2, "", "x show")
    erratum = ErratumSeen("a-name-of-an-erratum-that-is-rather-long-indeed", "what it does " * 9, 3, 1, 123456)
    full = replace(
        plain,
        problems=(problem,) * 9,
        errata=(erratum,) * 20,
        findings=(Cluster("a", "divergence", "", ("e",), False, 1, 1, "", ""),) * 3,
        worker_deaths=("why " * 50,) * 3,
        failure="because " * 50,
        unchecked={"a reason " * 20: 5, "another": 4},
        kvm_edges=5543,
    )
    night = replace(
        full,
        **dict.fromkeys(("scenarios", "invalid_inputs", "run_again"), 2_316_100),
        **dict.fromkeys(("coverage", "kvm_edges", "corpus"), 56_420),
        **dict.fromkeys(("exits", "checked_exits", "divergences_known"), 385_663_000),
        **dict.fromkeys(("unstable", "lost_vms"), 1234),
        statuses={"runaway": 107_000},
        known_by_entry={str(number): 1 for number in range(30)},
        flaky_by_cluster={str(number): 1 for number in range(300)},
        checked_exits_per_s=12_345.0,
        growth=0.0,
        growth_seconds=3600.0,
    )
    for each in (plain, full, night):
        lines = screen(each).splitlines()
        assert len(lines) <= 30
        wide = [line for line in lines if len(line) > 100 and "shadowfuzz " not in line and str(tmp_path) not in line]
        assert wide == []
    for known in (10**room for room in range(0, 60, 3)):  # less and less room is left on the line
        assert screen(replace(full, divergences_known=known))
    shown = screen(full)
    assert "NEW      9 problems to look at, 18 clusters\n  N1  words words" in shown
    assert "and 1 cluster more; seen 1 200 times, reproduced 2 of 2\n      x show\n" in shown
    assert "and 6 more: shadowfuzz findings --new --campaign" in shown and "and 12 more; ~ by signature" in shown
    assert "3 dead workers" in shown and "shadowfuzz triage --new --target fake --campaign " in shown
    assert screen(plain).splitlines()[1:3] == ["NEW      nothing", "KNOWN    no erratum of this kernel occurred"]


def test_problems_are_new_and_errata_are_known_by_cause(tmp_path: Path) -> None:
    kept = [Regression("old-bug", "It does.", "", "kvm", "", ("fake",), ("restore.xN/HVC64/prep_hvc",), ("s",))]
    caused = DIVERGENCE._replace(cause="old-bug")
    first, then = Divergence("host", "pc", 1, 2, "WFX", 4, 0), Divergence("host", "x1", 1, 2, "HVC64", 9, 0)
    b = make_worker(tmp_path, *[checked(caused, then, first)] * 3, *[checked(DIVERGENCE)] * 3)
    b.worker.run_input(TEXT)
    b.worker.run_input(TEXT)
    result = summary_of(tmp_path, Outcome(read_stats(tmp_path / "stats"), 1.0, (), "", False), kept)
    (problem,) = result.problems
    assert (problem.what, len(problem.clusters)) == ("host.pc at WFX: expected 0x1, observed 0x2", 2)
    assert (problem.hits, problem.runs, problem.members) == (2, 2, 2)
    assert problem.show == f"shadowfuzz findings show {problem.id} --campaign {tmp_path}"
    assert result.errata == (ErratumSeen("old-bug", "It does.", 2, 1, 2),)
    table = json.loads(json.dumps(result.to_json()))
    assert table["version"] == 2 and table["problems"][0]["id"] == problem.id and table["errata"][0]["clusters"] == 2


def test_the_screen_shows_whether_coverage_still_grows(tmp_path: Path) -> None:
    course = tuple((float(second), 100 + second) for second in range(61))
    stats = read_stats(tmp_path / "stats")
    growing = summary_of(tmp_path, Outcome(stats, 60.0, (), "", False, course))
    assert (growing.growth, growing.growth_seconds) == (round(160 / 150 - 1, 4), 10.0)
    assert "; last 10 s: +6.7%" in screen(growing)
    still = summary_of(tmp_path, Outcome(stats, 7200.0, (), "", False, ((100.0, 9), (6700.0, 9), (7200.0, 9))))
    assert "; last 600 s: none new" in screen(still)
    short = summary_of(tmp_path, Outcome(stats, 5.0, (), "", False, ((0.0, 0), (4.0, 7), (5.0, 9))))
    assert short.growth is None and "; last" not in screen(short)
