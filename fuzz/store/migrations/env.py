# SPDX-License-Identifier: Apache-2.0
"""How Alembic runs migrations: in the transaction that is open already.  Only Alembic imports this."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
