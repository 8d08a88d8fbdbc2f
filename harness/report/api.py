# SPDX-License-Identifier: Apache-2.0
"""Build the JSON answers of ``shadowfuzz serve``, version 1: problems, errata, clusters, runs, nodes.  Pure.

Keys and types are in docs/schema/api.json.  A list has one row for each item; the detail of a cluster is its finding,
as in ``findings --format json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.findings.regressions import NEW
from harness.findings.verdict import rate_text, together
from harness.report.campaign_data import Annotation, Book
from harness.report.exchange_formats import story_json
from harness.report.finding_data import Story, cluster_name, groups, replay_command
from harness.report.glossary import in_words
from harness.report.nights import Change, nights_of, nights_with
from harness.report.problem_data import ErratumStory, ProblemStory

VERSION = 1
ROOT = f"/api/v{VERSION}"

Json = dict[str, Any]


def index(book: Book) -> Json:
    """Return the available resources, their numbers, and the time at which they were read."""
    names = ("problems", "errata", "clusters", "clusters/{id}", "runs", "nodes")
    return {
        **_head(book),
        "shadowfuzz": book.version,
        "places": {name: f"{ROOT}/{name}" for name in names},
        "unreadable": list(book.unreadable),
    }


def nodes(book: Book) -> Json:
    """Return the nodes of campaigns on many machines, as they stood when they were last heard of."""
    return {**_head(book), "nodes": [asdict(row) for row in book.nodes]}


def problems(book: Book) -> Json:
    """Return the problems, which no erratum explains, in the order of the page."""
    return {
        **_head(book),
        "problems": [_problem(problem, book) for problem in book.problems],
    }


def errata(book: Book) -> Json:
    """Return the errata that were observed again."""
    return {**_head(book), "errata": [_erratum(erratum, book) for erratum in book.errata]}


def clusters(book: Book) -> Json:
    """Return all clusters, one row for each, with the ids of their findings."""
    rows = [
        {
            "name": group.name,
            "kind": group.kind,
            "signature": list(group.signature),
            "new": group.new,
            "count": group.count,
            "targets": list(group.targets),
            "title": group.stories[0].title,
            "findings": [_row(story) for story in group.stories],
        }
        for group in groups(book.stories)
    ]
    return {**_head(book), "clusters": rows}


def cluster(book: Book, anchor: str) -> Json | None:
    """Return one finding in full; None: the id is unknown (that of a flaky finding begins with ``flaky-``)."""
    story = find(book, anchor)
    return None if story is None else {**_head(book), "finding": story_json(story)}


def runs(book: Book) -> Json:
    """Return all runs, the oldest first, each with its new and its missing clusters, problems and errata."""
    nights = {night.run.id: night for night in nights_of(book.runs)}
    rows = []
    for run in book.runs:
        night = nights.get(run.id)
        changes = (
            {} if night is None else {"problems": night.problems, "errata": night.errata, "clusters": night.clusters}
        )
        rows.append(
            {
                "id": run.id,
                "started": run.started,
                "ended": run.summary is not None,
                "target": str(run.asked.get("target", "")),
                "kernel_release": str(run.asked.get("kernel_release", "")),
                **{key: run.number(key) for key in ("seconds", "scenarios", "checked_exits_per_s", "coverage")},
                "changes": {name: None if change is None else _change(change) for name, change in changes.items()},
            }
        )
    return {**_head(book), "runs": rows}


def find(book: Book, anchor: str) -> Story | None:
    """Return the finding with an anchor of the page."""
    return next((story for story in book.stories if story.anchor == anchor), None)


def _head(book: Book) -> Json:
    return {"version": VERSION, "made": book.made}


def _row(story: Story) -> Json:
    finding = story.kept.finding
    return {
        "id": story.id,
        "detail": f"{ROOT}/clusters/{story.anchor}",
        "confirmed": story.kept.confirmed,
        "verdict": story.verdict.name,
        "title": story.title,
        "like": list(story.like),
        "count": story.kept.count,
        "target": finding.where,
        "kernel_release": finding.subject.kernel_release,
        "first_seen": finding.first_seen,
        "last_seen": story.kept.last_seen,
    }


def _problem(problem: ProblemStory, book: Book) -> Json:
    first = problem.stories[0]
    stages = first.evidence.stages if first.evidence is not None else ()
    mark = book.said.get(problem.id, Annotation(NEW, "", ""))
    found, ended = nights_with(book.runs, (story.id for story in problem.stories))
    return {
        "id": problem.id,
        "words": in_words(first.kept.finding),
        "title": first.title,
        "cluster": cluster_name(first.kept.finding),
        "verdict": first.verdict.name,
        "why": first.verdict.why,
        "rate": rate_text(together(stages)) if stages else "",
        "count": problem.count,
        "runs": [found, ended],
        "first_seen": problem.first_seen,
        "last_seen": problem.last_seen,
        "status": mark.status,
        "assignee": mark.assignee,
        "note": mark.note,
        "replay": replay_command(first.kept, book.out, first.crash),
        "findings": [_row(story) for story in problem.stories],
    }


def _erratum(erratum: ErratumStory, book: Book) -> Json:
    return {
        "id": erratum.id,
        "does": book.errata_words.get(erratum.id, ""),
        "count": erratum.count,
        "clusters": len(erratum.stories),
        "by_signature": erratum.by_signature,
        "last_seen": erratum.last_seen,
        "releases": {mode: list(spans) for mode, spans in book.releases.get(erratum.id, {}).items()},
        "findings": [_row(story) for story in erratum.stories],
    }


def _change(change: Change) -> Mapping[str, list[str]]:
    return {"new": list(change.new), "gone": list(change.gone)}
