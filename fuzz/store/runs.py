# SPDX-License-Identifier: Apache-2.0
"""Runs of campaigns in the database: who, when, how it stood from time to time, how it ended."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict

from fuzz.store.database import Database
from harness.errors import InputError
from harness.report.campaign_data import Run, Sample

SAMPLE_SECONDS = 5
"""How often a campaign notes how it stands."""


class History:
    """All runs of a database.  StoreError: it cannot be written.  InputError: it cannot be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, started: str, asked: Mapping[str, object]) -> str:
        """Note that a campaign starts (ISO 8601, UTC); return the run's id."""
        id_ = uuid.uuid4().hex
        with self._database.access(write=True, durable=True) as access:
            access.run(
                "INSERT INTO runs (id, started, document) VALUES (:id, :started, :document)",
                id=id_,
                started=started,
                document=json.dumps(asked),
            )
        return id_

    def sample(self, run: str, sample: Sample) -> None:
        """Note how a campaign stands."""
        with self._database.access(write=True) as access:
            access.run(
                "INSERT INTO samples (run, second, scenarios, checked_exits, coverage, clusters) VALUES "
                "(:run, :second, :scenarios, :checked_exits, :coverage, :clusters) ON CONFLICT DO NOTHING",
                run=run,
                **asdict(sample),
            )

    def end(self, run: str, summary: Mapping[str, object]) -> None:
        """Note how a campaign ended."""
        with self._database.access(write=True, durable=True) as access:
            access.run("UPDATE runs SET summary = :summary WHERE id = :id", id=run, summary=json.dumps(summary))

    def runs(self) -> tuple[Run, ...]:
        """Return all runs, the oldest first."""
        with self._database.access() as access:
            rows = access.rows("SELECT * FROM runs ORDER BY started, id")
            samples: dict[str, list[Sample]] = {}
            for row in access.rows("SELECT * FROM samples ORDER BY run, second"):
                values = dict(row)
                samples.setdefault(values.pop("run"), []).append(Sample(**values))
        return tuple(
            Run(
                row["id"],
                row["started"],
                self._object(row["id"], row["document"]),
                None if row["summary"] is None else self._object(row["id"], row["summary"]),
                tuple(samples.get(row["id"], ())),
            )
            for row in rows
        )

    def _object(self, run: str, text: str) -> dict[str, object]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InputError(self._database.url, None, f"run {run[:40]!r}: expected a JSON object")
        return found
