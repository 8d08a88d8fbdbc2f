# SPDX-License-Identifier: Apache-2.0
"""A campaign on three Ray nodes and a real PostgreSQL; what was confirmed survives whatever is killed.

``python -m tests.vm.clustering 50`` kills fifty times, in every way.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.cluster.cell_actor import CellActor
from fuzz.cluster.cell_job import cell_tasks, read_answer
from fuzz.cluster.node_job import PLACES
from fuzz.cluster.triage_actor import TriageActor
from fuzz.cluster.triage_job import Result, TriageJob
from fuzz.paths import CORPUS
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import read_stories, story_of
from fuzz.store.runs import History
from fuzz.triage.matrix import MatrixWork, make_case, read_results
from fuzz.triage.matrix_run import MatrixPlan, run_matrix
from fuzz.triage.triage import in_order, is_waiting
from harness.scenario.scenario import load
from harness.vm.build.prepare import prepare
from harness.vm.cache import default_root
from harness.vm.config import DEFAULT_TARGET, load_config
from tests.support.postgres import server
from tests.vm.clustering import campaign, check_nothing_lost, fleet, kill_again_and_again
from tests.vm.crashing import BRK, EL1, crashing

REGRESSIONS = CORPUS / "regressions"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray (70 MB) is not installed: pip install 'shadowfuzz[cluster]', then run this file again",
)


def test_nothing_confirmed_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server() as postgres, fleet(3) as nodes:
        out = tmp_path / "out"
        with campaign(nodes, postgres.url, out, "--seconds", "3600", "--jobs", "1") as running:
            running.wait_for(lambda: running.exits() > 0, 180, "first exits")
            toll = kill_again_and_again(running, nodes, postgres, ["actor", "node", "postgres"], 1)
            summary = running.end()
        assert sum(toll.kills.values()) == 3
        assert summary["interrupted"] and not summary["failure"] and not summary["findings_unwritten"]
        found, members = check_nothing_lost(running, postgres.url)
        assert found >= 1 and members >= found
        assert summary["corpus"] > 10 and summary["coverage"] > 10
        (run,) = History(Database(postgres.url)).runs()
        assert run.summary == {name: value for name, value in summary.items() if name != "command"}
        left = (default_root(os.environ) / PLACES / run.id).glob("*")
        assert not [path.name for path in left if not path.name.startswith(DUMPS)], "only memory dumps are left"
        assert main(["findings", "--store", postgres.url]) in (0, 1)
        assert "esr-el1-sign-extended" in capsys.readouterr().out


def test_a_campaign_and_triage_on_a_cluster_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without PostgreSQL: the nodes of a local cluster share the file in the campaign's directory."""
    out = tmp_path / "out"
    assert main(["fuzz", "--cluster", "local", "--seconds", "5", "--jobs", "1", "--quiet", "--out", str(out)]) in (0, 1)
    assert (out / "summary.json").exists() and len(list((out / "corpus").iterdir())) > 10
    database = Database(default_url(out))
    store = Store(database, FINDINGS)
    one, *others = in_order(story for story in read_stories(store)[0] if is_waiting(story))
    with database.access(write=True) as access:
        for story in others:
            access.run("DELETE FROM findings WHERE id = :id", id=story.id)
    assert main(["triage", "--cluster", "local", "--runs", "2", "--campaign", str(out)]) == 0
    assert f"1 of 1: {one.id}" in capsys.readouterr().err
    assert not is_waiting(story_of(store, one.id)) and store.load(one.id).same_vm.runs == 2


def test_a_matrix_on_a_cluster_is_that_of_one_machine(tmp_path: Path) -> None:
    """A node is killed while it works, another one joins: each cell is there, with the verdict of one machine."""
    names = ("abort_then_finish", "abort_in_aarch32_state", "mmio_load_signed_word")
    paths, targets = tuple(REGRESSIONS / f"{name}.scn" for name in names), (DEFAULT_TARGET, "kvm-vhe")
    one = run_matrix(MatrixPlan(paths, targets, results=tmp_path / "one.json"), lambda _: None)
    words = ["kernels", "matrix", *map(str, paths), "--results", str(tmp_path / "many.json")]
    words += [word for target in targets for word in ("--target", target)]
    with fleet(2) as nodes:
        argv = [sys.executable, "-m", "fuzz.cli.main", *words, "--cluster", nodes.address]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            while len(nodes.pids("ray::CellActor")) < 2:
                assert process.poll() is None
                time.sleep(0.25)
            nodes.lose(random.Random(1))
            nodes.add()
            assert process.wait(300) == 1
        finally:
            process.kill()
    many = read_results(tmp_path / "many.json").cells
    assert set(many) == set(one.results.cells)
    for key, cell in many.items():
        # How often a run was not checked depends on when interrupts came.
        assert replace(cell, unchecked={}) == replace(one.results.cells[key], unchecked={})


def test_a_node_says_which_target_it_cannot_run(tmp_path: Path) -> None:
    case = make_case("hvc", load(REGRESSIONS / "mmio_load_signed_word.scn"))
    (task,) = cell_tasks(MatrixWork(f"{DEFAULT_TARGET}@{tmp_path}", (case,), 1))
    actor = CellActor("")
    result = read_answer(task, actor.cells(task.question), "here")
    assert result.unable and not result.cells and str(tmp_path) in result.words
    actor.stop()


def test_memory_of_lost_machines_and_kernels_are_with_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel that dies: the finding names a dump that is there, and what the node had is there for others."""
    kernel = crashing(prepare(load_config("kvm-nvhe")).kernel, EL1, BRK, tmp_path)
    files, out = tmp_path / "files", tmp_path / "out"
    argv = ["fuzz", "--cluster", "local", "--jobs", "1", "--seconds", "30", "--quiet", "--out", str(out)]
    assert main([*argv, "--target", "kvm-nvhe", "--kernel", str(kernel), "--files", str(files)]) in (1, 3)
    capsys.readouterr()
    crashes = [story for story in read_stories(Store(Database(default_url(out)), FINDINGS))[0] if story.crash]
    assert crashes
    for story in crashes:
        assert story.crash is not None and story.crash.remains.dump is not None
        url = story.crash.remains.dump.path
        assert url.startswith(f"file://{files}/dumps/")
        assert Path(url.removeprefix("file://")).read_bytes()[:12] == b"makedumpfile"
        assert main(["findings", "show", story.id, "--campaign", str(out)]) == 0 and url in capsys.readouterr().out
    given = {path.name.partition("-")[0] for path in (files / "built" / "archives").iterdir()}
    assert "guest" in given and given & {"kernel", "image"}


def test_a_node_says_what_it_cannot_do(tmp_path: Path) -> None:
    actor = TriageActor(TriageJob(default_url(tmp_path), 1, False).to_json())
    result = Result.from_json(actor.triage("divergence-000000000000"), "here")
    assert "no such finding" in result.words and not result.again
    actor.stop()
