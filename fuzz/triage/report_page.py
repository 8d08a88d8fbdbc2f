# SPDX-License-Identifier: Apache-2.0
"""Write the report of a campaign as one HTML page."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fuzz.campaign.counters_file import merge, read_stats
from fuzz.campaign.parent import RUN
from fuzz.corpus.coverage_survey import possible_decisions
from fuzz.paths import KNOWN_DIR
from fuzz.store.database import Database
from fuzz.store.kept_findings import read_findings
from fuzz.store.nodes import Nodes
from fuzz.store.runs import History
from fuzz.triage.metrics import exposition, read_standing
from fuzz.triage.report_site import AsCalled, Site
from harness.findings.known_divergences import Catalogue
from harness.output_file import write_whole
from harness.report.campaign_data import Annotation, Book, branches, known_hits
from harness.report.html_report import page
from harness.report.problem_data import errata_of, problems_of

SERVER_SECONDS = 30.0
"""Interval at which a database on a server is read again while a page is requested."""


def write_report(database: Database, campaign: Path, out: Path, as_called: AsCalled = str) -> int:
    """Write the report to the file ``out``, atomically; return its size in bytes.

    ``as_called`` replaces the program's name in the page's commands.
    """
    text = as_called(page(book_of(database, campaign)))
    write_whole(out, text)
    return len(text.encode())


def site_of(database: Database, campaign: Path, as_called: AsCalled = str) -> Site:
    """Return the pages of a campaign for a server; they are made again when the database changes.

    ``as_called`` as for :func:`write_report`.  InputError: the database's URL is invalid.
    """
    file = database.file
    paths = () if file is None else (file, Path(f"{file}-wal"))

    def stamp() -> object:
        # A database that is no file is assumed to change at intervals.
        return tuple(map(_state, paths)) if paths else int(time.monotonic() / SERVER_SECONDS)

    return Site(lambda: book_of(database, campaign), stamp, lambda: exposition(read_standing(database)), as_called)


def _state(path: Path) -> tuple[int, int]:
    try:
        now = path.stat()
    except OSError:
        return 0, 0
    return now.st_mtime_ns, now.st_size


def book_of(database: Database, campaign: Path | None = None) -> Book:
    """Read the data of a report; ``campaign`` is the directory with the statistics of its last run.

    InputError: the database cannot be read.
    """
    (runs, no_runs), kept = History(database).readable(), read_findings(database)
    nodes, no_nodes = Nodes(database).readable()
    found = kept.stories
    if campaign is not None and runs and runs[-1].summary is None:
        stats = merge(map(read_stats, (campaign / RUN).glob("*.stats")))
        live = {"branches": stats.group("branches"), "known_by_entry": stats.group("known")}
        runs = (*runs[:-1], replace(runs[-1], live=live))
    levels = dict.fromkeys(["spec", *(story.kept.finding.subject.level for story in found)])
    entries = [e for level in levels for e in Catalogue.load(KNOWN_DIR, level).entries]
    possible = {decision for level in levels for decision in _possible(level)}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    version = importlib.metadata.version("shadowfuzz")
    return Book(
        *(made, version, found, runs, known_hits(entries, runs), branches(runs, possible)),
        problems=problems_of(found, kept.examples),
        errata=errata_of(found),
        errata_words={row.id: row.does for row in kept.rows},
        releases={row.id: row.releases for row in kept.rows},
        said={id_: Annotation(mark.status, mark.assignee, mark.note) for id_, mark in kept.marks.items()},
        out="" if campaign is None else str(campaign),
        unreadable=tuple(map(str, (*kept.unreadable, *no_runs, *no_nodes))),
        nodes=nodes,
    )


_possible = cache(possible_decisions)
"""Cached: it takes half a second and is constant."""
