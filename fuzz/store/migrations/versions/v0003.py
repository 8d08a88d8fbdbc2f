# SPDX-License-Identifier: Apache-2.0
"""Scenarios that differ in what they show first; marks."""

from __future__ import annotations

from alembic import op

from fuzz.store.schema import MIGRATIONS

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Take the schema one version further."""
    for statement in MIGRATIONS[2]:
        op.execute(statement)
