# SPDX-License-Identifier: Apache-2.0
"""The database of findings and runs: SQLite in the campaign's directory, or a URL of SQLAlchemy's; schema, migrations.

Statements are SQL that SQLite and PostgreSQL both take.  A commit of an :class:`Access` opened with ``durable`` is on
the disk; of another one, it outlives the process but perhaps not the power supply.  Whoever only reads opens SQLite's
file read-only (:mod:`fuzz.store.sqlite_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from fuzz.store import sqlite_files
from harness.errors import InputError

FILE = "findings.db"
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
"""Each takes the schema one version further; what was released is never changed, only added to."""
_PATIENCE: Mapping[str, object] = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
"""How long PostgreSQL's client waits for a server that says nothing, in s and (``..._timeout`` of TCP) in ms.

Source: PostgreSQL 15 documentation, section 34.1.2.
"""
_COLUMNS: Mapping[str, tuple[type, bool]] = {
    name: (int if kind == "BIGINT" else str, not must)
    for statements in MIGRATIONS
    for statement in statements
    for name, kind, must in re.findall(r"(\w+) (TEXT|BIGINT)( NOT NULL)?", statement)
}
"""Each column's type, and whether it may be NULL, the same in every table; SQLite itself keeps what it is given."""


class StoreError(OSError):
    """The database could not be written: disk full, read-only, somebody else's file, server gone."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be read: which one, and why."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


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

    def run_many(self, sql: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once for each row of values, in their order."""
        if rows:
            self._connection.execute(text(sql), [{k: _clean(v) for k, v in row.items()} for row in rows])

    def rows(self, sql: str, **values: object) -> list[Mapping[str, Any]]:
        """Return the rows of a query by column name.  InputError: a value is not of its column's type."""
        found: list[Mapping[str, Any]] = [dict(row) for row in self.run(sql, **values).mappings()]
        for row in found:
            if wrong := _wrong(row):
                raise InputError(self._url, None, wrong)
        return found

    def sound_rows(self, table: str, sql: str, **values: object) -> tuple[list[Mapping[str, Any]], list[Unreadable]]:
        """Return the rows of a query whose values are of their columns' types, and what is wrong with the others."""
        sound: list[Mapping[str, Any]] = []
        others: list[Unreadable] = []
        for row in map(dict, self.run(sql, **values).mappings()):
            if wrong := _wrong(row):
                others.append(Unreadable(name_of(table, row), wrong))
            else:
                sound.append(row)
        return sound, others


def name_of(table: str, row: Mapping[str, Any]) -> str:
    """Return what a row is called where people are told of it."""
    names = ("shelf", "id", "name", "leader", "run", "second", "node", "target", "hash", "feature")
    keys = [str(row[key])[:60] for key in names if key in row]
    return " ".join(dict.fromkeys([table, *(ascii(key)[1:-1] for key in keys)]))


def _wrong(row: Mapping[str, Any]) -> str:
    """Return what is wrong with the values of a row; empty if nothing is."""
    for name, value in row.items():
        kind, optional = _COLUMNS.get(name, (object, True))
        if optional and value is None:
            continue
        if not isinstance(value, kind):
            expected = "a whole number" if kind is int else "text"
            return f"column {name} holds {str(value)[:40]!r}, expected {expected}"
        if isinstance(value, int) and value < 0:
            return f"column {name} holds {value}, expected 0 or more"
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return f"column {name} holds no UTF-8 text"
    return ""


def _clean(value: object) -> object:
    """Return a value as both databases take it: PostgreSQL's text holds no NUL and UTF-8 no lone surrogates."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


class Database:
    """A database by URL; created or migrated when it is first written, by any number of processes at once.

    Whoever reads leaves the file alone, unless it is empty or of an older version.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _parsed(self) -> URL:
        if "\0" in self.url:
            raise InputError("--store", None, "no database URL: a NUL character in it")
        try:
            url = make_url(self.url)
            # What people and servers write.  Another driver is named: postgresql+psycopg2://.
            return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url
        except (ArgumentError, ValueError) as error:
            raise InputError("--store", None, f"no database URL that can be used here: {_short(error)}") from error

    @property
    def file(self) -> Path | None:
        """SQLite's file; None if the database is none."""
        url = self._parsed
        plain = url.get_backend_name() == "sqlite" and not url.query and url.database not in (None, "", ":memory:")
        return Path(str(url.database)) if plain else None

    @cached_property
    def _engine(self) -> Engine:
        try:
            # A connection for each transaction would be too slow for SQLite; for others a pool is of no use here.
            lite = self._parsed.get_backend_name() == "sqlite"
            how = {"connect_args": _PATIENCE} if self._parsed.drivername == "postgresql+psycopg" else {}
            engine = create_engine(self._parsed) if lite else create_engine(self._parsed, poolclass=NullPool, **how)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError, TypeError) as error:
            raise InputError("--store", None, f"no database URL that can be used here: {_short(error)}") from error
        if lite:
            event.listen(engine, "connect", sqlite_files.prepare_to_write)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    @cached_property
    def _current(self) -> bool:
        """Migrate, once in this process."""
        with self._engine.begin() as connection:
            _migrate(connection, self.url)
        return True

    @cached_property
    def _reader(self) -> Engine:
        """What is read from: the file, read-only; a new or old one is migrated first, in memory if it must stay so."""
        file = self.file
        if file is not None and sqlite_files.has_content(file):
            engine = create_engine("sqlite://", creator=lambda: sqlite_files.open_read_only(file), poolclass=QueuePool)
            with engine.connect() as connection:
                version = _version(connection, self.url)
            if version == len(MIGRATIONS):
                return engine
            engine.dispose()
            try:
                _ = self._current
            except OperationalError as error:
                if not sqlite_files.is_read_only(error.orig):
                    raise
                copy = sqlite_files.copy_to_memory(file)
                engine = create_engine("sqlite://", creator=lambda: copy, poolclass=QueuePool, pool_size=1)
                with engine.begin() as connection:
                    _migrate(connection, self.url)
                return engine
        _ = self._current
        return self._engine

    @contextmanager
    def access(self, *, write: bool = False, durable: bool = False) -> Iterator[Access]:
        """Yield one transaction: all of it happens, or nothing.  InputError, StoreError: it cannot be read, written."""
        try:
            engine = self._engine if write and self._current else self._reader
            options = {"sf_write": write, "sf_durable": durable}
            with engine.connect().execution_options(**options) as connection, connection.begin():
                yield Access(connection, self.url)
        except SQLAlchemyError as error:
            if write:
                raise StoreError(_short(error)) from error
            raise InputError(self.url, None, f"cannot be read: {_short(error)}") from error

    def close(self) -> None:
        """Give the connections back."""
        for name in ("_engine", "_reader"):
            if name in self.__dict__:
                self.__dict__.pop(name).dispose()
        self.__dict__.pop("_current", None)


def _short(error: Exception) -> str:
    origin = error.orig if isinstance(error, DatabaseError) and error.orig is not None else error
    return " ".join(str(origin).split())[:200]


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    # Outside a transaction, or it does nothing.  With FULL the log is synced at each commit.
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('sf_durable') else 'NORMAL'}")
    # A transaction that reads before it writes would fail when another one wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("sf_write", True) else "BEGIN")


def _version(connection: Connection, url: str) -> int:
    """Return the version of a file's schema, 0 if it is empty.  InputError: it is not a database of ours."""
    tables = {name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "schema_version" not in tables:
        raise InputError(url, None, "a database, but not one of shadowfuzz's: it has no table schema_version")
    return _checked(Access(connection, url), url) if tables else 0


def _checked(access: Access, url: str) -> int:
    version = access.run("SELECT MAX(version) FROM schema_version").scalar() or 0
    if not isinstance(version, int) or version < 0:
        raise InputError(url, None, f"schema version {str(version)[:40]!r}, expected a whole number")
    if version > len(MIGRATIONS):
        raise InputError(url, None, f"schema {version} is newer than this shadowfuzz, which knows {len(MIGRATIONS)}")
    return version


def _migrate(connection: Connection, url: str) -> None:
    access = Access(connection, url)
    if inspect(connection).has_table("schema_version") and _checked(access, url) == len(MIGRATIONS):
        return  # who may only read cannot do what follows
    if connection.dialect.name == "postgresql":
        access.run("SELECT pg_advisory_xact_lock(:lock)", lock=_LOCK)
    access.run("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    for number in range(_checked(access, url), len(MIGRATIONS)):
        for statement in MIGRATIONS[number]:
            access.run(statement)
        access.run("INSERT INTO schema_version (version) VALUES (:version)", version=number + 1)
