# SPDX-License-Identifier: Apache-2.0
"""The database of findings and runs: SQLite in the campaign's directory, or a URL of SQLAlchemy's; schema, migrations.

Statements are SQL that SQLite and PostgreSQL both take.  A commit of an :class:`Access` opened with ``durable`` is on
the disk; of another one, it outlives the process but perhaps not the power supply.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from harness.errors import InputError

FILE = "findings.db"
BUSY_MS = 60_000
"""How long a process waits for another one's commit."""
_LOCK = 0x5F5F_F022
"""PostgreSQL's advisory lock that migrations hold."""

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
)
"""Each takes the schema one version further; what was released is never changed, only added to."""
_COLUMNS: Mapping[str, tuple[type, bool]] = {
    name: (int if kind == "BIGINT" else str, not must)
    for statements in MIGRATIONS
    for statement in statements
    for name, kind, must in re.findall(r"(\w+) (TEXT|BIGINT)( NOT NULL)?", statement)
}
"""Each column's type, and whether it may be NULL; SQLite itself keeps what it is given."""


class StoreError(OSError):
    """The database could not be written: disk full, read-only, somebody else's file, server gone."""


def default_url(directory: Path) -> str:
    """Return the URL of the database that a campaign's directory has of its own."""
    return f"sqlite:///{directory.absolute() / FILE}"


class Access:
    """One open transaction."""

    def __init__(self, connection: Connection, url: str) -> None:
        self._connection = connection
        self._url = url

    def run(self, sql: str, **values: object) -> CursorResult[Any]:
        """Execute a statement with named parameters (``:name``)."""
        return self._connection.execute(text(sql), {name: _clean(value) for name, value in values.items()})

    def rows(self, sql: str, **values: object) -> list[Mapping[str, Any]]:
        """Return the rows of a query by column name.  InputError: a value is not of its column's type."""
        found: list[Mapping[str, Any]] = [dict(row) for row in self.run(sql, **values).mappings()]
        for row in found:
            for name, value in row.items():
                kind, optional = _COLUMNS.get(name, (object, True))
                if not isinstance(value, kind) and not (optional and value is None):
                    expected = "a whole number" if kind is int else "text"
                    raise InputError(self._url, None, f"column {name} holds {str(value)[:40]!r}, expected {expected}")
        return found


def _clean(value: object) -> object:
    # PostgreSQL's text holds no NUL; a console may.
    return value.replace("\0", "\\x00") if isinstance(value, str) else value


class Database:
    """A database by URL; opened, created or migrated when first used, by any number of processes at once."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _engine(self) -> Engine:
        if "\0" in self.url:
            raise InputError("--store", None, "no database URL: a NUL character in it")
        try:
            # A connection for each transaction would be too slow for SQLite; for others a pool is of no use here.
            lite = self.url.startswith("sqlite")
            engine = create_engine(self.url) if lite else create_engine(self.url, poolclass=NullPool)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            raise InputError("--store", None, f"no database URL that can be used here: {_short(error)}") from error
        if lite:
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    @cached_property
    def _current(self) -> bool:
        """Migrate, once in this process."""
        with self._engine.begin() as connection:
            _migrate(connection, self.url)
        return True

    @contextmanager
    def access(self, *, write: bool = False, durable: bool = False) -> Iterator[Access]:
        """Yield one transaction: all of it happens, or nothing.  InputError, StoreError: it cannot be read, written."""
        try:
            if self._current:
                options = {"sf_write": write, "sf_durable": durable}
                with self._engine.connect().execution_options(**options) as connection, connection.begin():
                    yield Access(connection, self.url)
        except SQLAlchemyError as error:
            if write:
                raise StoreError(_short(error)) from error
            raise InputError(self.url, None, f"cannot be read: {_short(error)}") from error

    def close(self) -> None:
        """Give the connections back."""
        if "_engine" in self.__dict__:
            self._engine.dispose()


def _short(error: Exception) -> str:
    origin = error.orig if isinstance(error, DatabaseError) and error.orig is not None else error
    return " ".join(str(origin).split())[:200]


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are ours to begin
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            # Of several processes that open a new file at once one converts it; busy_timeout does not cover this.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    # Outside a transaction, or it does nothing.  With FULL the log is synced at each commit.
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('sf_durable') else 'NORMAL'}")
    # A transaction that reads before it writes would fail when another one wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("sf_write", True) else "BEGIN")


def _migrate(connection: Connection, url: str) -> None:
    access = Access(connection, url)
    if connection.dialect.name == "postgresql":
        access.run("SELECT pg_advisory_xact_lock(:lock)", lock=_LOCK)
    access.run("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    version = access.run("SELECT MAX(version) FROM schema_version").scalar() or 0
    if not isinstance(version, int) or version < 0:
        raise InputError(url, None, f"schema version {str(version)[:40]!r}, expected a whole number")
    if version > len(MIGRATIONS):
        raise InputError(url, None, f"schema {version} is newer than this shadowfuzz, which knows {len(MIGRATIONS)}")
    for number in range(version, len(MIGRATIONS)):
        for statement in MIGRATIONS[number]:
            access.run(statement)
        access.run("INSERT INTO schema_version (version) VALUES (:version)", version=number + 1)
