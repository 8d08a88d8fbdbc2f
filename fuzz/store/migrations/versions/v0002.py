# SPDX-License-Identifier: Apache-2.0
"""Runs of campaigns, and how they stood."""

from __future__ import annotations

from alembic import op

from fuzz.store.schema import MIGRATIONS

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Take the schema one version further."""
    for statement in MIGRATIONS[1]:
        op.execute(statement)
