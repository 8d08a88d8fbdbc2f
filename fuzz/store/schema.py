# SPDX-License-Identifier: Apache-2.0
"""The schema of the database, version by version, as statements that SQLite and PostgreSQL both take.

A new version is a row of :data:`MIGRATIONS` and a script in ``fuzz/store/migrations/versions``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # 1: findings by shelf (confirmed ones, flaky ones), and texts that belong to them.
    (
        """CREATE TABLE findings (
             shelf TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, document TEXT NOT NULL, scenario TEXT,
             simplicity BIGINT NOT NULL, count BIGINT NOT NULL, first_seen TEXT NOT NULL, last_seen TEXT NOT NULL,
             PRIMARY KEY (shelf, id))""",
        """CREATE TABLE texts (
             shelf TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL,
             PRIMARY KEY (shelf, id, name))""",
    ),
    # 2: runs of campaigns, and how they stood from time to time.
    (
        """CREATE TABLE runs (
             id TEXT NOT NULL PRIMARY KEY, started TEXT NOT NULL, document TEXT NOT NULL, summary TEXT)""",
        """CREATE TABLE samples (
             run TEXT NOT NULL, second BIGINT NOT NULL, scenarios BIGINT NOT NULL, checked_exits BIGINT NOT NULL,
             coverage BIGINT NOT NULL, clusters BIGINT NOT NULL, PRIMARY KEY (run, second))""",
    ),
    # 3: scenarios of a finding that differ in what they show first; what people say of findings.
    (
        """CREATE TABLE examples (
             shelf TEXT NOT NULL, id TEXT NOT NULL, leader TEXT NOT NULL, example TEXT NOT NULL,
             simplicity BIGINT NOT NULL, PRIMARY KEY (shelf, id, leader))""",
        """CREATE TABLE marks (
             id TEXT NOT NULL PRIMARY KEY, status TEXT NOT NULL, assignee TEXT NOT NULL, note TEXT NOT NULL,
             changed TEXT NOT NULL)""",
    ),
    # 4: one campaign on many machines: what each counted of a finding, how each stands, and the corpus of all.
    (
        """CREATE TABLE shares (
             node TEXT NOT NULL, shelf TEXT NOT NULL, id TEXT NOT NULL, count BIGINT NOT NULL,
             PRIMARY KEY (node, shelf, id))""",
        """CREATE TABLE nodes (
             run TEXT NOT NULL, node TEXT NOT NULL, host TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
             seen TEXT NOT NULL, workers BIGINT NOT NULL, scenarios BIGINT NOT NULL, checked_exits BIGINT NOT NULL,
             coverage BIGINT NOT NULL, rate BIGINT NOT NULL, PRIMARY KEY (run, node))""",
        """CREATE TABLE corpus (
             target TEXT NOT NULL, hash TEXT NOT NULL, text TEXT NOT NULL, simplicity BIGINT NOT NULL,
             serial BIGINT NOT NULL, PRIMARY KEY (target, hash))""",
        "CREATE INDEX corpus_by_serial ON corpus (target, serial)",
        """CREATE TABLE features (
             target TEXT NOT NULL, feature BIGINT NOT NULL, hash TEXT NOT NULL, simplicity BIGINT NOT NULL,
             PRIMARY KEY (target, feature))""",
        "CREATE TABLE serials (target TEXT NOT NULL PRIMARY KEY, serial BIGINT NOT NULL)",
    ),
)
"""The statements of each version (fuzz/store/migrations has them run); what was released is never changed, only added
to.
"""

COLUMNS: Mapping[str, tuple[type, bool]] = {
    name: (int if kind == "BIGINT" else str, not must)
    for statements in MIGRATIONS
    for statement in statements
    for name, kind, must in re.findall(r"(\w+) (TEXT|BIGINT)( NOT NULL)?", statement)
}
"""Each column's type, and whether it may be NULL, the same in every table; SQLite itself keeps what it is given."""

REVISIONS = tuple(f"{number:04}" for number in range(1, len(MIGRATIONS) + 1))
"""The names of the versions, as Alembic has them."""
OLDER = 3
"""Up to this version the table ``schema_version`` said which one it is; shadowfuzz of that time refuses a later one."""
