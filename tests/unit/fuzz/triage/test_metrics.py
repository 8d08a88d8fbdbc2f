# SPDX-License-Identifier: Apache-2.0
"""The numbers that Prometheus asks for; dashboard and alerts use none that is not there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fuzz.store.database import Database, default_url
from fuzz.store.nodes import Nodes
from fuzz.store.runs import History
from fuzz.triage.metrics import exposition, read_standing
from fuzz.triage.report_page import site_of
from fuzz.triage.report_site import METRICS
from harness.errors import InputError
from harness.report.campaign_data import NodeRow, Sample
from tests.support.kept import filled
from tests.support.paths import ROOT

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
MONITORING = ROOT / "tools" / "monitoring"


def samples_of(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = filled(tmp_path)
    history = History(found)
    run = history.begin("2027-01-01", {})
    history.sample(run, Sample(5, 1, 10, 3, 1))
    history.sample(run, Sample(10, 2, 20, 4, 1))
    row = NodeRow(run, "n1", 'a "host"\n', "kvm-nvhe", "running", "2027", 2, 7, 70, 5, 9)
    Nodes(found).put([row, replace(row, node="n2", state="lost: it left", workers=0, rate=0)])
    return found


def test_what_there_is(database: Database) -> None:
    found = samples_of(exposition(read_standing(database)))
    node = (("host", 'a "host"\n'), ("node", "n1"), ("target", "kvm-nvhe"))
    assert found["shadowfuzz_running", ()] == 1
    assert found["shadowfuzz_run_checked_exits", ()] == 20 and found["shadowfuzz_run_second", ()] == 10
    assert found["shadowfuzz_node_checked_exits_total", node] == 70 and found["shadowfuzz_node_workers", node] == 2
    states = {labels[0][1]: value for (name, labels), value in found.items() if name == "shadowfuzz_nodes"}
    assert states == {"running": 1, "lost": 1, "failed": 0}, "the run before is not counted"
    assert found["shadowfuzz_findings", (("kind", "crash"), ("shelf", "findings"))] == 2
    assert [value for (name, _), value in found.items() if name == "shadowfuzz_corpus_scenarios"] == [1]


def test_a_run_that_ended_and_an_empty_database(database: Database, tmp_path: Path) -> None:
    run = History(database).runs()[-1].id
    History(database).end(run, {})
    assert samples_of(exposition(read_standing(database)))["shadowfuzz_running", ()] == 0
    (tmp_path / "new").mkdir()
    found = samples_of(exposition(read_standing(Database(default_url(tmp_path / "new")))))
    assert found["shadowfuzz_running", ()] == 0 and found["shadowfuzz_run_checked_exits", ()] == 0


def test_rows_of_nonsense_are_counted(database: Database) -> None:
    with database.access(write=True) as access:
        access.run("UPDATE nodes SET rate = 'x' WHERE node = 'n1'")
    found = samples_of(exposition(read_standing(database)))
    assert found["shadowfuzz_unreadable_rows", ()] >= 1 and found["shadowfuzz_nodes", (("state", "lost"),)] == 1


def test_they_are_served(database: Database, tmp_path: Path) -> None:
    site = site_of(database, tmp_path)
    answer = site.get(METRICS)
    assert answer.status == 200 and answer.kind.startswith("text/plain; version=0.0.4")
    assert samples_of(answer.plain.decode()) == samples_of(exposition(read_standing(database)))
    page = site.get("/").plain.decode()
    assert "1 node of 2 at work, 9 checked exits/s" in page and "lost: it left" in page and 'href="#nodes"' in page


def test_a_database_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "findings.db").write_text("no database, but long enough to be looked at\n" * 100)
    with pytest.raises(InputError):
        read_standing(Database(default_url(tmp_path)))
    answer = site_of(Database(default_url(tmp_path)), tmp_path).get(METRICS)
    assert answer.status == 500 and b"not a database" in answer.plain


def test_dashboard_and_alerts_use_what_there_is(database: Database) -> None:
    names = {name for name, _ in samples_of(exposition(read_standing(database)))}
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    used = {name for expression in expressions for name in re.findall(r"shadowfuzz_\w+", expression)}
    assert used and used <= names, used - names
