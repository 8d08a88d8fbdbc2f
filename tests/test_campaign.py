# SPDX-License-Identifier: Apache-2.0
"""A campaign without a VM: counters that outlive their process, a parent of fake workers, its summary."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign import parent as campaign
from fuzz.campaign import summary
from fuzz.campaign.counters_file import COVERAGE_SIZE, EMPTY, SLOTS, StatsWriter, merge, read_stats
from fuzz.campaign.parent import Launch, Outcome, Plan, Progress, campaign_directory, run_campaign
from fuzz.campaign.status_line import NewClusterCounter, status_line
from fuzz.campaign.summary import CampaignOptions, summarise
from fuzz.cli.fuzz import add_parser
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from harness.errors import InputError, VmLost
from harness.findings.regressions import Regression
from harness.relations.divergence import Divergence
from tests.test_worker import DIVERGENCE, SUBJECT, TEXT, bench, checked

# ---- counters ----------------------------------------------------------------------------------------------------


def test_counters_are_read_while_they_are_written(tmp_path: Path) -> None:
    writer = StatsWriter(tmp_path / "s")
    writer.add("exits", "HVC64", 3)
    writer.add("exits", "HVC64")
    writer.add_all("exits", {"WFX": 7, "a/b \N{SNOWMAN}": 1})
    writer.put("time", "ready", 5)
    writer.saw(0)
    writer.saw(COVERAGE_SIZE - 1)
    stats = read_stats(tmp_path / "s")
    assert stats.group("exits") == {"WFX": 7, "HVC64": 4, "a/b \N{SNOWMAN}": 1}
    assert (stats.total("exits"), stats.get("time", "ready"), stats.coverage) == (12, 5, 2)
    assert writer.get("exits", "HVC64") == 4 and writer.get("exits", "none") == 0


def test_counters_outlive_a_killed_process(tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from fuzz.campaign.counters_file import StatsWriter
        stats = StatsWriter(Path({str(tmp_path / "s")!r}))
        for i in range(1234):
            stats.add("count", "scenarios")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode == -signal.SIGKILL
    assert read_stats(tmp_path / "s").get("count", "scenarios") == 1234


def test_more_names_than_room_are_counted_without_a_name(tmp_path: Path) -> None:
    writer = StatsWriter(tmp_path / "s")
    for i in range(SLOTS + 10):
        writer.add("unchecked", f"reason {i} " + "x" * 300)
    stats = read_stats(tmp_path / "s")
    assert stats.total("unchecked") + stats.total("overflow") == SLOTS + 10
    assert stats.total("overflow") == 11


@pytest.mark.parametrize("data", [b"", b"short", bytes(600_000)])
def test_a_file_of_something_else_counts_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    assert read_stats(tmp_path / "s") == EMPTY == read_stats(tmp_path / "absent")


def test_merge_adds_counts_and_takes_the_first_time(tmp_path: Path) -> None:
    for name, ready, index in (("a", 9, 1), ("b", 4, 2), ("c", 0, 1)):
        writer = StatsWriter(tmp_path / name)
        writer.add("exits", "WFX", 2)
        writer.put("time", "ready", ready)
        writer.saw(index)
    stats = merge(read_stats(tmp_path / name) for name in "abc")
    assert (stats.get("exits", "WFX"), stats.get("time", "ready"), stats.coverage) == (6, 4, 2)


# ---- a parent of fake workers ------------------------------------------------------------------------------------

FAKE_WORKER = """
import sys, time
from pathlib import Path
from fuzz.campaign.counters_file import StatsWriter
stats = StatsWriter(Path(sys.argv[1]))
stats.put("time", "ready", time.monotonic_ns())
stats.add("count", "scenarios", 10)
stats.add("exits", "HVC64", 10)
stats.add("count", "checked_exits", 8)
stats.put("time", "first_exit", time.monotonic_ns())
"""


def fake(program: str) -> Launch:
    """Return a launcher of fake workers that run a program."""

    def launch(_index: int, _incarnation: int, stats: Path) -> Sequence[str]:
        return [sys.executable, "-c", program, str(stats)]

    return launch


def alive(marker: str) -> bool:
    """Tell whether a process with ``marker`` on its command line lives."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in process.read_bytes():
                return True
        except OSError:
            continue
    return False


def run(out: Path, program: str, *, seconds: float = 1.0, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a campaign of two fake workers; no process may be left."""
    marker = f"# {out}\n"
    ticks: list[Progress] = []
    with campaign_directory(out, []):
        outcome = run_campaign(Plan(seconds, 2, out), fake(marker + program), ticks.append, stopped)
    assert ticks and not alive(marker.strip())
    return outcome


def test_workers_are_counted_and_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    outcome = run(tmp_path, FAKE_WORKER + "time.sleep(1000)")
    assert time.monotonic() - start < 10
    assert (outcome.failure, outcome.deaths, outcome.interrupted) == ("", (), False)
    assert (outcome.stats.get("count", "scenarios"), outcome.stats.total("exits")) == (20, 20)
    assert 1.0 <= outcome.seconds < 6


def test_a_worker_that_ignores_the_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "GRACE_SECONDS", 0.3)
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAKE_WORKER + "time.sleep(1000)"
    assert run(tmp_path, deaf).stats.get("count", "scenarios") == 20


def test_a_dead_worker_is_replaced_and_what_it_counted_stays(tmp_path: Path) -> None:
    die_once = FAKE_WORKER + "sys.exit(77) if sys.argv[1].endswith('-0-0.stats') else time.sleep(1000)"
    outcome = run(tmp_path, die_once, seconds=2.0)
    assert outcome.stats.get("count", "scenarios") == 30
    assert len(outcome.deaths) == 1 and "worker 0 ended with status 77" in outcome.deaths[0]
    assert outcome.failure == ""


def test_a_crash_loop_ends_the_campaign(tmp_path: Path) -> None:
    outcome = run(tmp_path, FAKE_WORKER + "sys.exit(77)", seconds=60.0)
    assert "die as soon as they are started" in outcome.failure
    assert outcome.stats.get("count", "scenarios") >= 10 * campaign.MAX_SHORT_LIVES
    assert summary_of(tmp_path, outcome).exit_status == 3


def test_a_worker_that_gives_up_says_why(tmp_path: Path) -> None:
    outcome = run(tmp_path, FAKE_WORKER + "stats.add('error', 'the machine was lost'); sys.exit(3)", seconds=60.0)
    assert outcome.failure == "the machine was lost"


def test_stopped_by_the_user(tmp_path: Path) -> None:
    outcome = run(tmp_path, FAKE_WORKER + "time.sleep(1000)", seconds=60.0, stopped=lambda: True)
    assert outcome.interrupted


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    marker = f"shadowfuzz-test-{os.getpid()}-{time.monotonic_ns()}"
    program = f"""
        from pathlib import Path
        import sys
        from fuzz.campaign.parent import Plan, campaign_directory, run_campaign
        out = Path({str(tmp_path)!r})
        worker = [sys.executable, "-c", "import time; time.sleep(1000)", {marker!r}]
        with campaign_directory(out, []):
            run_campaign(Plan(60, 2, out), lambda *_: worker, lambda _: print("tick", flush=True))
        """
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(0.3)
        parent.kill()
    deadline = time.monotonic() + 5
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(marker)


# ---- the directory and the summary -------------------------------------------------------------------------------


def test_a_directory_is_taken_up_again(tmp_path: Path) -> None:
    seeds, out = tmp_path / "seeds", tmp_path / "out"
    seeds.mkdir()
    (seeds / "one.scn").write_text("first")
    with campaign_directory(out, [seeds]):
        assert (out / "corpus" / "one.scn").read_text() == "first"
        (out / "corpus" / "found").write_text("by the fuzzer")
        (out / "run" / "worker-0-0.stats").write_bytes(b"old")
    (seeds / "two.scn").write_text("second")
    with campaign_directory(out, [seeds]):
        assert sorted(path.name for path in (out / "corpus").iterdir()) == ["found", "one.scn", "two.scn"]
        assert list((out / "run").iterdir()) == []
        with pytest.raises(InputError, match="another campaign"), campaign_directory(out, [seeds]):
            pass


def test_seeds_that_need_a_protected_vm_go_where_there_is_one(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    text = "shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n"
    (seeds / "plain.scn").write_text(text)
    (seeds / "protected.scn").write_text(f"{text}vcpu p.0\nhvc 0x0\n")
    for protected, names in ((False, ["plain.scn"]), (True, ["plain.scn", "protected.scn"])):
        out = tmp_path / str(protected)
        with campaign_directory(out, [seeds], protected=protected):
            assert sorted(path.name for path in (out / "corpus").iterdir()) == names


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    reason = "cannot be the campaign's directory"
    with pytest.raises(InputError, match=reason), campaign_directory(tmp_path / "file", []):
        pass


def summary_of(
    out: Path, outcome: Outcome, kept: Sequence[Regression] = (), *, accept_kept: bool = False
) -> summary.Summary:
    """Return the summary of a campaign that began a second ago."""
    (out / "corpus").mkdir(exist_ok=True)
    url = default_url(out)
    Store(Database(url), FINDINGS).export(out / FINDINGS)
    began = time.monotonic() - 1
    asked = CampaignOptions((SUBJECT,), ("fake",), Path("an image"), 7, 2, out, began, url, accept_kept=accept_kept)
    return summarise(asked, outcome, kept)


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


@pytest.mark.parametrize(
    "argv",
    [["--seconds", "0"], ["--seconds", "nan"], ["--jobs", "0"], ["--jobs", "1.5"], ["--seed", "-1"], ["--level", "x"]],
)
def test_bad_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["fuzz", *argv])
    assert stop.value.code == 2 and argv[0] in capsys.readouterr().err
