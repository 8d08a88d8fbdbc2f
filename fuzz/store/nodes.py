# SPDX-License-Identifier: Apache-2.0
"""The nodes of campaigns on many machines, in the database: where each is, and how it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fuzz.store.database import Database, Unreadable
from harness.report.campaign_data import NodeRow

LOST, ENDED = "lost", "ended"
"""States of nodes that do nothing any more: they are gone, or were ended."""


class Nodes:
    """All nodes of a database.  StoreError: it cannot be written.  InputError: it cannot be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, rows: Sequence[NodeRow]) -> None:
        """Note how nodes stand, whatever was known of them."""
        with self._database.access(write=True) as access:
            access.run_many(
                "INSERT INTO nodes (run, node, host, target, state, seen, workers, scenarios, checked_exits, coverage, "
                "rate) VALUES (:run, :node, :host, :target, :state, :seen, :workers, :scenarios, :checked_exits, "
                ":coverage, :rate) ON CONFLICT (run, node) DO UPDATE SET target = excluded.target, "
                "state = excluded.state, seen = excluded.seen, workers = excluded.workers, "
                "scenarios = excluded.scenarios, checked_exits = excluded.checked_exits, "
                "coverage = excluded.coverage, rate = excluded.rate",
                [asdict(row) for row in rows],
            )

    def readable(self) -> tuple[tuple[NodeRow, ...], tuple[Unreadable, ...]]:
        """Return all nodes, and the rows that cannot be read."""
        with self._database.access() as access:
            rows, others = access.readable_rows("nodes", "SELECT * FROM nodes ORDER BY run, host, node")
        return tuple(NodeRow(**row) for row in rows), tuple(others)
