# SPDX-License-Identifier: Apache-2.0
"""Findings by shelf, and their texts."""

from __future__ import annotations

from alembic import op

from fuzz.store.schema import MIGRATIONS

revision, down_revision = "0001", None


def upgrade() -> None:
    """Take the schema one version further."""
    for statement in MIGRATIONS[0]:
        op.execute(statement)
