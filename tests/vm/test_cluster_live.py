# SPDX-License-Identifier: Apache-2.0
"""A campaign on three Ray nodes and a real PostgreSQL; what was confirmed survives whatever is killed.

``python -m tests.vm.clustering 50`` kills fifty times, in every way.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.cluster.node_job import PLACES
from fuzz.cluster.triage_actor import TriageActor
from fuzz.cluster.triage_job import Result, TriageJob
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import read_stories, story_of
from fuzz.store.runs import History
from fuzz.triage.triage import in_order, is_waiting
from harness.vm.build.prepare import prepare
from harness.vm.cache import default_root
from harness.vm.config import load_config
from tests.support.postgres import server
from tests.vm.clustering import campaign, check_nothing_lost, fleet, kill_again_and_again
from tests.vm.crashing import BRK, EL1, crashing

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
