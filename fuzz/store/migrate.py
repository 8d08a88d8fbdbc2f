# SPDX-License-Identifier: Apache-2.0
"""Take a database to the schema of this shadowfuzz, from any earlier one: Alembic does it, in one transaction.

Alembic is imported only where there is something to do: opening a database that is up to date does not wait for
it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from fuzz.store.schema import OLDER, REVISIONS
from harness.errors import InputError

SCRIPTS = Path(__file__).parent / "migrations"
NUMBERS, ALEMBIC = "schema_version", "alembic_version"
"""The tables that say which version it is: that of older shadowfuzz, and Alembic's."""
_LOCK = 0x5F5F_F022
"""PostgreSQL's advisory lock that migrations hold."""


def version_of(connection: Connection, url: str) -> int:
    """Return the version of a schema, 0 if there is no table at all.

    InputError: it is not a database of shadowfuzz, damaged, or of a newer shadowfuzz.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return 0
    if not tables & {NUMBERS, ALEMBIC}:
        if connection.dialect.name == "sqlite":
            raise InputError(url, None, f"a database, but not one of shadowfuzz's: it has no table {NUMBERS}")
        return 0  # a server's database may have tables of others
    number = _number(connection, url) if NUMBERS in tables else 0
    names = connection.execute(text(f"SELECT version_num FROM {ALEMBIC}")).scalars().all() if ALEMBIC in tables else ()
    for name in names:
        if name not in REVISIONS:
            known = f"which knows {REVISIONS[-1]}"
            raise InputError(url, None, f"schema {str(name)[:40]!r} is newer than this shadowfuzz, {known}")
        return REVISIONS.index(name) + 1
    return min(number, OLDER)


def _number(connection: Connection, url: str) -> int:
    number = connection.execute(text(f"SELECT MAX(version) FROM {NUMBERS}")).scalar() or 0
    if not isinstance(number, int) or number < 0:
        raise InputError(url, None, f"schema version {str(number)[:40]!r}, expected a whole number")
    if number > len(REVISIONS):
        raise InputError(url, None, f"schema {number} is newer than this shadowfuzz, which knows {len(REVISIONS)}")
    return number


def is_current(connection: Connection, url: str) -> bool:
    """Whether there is nothing to do.  InputError: as :func:`version_of`."""
    return version_of(connection, url) == len(REVISIONS)


def migrate(connection: Connection, url: str) -> None:
    """Make a database what this shadowfuzz needs, in the transaction that is open; others wait for its end."""
    if is_current(connection, url):
        return  # who may only read cannot do what follows
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    now = version_of(connection, url)  # another process may have been faster
    if now == len(REVISIONS):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if now and not inspect(connection).has_table(ALEMBIC):
        command.stamp(config, REVISIONS[now - 1])
    command.upgrade(config, "head")
