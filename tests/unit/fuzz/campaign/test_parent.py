# SPDX-License-Identifier: Apache-2.0
"""The parent of a campaign with fake workers, and the campaign's directory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fuzz.campaign import parent as campaign
from fuzz.campaign.parent import Launch, Outcome, Plan, Progress, campaign_directory, run_campaign
from harness.errors import InputError
from tests.support.summaries import summary_of

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
    """Return a launcher of fake workers that run a Python program."""

    def launch(_index: int, _incarnation: int, stats: Path) -> Sequence[str]:
        return [sys.executable, "-c", program, str(stats)]

    return launch


def alive(marker: str) -> bool:
    """Return whether a process with ``marker`` on its command line is alive."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in process.read_bytes():
                return True
        except OSError:
            continue
    return False


def run(out: Path, program: str, *, seconds: float = 1.0, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a campaign of two fake workers; check that no process is left."""
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


def test_a_worker_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "GRACE_SECONDS", 0.3)
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAKE_WORKER + "time.sleep(1000)"
    assert run(tmp_path, deaf).stats.get("count", "scenarios") == 20


def test_a_dead_worker_is_replaced_and_its_counts_stay(tmp_path: Path) -> None:
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


def test_a_worker_that_gives_up_reports_the_reason(tmp_path: Path) -> None:
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


# ---- the directory -----------------------------------------------------------------------------------------------


def test_a_directory_is_reopened(tmp_path: Path) -> None:
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


def test_seeds_for_a_protected_vm_need_a_protected_target(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    text = "shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n"
    (seeds / "plain.scn").write_text(text)
    (seeds / "protected.scn").write_text(f"{text}vcpu p.0\nhvc 0x0\n")
    for protected, names in ((False, ["plain.scn"]), (True, ["plain.scn", "protected.scn"])):
        out = tmp_path / str(protected)
        with campaign_directory(out, [seeds], protected=protected):
            assert sorted(path.name for path in (out / "corpus").iterdir()) == names


def test_an_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    reason = "cannot be the campaign's directory"
    with pytest.raises(InputError, match=reason), campaign_directory(tmp_path / "file", []):
        pass


def test_scenarios_of_several_directories_are_kept(tmp_path: Path) -> None:
    """Equal names are both copied; anything that is no file is ignored; no directory is required."""
    for name in ("one", "other", "empty"):
        (tmp_path / name).mkdir()
        if name != "empty":
            (tmp_path / name / "a.scn").write_text(name)
    os.mkfifo(tmp_path / "one" / "b.scn")
    with campaign_directory(tmp_path / "out", [tmp_path / "one", tmp_path / "other", tmp_path / "empty"]):
        there = {path.name: path.read_text() for path in (tmp_path / "out" / "corpus").iterdir()}
    assert there == {"a.scn": "one", "other-1-a.scn": "other"}
    with campaign_directory(tmp_path / "bare", []):
        assert list((tmp_path / "bare" / "corpus").iterdir()) == []
