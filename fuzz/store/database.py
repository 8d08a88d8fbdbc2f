# SPDX-License-Identifier: Apache-2.0
"""The database of findings and runs: SQLite in the campaign's directory, or an SQLAlchemy URL; schema, migrations.

All statements are valid for SQLite and PostgreSQL.  A commit of an :class:`Access` opened with ``durable`` is on the
disk; any other commit survives the end of the process, but perhaps not a power failure.  Readers open SQLite's file
read-only (:mod:`fuzz.store.sqlite_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
    # 1: findings by shelf (confirmed, flaky), and their texts.
    (
        """CREATE TABLE findings (
             shelf TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, document TEXT NOT NULL, scenario TEXT,
             simplicity BIGINT NOT NULL, count BIGINT NOT NULL, first_seen TEXT NOT NULL, last_seen TEXT NOT NULL,
             PRIMARY KEY (shelf, id))""",
        """CREATE TABLE texts (
             shelf TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL,
             PRIMARY KEY (shelf, id, name))""",
    ),
    # 2: runs of campaigns, and samples of their counts.
    (
        """CREATE TABLE runs (
             id TEXT NOT NULL PRIMARY KEY, started TEXT NOT NULL, document TEXT NOT NULL, summary TEXT)""",
        """CREATE TABLE samples (
             run TEXT NOT NULL, second BIGINT NOT NULL, scenarios BIGINT NOT NULL, checked_exits BIGINT NOT NULL,
             coverage BIGINT NOT NULL, clusters BIGINT NOT NULL, PRIMARY KEY (run, second))""",
    ),
    # 3: scenarios of a finding with different leading clusters; marks that users set on findings.
    (
        """CREATE TABLE examples (
             shelf TEXT NOT NULL, id TEXT NOT NULL, leader TEXT NOT NULL, example TEXT NOT NULL,
             simplicity BIGINT NOT NULL, PRIMARY KEY (shelf, id, leader))""",
        """CREATE TABLE marks (
             id TEXT NOT NULL PRIMARY KEY, status TEXT NOT NULL, assignee TEXT NOT NULL, note TEXT NOT NULL,
             changed TEXT NOT NULL)""",
    ),
)
"""Each migrates the schema to the next version; a released migration is never changed."""
_COLUMNS: Mapping[str, tuple[type, bool]] = {
    name: (int if kind == "BIGINT" else str, not must)
    for statements in MIGRATIONS
    for statement in statements
    for name, kind, must in re.findall(r"(\w+) (TEXT|BIGINT)( NOT NULL)?", statement)
}
"""Each column's type, and whether it may be NULL; SQLite itself does not check types."""


class StoreError(OSError):
    """The database could not be written: disk full, read-only, owned by another user, server unreachable."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be read: its name and the reason."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


def default_url(directory: Path) -> str:
    """Return the URL of the default database in a campaign's directory."""
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
        """Return the rows of a query as mappings by column name.  InputError: a value is not of its column's type."""
        found: list[Mapping[str, Any]] = [dict(row) for row in self.run(sql, **values).mappings()]
        for row in found:
            if wrong := _wrong(row):
                raise InputError(self._url, None, wrong)
        return found

    def readable_rows(self, table: str, sql: str, **values: object) -> tuple[list[Mapping[str, Any]], list[Unreadable]]:
        """Return the rows of a query whose values are of their columns' types, and the other rows with their errors."""
        sound: list[Mapping[str, Any]] = []
        others: list[Unreadable] = []
        for row in map(dict, self.run(sql, **values).mappings()):
            if wrong := _wrong(row):
                others.append(Unreadable(name_of(table, row), wrong))
            else:
                sound.append(row)
        return sound, others


def name_of(table: str, row: Mapping[str, Any]) -> str:
    """Return the name of a row for messages."""
    keys = [str(row[key])[:60] for key in ("shelf", "id", "name", "leader", "run", "second") if key in row]
    return " ".join(dict.fromkeys([table, *(ascii(key)[1:-1] for key in keys)]))


def _wrong(row: Mapping[str, Any]) -> str:
    """Return the first error in the values of a row; empty if all are valid."""
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
    """Return a value that both databases accept: PostgreSQL's text has no NUL, and UTF-8 no lone surrogates."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


class Database:
    """A database by its URL; the first write creates or migrates it, also if several processes do so at once.

    A reader does not change the file, unless it is empty or of an older version.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _parsed(self) -> URL:
        if "\0" in self.url:
            raise InputError("--store", None, "no usable database URL: it has a NUL character")
        try:
            url = make_url(self.url)
            # The usual forms of the URL select this driver; a URL such as postgresql+psycopg2:// selects another one.
            return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url
        except (ArgumentError, ValueError) as error:
            raise InputError("--store", None, f"no usable database URL: {_short(error)}") from error

    @property
    def file(self) -> Path | None:
        """Return SQLite's file; None for another database."""
        url = self._parsed
        plain = url.get_backend_name() == "sqlite" and not url.query and url.database not in (None, "", ":memory:")
        return Path(str(url.database)) if plain else None

    @cached_property
    def _engine(self) -> Engine:
        try:
            # A new connection for each transaction would be too slow for SQLite; other databases need no pool here.
            lite = self._parsed.get_backend_name() == "sqlite"
            engine = create_engine(self._parsed) if lite else create_engine(self._parsed, poolclass=NullPool)
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError, TypeError) as error:
            raise InputError("--store", None, f"no usable database URL: {_short(error)}") from error
        if lite:
            event.listen(engine, "connect", sqlite_files.prepare_to_write)
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    @cached_property
    def _current(self) -> bool:
        """Migrate the schema, once per process."""
        with self._engine.begin() as connection:
            _migrate(connection, self.url)
        return True

    @cached_property
    def _reader(self) -> Engine:
        """Return the engine for reading the file read-only.

        An empty or old file is migrated first; if it cannot be written, a copy in memory is migrated.
        """
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
        """Yield one atomic transaction.  InputError: the database cannot be read; StoreError: it cannot be written."""
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
        """Close the connections."""
        for name in ("_engine", "_reader"):
            if name in self.__dict__:
                self.__dict__.pop(name).dispose()
        self.__dict__.pop("_current", None)


def _short(error: Exception) -> str:
    origin = error.orig if isinstance(error, DatabaseError) and error.orig is not None else error
    return " ".join(str(origin).split())[:200]


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    # This pragma has no effect inside a transaction.  With FULL the log is synced at each commit.
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('sf_durable') else 'NORMAL'}")
    # BEGIN IMMEDIATE: a transaction that reads before it writes would fail if another one wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("sf_write", True) else "BEGIN")


def _version(connection: Connection, url: str) -> int:
    """Return the version of a file's schema, 0 if it is empty.  InputError: it is not a database of shadowfuzz."""
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
        return  # a read-only user cannot execute the following statements
    if connection.dialect.name == "postgresql":
        access.run("SELECT pg_advisory_xact_lock(:lock)", lock=_LOCK)
    access.run("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
    for number in range(_checked(access, url), len(MIGRATIONS)):
        for statement in MIGRATIONS[number]:
            access.run(statement)
        access.run("INSERT INTO schema_version (version) VALUES (:version)", version=number + 1)
