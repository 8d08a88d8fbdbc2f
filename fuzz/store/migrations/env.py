# SPDX-License-Identifier: Apache-2.0
"""How Alembic runs migrations: in the transaction that is open already.  Alembic executes this file."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Run them."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


if hasattr(context, "config"):  # else something else imports this
    run()
