# SPDX-License-Identifier: Apache-2.0
"""The schemas in docs/schema list every key of the JSON that is written.  The API's: unit/fuzz/cli/test_report.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
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
from fuzz.store.kept_findings import kept_rows, stories
from harness.findings.finding import VERSION as FINDING_VERSION
from harness.findings.finding import Difference, Finding, Subject, Tries, to_json
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


def finding_schema() -> dict[str, Any]:
    """Return the schema of finding.json, from its dataclass; without ``other`` one target was tested."""
    own = schema_of(Finding)
    own["properties"]["other"] = {"$ref": "#/$defs/Subject"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "finding.json of a campaign's directory",
        "description": "docs/formats.md says what the keys mean. Keys that are not listed may be there.",
        "type": "object",
        "required": ["version", "id", *(name for name in own["required"] if name != "other")],
        "properties": {"version": {"const": FINDING_VERSION}, "id": {"type": "string"}, **own["properties"]},
        "$defs": {kind.__name__: schema_of(kind) for kind in (Subject, Difference, Tries)},
    }


@pytest.mark.parametrize(("name", "made"), [("summary", summary_schema), ("finding", finding_schema)])
def test_a_schema_is_that_of_its_dataclass(name: str, made: Callable[[], dict[str, Any]]) -> None:
    """UPDATE_DOCS=1 rewrites it."""
    text = json.dumps(made(), indent=1) + "\n"
    path = ROOT / "docs" / "schema" / f"{name}.json"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(text)
    assert path.read_text() == text


def test_finding(tmp_path: Path) -> None:
    for story in stories(filled(tmp_path)):
        finding = story.kept.finding
        check_schema(schema("finding"), json.loads(to_json(finding)))
        check_schema(schema("finding"), json.loads(to_json(replace(finding, other=finding.subject))))


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
