# SPDX-License-Identifier: Apache-2.0
"""2 000 damaged rows in a campaign's database: every reader shows the good ones, and returns its usual status.

``SHADOWFUZZ_DAMAGED_SEEDS=50`` tests more sets of rows.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fuzz.cli.main import main
from fuzz.store.database import FILE, Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import stories
from fuzz.triage.report_page import site_of
from fuzz.triage.report_site import Site
from harness.findings.checked import signature
from harness.findings.finding import finding_id
from harness.report import api
from tests.support.damage import damage
from tests.support.fake_worker import DIVERGENCE, SUBJECT, TEXT, checked, make_worker
from tests.support.kept import filled

Capture = pytest.CaptureFixture[str]
ROWS = 2000
SEEDS = range(1, 1 + int(os.environ.get("SHADOWFUZZ_DAMAGED_SEEDS", "1")))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_reader(seed: int, tmp_path: Path, capsys: Capture) -> None:
    database = filled(tmp_path)
    good = {story.id for story in stories(database)}
    assert len(good) >= 8
    database.close()
    damage(tmp_path / FILE, ROWS, seed)
    out = ("--out", str(tmp_path))

    def run(*argv: str) -> tuple[str, str]:
        status = main(list(argv))
        text, said = capsys.readouterr()
        assert status in (0, 1), (argv, status, said[-500:])
        assert "Traceback" not in said and said.count("\n") <= 10, said
        return text, said

    text, said = run("findings", "--clusters", *out)
    assert all(id_ in text for id_ in good)
    assert "rows of the database cannot be read, the others are shown" in said
    text, _ = run("findings", *out)
    assert "errata that occurred again" in text
    text, _ = run("findings", "--format", "json", *out)
    assert good <= {finding["id"] for finding in json.loads(text)["findings"]}
    text, _ = run("findings", "--format", "sarif", *out)
    assert good <= {result["properties"]["finding"] for result in json.loads(text)["runs"][0]["results"]}
    text, _ = run("findings", "--format", "junit", *out)
    assert good <= {case.get("name", "").split()[0] for case in ElementTree.fromstring(text)}
    run("report", "--campaign", str(tmp_path), "--out", str(tmp_path / "r.html"))
    assert "cannot be read" in (tmp_path / "r.html").read_text()
    for id_ in sorted(good):
        assert id_ in run("findings", "show", id_, *out)[0]
    site = site_of(Database(default_url(tmp_path)), tmp_path)
    for path in ("/", *(f"{api.ROOT}{place}" for place in ("", "/problems", "/errata", "/clusters", "/runs"))):
        assert site.get(path).status == 200, path
    for id_ in good:
        assert site.get(f"{api.ROOT}/clusters/{id_}").status == 200 or id_ not in _shown(site)
    with_scenario = next(story for story in stories(database) if story.kept.scenario and story.id in good)
    run("export", with_scenario.id, "--to", str(tmp_path / "handover"), *out)
    run("findings", "set", with_scenario.id, "--status", "reported", *out)
    for name in (id_ for id_ in _ids(tmp_path) if id_ not in good):
        status = main(["findings", "show", name, *out])
        said = capsys.readouterr().err
        assert status in (0, 2) and "Traceback" not in said and said.count("\n") <= 1, (name, said)


def test_a_campaign_goes_on(tmp_path: Path) -> None:
    filled(tmp_path).close()
    damage(tmp_path / FILE, ROWS)
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 3)
    b.worker.run_input(TEXT)
    b.worker.close()
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    assert finding_id("divergence", signature(DIVERGENCE), SUBJECT) in store.ids()


def _shown(site: Site) -> set[str]:
    """Return the ids of confirmed findings, without flaky ones."""
    rows = json.loads(site.get(f"{api.ROOT}/clusters").plain)["clusters"]
    return {one["id"] for row in rows for one in row["findings"] if one["confirmed"]}


def _ids(root: Path) -> list[str]:
    with sqlite3.connect(root / FILE) as connection:
        return [id_ for (id_,) in connection.execute("SELECT id FROM findings ORDER BY id LIMIT 25 OFFSET 100")]
