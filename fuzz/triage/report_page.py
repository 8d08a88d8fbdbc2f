# SPDX-License-Identifier: Apache-2.0
"""Write the report of a campaign as one HTML page."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fuzz.campaign.counters_file import merge, read_stats
from fuzz.campaign.parent import RUN
from fuzz.corpus.coverage_survey import possible_decisions
from fuzz.paths import KNOWN_DIR
from fuzz.store.database import Database
from fuzz.store.kept_findings import all_examples, kept_rows, stories
from fuzz.store.runs import History
from harness.findings.known_divergences import Catalogue
from harness.output_file import write_whole
from harness.report.campaign_data import Book, branches, known_hits
from harness.report.html_report import page
from harness.report.problem_data import errata_of, problems_of


def write_report(database: Database, campaign: Path, out: Path) -> int:
    """Write the report to ``out``, whole or not at all; return its size in bytes."""
    text = page(book_of(database, campaign))
    write_whole(out, text)
    return len(text.encode())


def book_of(database: Database, campaign: Path | None = None) -> Book:
    """Read all that a report tells; ``campaign`` is the directory with the statistics of its last run.

    InputError: the database cannot be read.
    """
    runs, found = History(database).runs(), stories(database)
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
        problems=problems_of(found, all_examples(database)),
        errata=errata_of(found),
        errata_words={row.id: row.does for row in kept_rows()},
    )


_possible = cache(possible_decisions)
"""Takes half a second, and is always the same."""
