# SPDX-License-Identifier: Apache-2.0
"""One campaign on many machines."""

from __future__ import annotations

from alembic import op

from fuzz.store.schema import MIGRATIONS

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Take the schema one version further."""
    for statement in MIGRATIONS[3]:
        op.execute(statement)

    # Shadowfuzz that knows no Alembic refuses what is newer by this table.
    op.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    op.execute("INSERT INTO schema_version (version) VALUES (4)")
