# SPDX-License-Identifier: Apache-2.0
"""A worker's job as text: it is read unchanged, and any other text is one clear error."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.campaign.limits import BOTH, KVM, MODEL
from fuzz.campaign.worker_job import Launcher, WorkerJob
from fuzz.targets.options import TargetOptions
from harness.errors import InputError

PLAIN = WorkerJob(TargetOptions("kvm-nvhe", "spec"), 7, Path("out"), "sqlite:///x", Path("out/run/a.stats"), 1)
FULL = WorkerJob(
    TargetOptions("a", "kernel", Path("/k/Im age"), "b", cold=True, deterministic=True, hyp_copy=None),
    (1 << 32) - 1,
    Path(os.fsdecode(b"/tmp/\xff'\"")),  # a directory's name may be no valid UTF-8
    "sqlite:////tmp/findings.db",
    Path("run/worker-0-0.stats"),
    4242,
    BOTH,
    Path("run/worker-0-0.edges"),
)
ROW = json.loads(PLAIN.to_json())


@pytest.mark.parametrize("job", [PLAIN, FULL])
def test_a_job_is_read_unchanged(job: WorkerJob) -> None:
    assert WorkerJob.from_json(job.to_json()) == job
    python, *module, text = shlex.split(job.command)
    assert (python, module) == (sys.executable, ["-m", "fuzz.campaign.worker_start"])
    assert WorkerJob.from_json(text) == job


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "expected an object"),
        (json.dumps({**ROW, "more": 1}), "more is unknown"),
        (json.dumps({name: value for name, value in ROW.items() if name != "out"}), "out is missing"),
        (json.dumps({**ROW, "seed": "1"}), "seed is '1', expected int"),
        (json.dumps({**ROW, "seed": True}), "seed is True, expected int"),
        (json.dumps({**ROW, "edges": 1}), "edges is 1, expected str or null"),
        (json.dumps({**ROW, "coverage": "all"}), "coverage is 'all', expected one of model, kvm, both"),
        (json.dumps({**ROW, "targets": {}}), "against is missing"),
        (json.dumps({**ROW, "targets": {**ROW["targets"], "cold": None}}), "cold is None, expected bool"),
    ],
)
def test_other_text_is_one_error(text: str, why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)) as error:
        WorkerJob.from_json(text)
    assert str(error.value).startswith("worker job: not what WorkerJob.to_json writes: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_incarnations_of_workers_have_different_seeds() -> None:
    launch = Launcher(TargetOptions("t", "spec"), (1 << 32) - 1, Path("out"), "sqlite://", "model")
    seeds = {launch.job(index, life, Path("stats")).seed for index in range(4) for life in range(4)}
    assert len(seeds) == 16 and all(0 <= seed < 1 << 32 for seed in seeds)
    assert launch.job(0, 0, Path("stats")).parent == os.getpid()


@pytest.mark.parametrize(("argv", "why"), [([], "0 arguments"), (["{}"], "worker job: "), (["a", "b"], "2 arguments")])
def test_a_worker_process_rejects_other_text_in_one_line(argv: list[str], why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.campaign.worker_start", *argv], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and why in done.stderr


def test_a_worker_whose_parent_died_ends(tmp_path: Path) -> None:
    job = WorkerJob(TargetOptions("t", "spec"), 1, tmp_path, "sqlite://", tmp_path / "stats", 1)
    assert subprocess.run(["sh", "-c", job.command], capture_output=True, timeout=60).returncode == 3
    assert not (tmp_path / "stats").exists()


@pytest.mark.parametrize(
    ("coverage", "watched", "counted"), [(MODEL, False, False), (MODEL, True, True), (KVM, False, True)]
)
def test_workers_count_edges_if_required(coverage: str, watched: bool, counted: bool) -> None:
    launch = Launcher(TargetOptions("t", "spec"), 1, Path("out"), "sqlite://", coverage, watched)
    job = WorkerJob.from_json(launch(0, 0, Path("run/worker-0-0.stats"))[-1])
    assert job.coverage == coverage
    assert job.edges == (Path("run/worker-0-0.edges") if counted else None)


@pytest.mark.parametrize("wanted", [None, True, False])
def test_a_worker_gets_the_options_of_the_campaign(wanted: bool | None) -> None:
    launch = Launcher(TargetOptions("t", "spec", hyp_copy=wanted), 1, Path("out"), "sqlite://", "model")
    assert WorkerJob.from_json(launch(0, 0, Path("stats"))[-1]).targets.hyp_copy is wanted
