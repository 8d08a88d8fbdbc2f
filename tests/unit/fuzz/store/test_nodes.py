# SPDX-License-Identifier: Apache-2.0
"""How nodes stand: the last word counts, and a row of nonsense is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fuzz.store.database import Database, default_url
from fuzz.store.nodes import Nodes
from harness.report.campaign_data import NodeRow

ROW = NodeRow("run", "n1", "host", "", "preparing", "2027-01-01", 0, 0, 0, 0, 0)


def test_the_last_word_counts(tmp_path: Path) -> None:
    nodes = Nodes(Database(default_url(tmp_path)))
    nodes.put([ROW, replace(ROW, node="n2")])
    later = replace(ROW, target="kvm-nvhe", state="running", workers=2, rate=300, seen="2027-01-02")
    nodes.put([later])
    assert nodes.readable() == ((later, replace(ROW, node="n2")), ())
    with Database(default_url(tmp_path)).access(write=True) as access:
        access.run("UPDATE nodes SET rate = 'much' WHERE node = 'n1'")
    rows, (wrong,) = nodes.readable()
    assert rows == (replace(ROW, node="n2"),) and str(wrong).startswith(
        "nodes run n1 kvm-nvhe: column rate holds 'much'"
    )
