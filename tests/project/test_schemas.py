# SPDX-License-Identifier: Apache-2.0
"""The schemas in docs/schema list every key of the JSON that is written.  The API's: unit/fuzz/cli/test_report.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fuzz.campaign.campaign_results import Cluster, ErratumSeen, ProblemSeen
from fuzz.campaign.counters_file import StatsWriter, read_stats
from fuzz.campaign.parent import Outcome
from fuzz.campaign.summary import VERSION, Summary
from fuzz.cli.main import main
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import kept_rows
from tests.support.kept import filled
from tests.support.paths import ROOT
from tests.support.schemas import check_schema, schema_of
from tests.support.summaries import summary_of


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "schema" / f"{name}.json").read_text())
    return found


def summary_schema() -> dict[str, Any]:
    """Return the schema of a summary, from its dataclass."""
    own = schema_of(Summary)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "summary.json of a campaign, and `shadowfuzz fuzz --json`",
        "description": "docs/formats.md says what the keys mean. Keys that are not listed may be there.",
        "type": "object",
        "required": ["version", *own["required"]],
        "properties": {"version": {"const": VERSION}, **own["properties"]},
        "$defs": {kind.__name__: schema_of(kind) for kind in (Cluster, ProblemSeen, ErratumSeen)},
    }


def test_the_schema_of_a_summary_is_that_of_its_dataclass() -> None:
    """UPDATE_DOCS=1 rewrites it."""
    text = json.dumps(summary_schema(), indent=1) + "\n"
    path = ROOT / "docs" / "schema" / "summary.json"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("new", [False, True])
def test_summary(tmp_path: Path, new: bool) -> None:
    filled(tmp_path)
    stats = StatsWriter(tmp_path / "stats")
    for id_ in Store(Database(default_url(tmp_path)), FINDINGS).ids():
        stats.add("crashes" if id_.startswith("crash") else "unexplained", id_, 3)
    stats.add("exits", "WFX", 5)
    outcome = Outcome(read_stats(tmp_path / "stats"), 1.5, ("one died",), "", False)
    summary = summary_of(tmp_path, outcome, () if new else kept_rows())
    assert summary.findings and summary.problems and bool(summary.errata) != new
    check_schema(schema("summary"), json.loads(json.dumps(summary.to_json())))


def test_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    assert main(["findings", "--format", "json", "--out", str(tmp_path)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert any(finding["sites"] for finding in document["findings"])
    assert any(finding["crash"] for finding in document["findings"])
    check_schema(schema("findings"), document)


def test_a_schema_can_fail(tmp_path: Path) -> None:
    for document in ({"version": 1}, {"version": 1, "findings": [{}], "unreadable": []}, []):
        with pytest.raises(Exception, match=r"is a required property|is not of type"):
            check_schema(schema("findings"), document)
