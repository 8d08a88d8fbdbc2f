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
from fuzz.cluster.left_behind import DUMPS
from fuzz.cluster.node_job import PLACES
from fuzz.store.database import Database
from fuzz.store.runs import History
from harness.vm.cache import default_root
from tests.support.postgres import server
from tests.vm.clustering import campaign, check_nothing_lost, fleet, kill_again_and_again

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray (70 MB) is not installed: pip install 'shadowfuzz[cluster]', then run this file again",
)


def test_nothing_confirmed_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server() as postgres, fleet(3) as nodes:
        out = tmp_path / "out"
        with campaign(nodes, postgres.url, out, "--seconds", "3600", "--jobs", "1") as running:
            running.wait_for(lambda: running.exits() > 0, 180, "first exits")
            toll = kill_again_and_again(running, nodes, postgres, ["actor", "node", "postgres", "connection"], 1)
            summary = running.end()
        assert sum(toll.kills.values()) == 4
        assert summary["interrupted"] and not summary["failure"] and not summary["findings_unwritten"]
        found, members = check_nothing_lost(running, postgres.url)
        assert found >= 1 and members >= found
        assert summary["corpus"] > 10 and summary["coverage"] > 10
        (run,) = History(Database(postgres.url)).runs()
        assert run.summary == {name: value for name, value in summary.items() if name != "command"}
        left = (default_root(os.environ) / PLACES / run.id).glob("*/*")
        assert {path.name for path in left} <= {DUMPS}, "nodes leave nothing behind but the memory of lost machines"
        assert main(["findings", "--store", postgres.url]) in (0, 1)
        assert "errata that came back" in capsys.readouterr().out


def test_a_cluster_on_this_machine_ends_with_the_campaign(tmp_path: Path) -> None:
    """Without PostgreSQL: the nodes of a local cluster share the file in the campaign's directory."""
    out = tmp_path / "out"
    assert main(["fuzz", "--cluster", "local", "--seconds", "5", "--jobs", "1", "--quiet", "--out", str(out)]) in (0, 1)
    assert (out / "summary.json").exists() and len(list((out / "corpus").iterdir())) > 10
