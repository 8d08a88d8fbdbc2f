# SPDX-License-Identifier: Apache-2.0
"""Store runs of campaigns in the database: options, start, samples of the counts, summary."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict

from fuzz.store.database import Database, Unreadable, name_of
from harness.report.campaign_data import Run, Sample

SAMPLE_SECONDS = 5
"""Interval of a campaign's samples."""


class History:
    """All runs of a database.  StoreError: it cannot be written.  InputError: it cannot be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, started: str, options: Mapping[str, object]) -> str:
        """Store the start of a campaign (ISO 8601, UTC); return the run's id."""
        id_ = uuid.uuid4().hex
        with self._database.access(write=True, durable=True) as access:
            access.run(
                "INSERT INTO runs (id, started, document) VALUES (:id, :started, :document)",
                id=id_,
                started=started,
                document=json.dumps(options),
            )
        return id_

    def sample(self, run: str, sample: Sample) -> None:
        """Store a sample of a campaign's counts."""
        with self._database.access(write=True) as access:
            access.run(
                "INSERT INTO samples (run, second, scenarios, checked_exits, coverage, clusters) VALUES "
                "(:run, :second, :scenarios, :checked_exits, :coverage, :clusters) ON CONFLICT DO NOTHING",
                run=run,
                **asdict(sample),
            )

    def end(self, run: str, summary: Mapping[str, object]) -> None:
        """Store the summary of a campaign."""
        with self._database.access(write=True, durable=True) as access:
            access.run("UPDATE runs SET summary = :summary WHERE id = :id", id=run, summary=json.dumps(summary))

    def runs(self) -> tuple[Run, ...]:
        """Return all runs, the oldest first; rows that cannot be read are left out."""
        return self.readable()[0]

    def readable(self) -> tuple[tuple[Run, ...], tuple[Unreadable, ...]]:
        """Return all runs, the oldest first, and the rows that cannot be read."""
        with self._database.access() as access:
            rows, others = access.readable_rows("runs", "SELECT * FROM runs ORDER BY started, id")
            points, more = access.readable_rows("samples", "SELECT * FROM samples ORDER BY run, second")
        others += more
        samples: dict[str, list[Sample]] = {}
        for row in points:
            values = dict(row)
            samples.setdefault(values.pop("run"), []).append(Sample(**values))
        runs = []
        for row in rows:
            options, summary = _object(row["document"]), _object(row["summary"])
            if options is None or (summary is None and row["summary"] is not None):
                others.append(Unreadable(name_of("runs", row), "expected a JSON object"))
            else:
                runs.append(Run(row["id"], row["started"], options, summary, tuple(samples.get(row["id"], ()))))
        return tuple(runs), tuple(others)


def _object(text: str | None) -> dict[str, object] | None:
    """Return the JSON object of a text; None if it is no JSON object."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
