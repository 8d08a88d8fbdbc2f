# SPDX-License-Identifier: Apache-2.0
"""The database of findings and runs: SQLite in the campaign's directory, or a URL of SQLAlchemy's.

All statements are valid for SQLite and PostgreSQL.  A commit of an :class:`Access` opened with ``durable`` is on the
disk; any other commit survives the end of the process, but perhaps not a power failure.  Readers open SQLite's file
read-only (:mod:`fuzz.store.sqlite_files`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from fuzz.store import sqlite_files
from fuzz.store.migrate import is_current, migrate
from fuzz.store.schema import COLUMNS
from harness.errors import InputError

FILE = "findings.db"
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

    def run_many(self, sql: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute a statement once for each row of values, in their order."""
        if rows:
            self._connection.execute(text(sql), [{k: _clean(v) for k, v in row.items()} for row in rows])

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
    names = ("shelf", "id", "name", "leader", "run", "second", "node", "target", "hash", "feature")
    keys = [str(row[key])[:60] for key in names if key in row]
    return " ".join(dict.fromkeys([table, *(ascii(key)[1:-1] for key in keys)]))


def _wrong(row: Mapping[str, Any]) -> str:
    """Return the first error in the values of a row; empty if all are valid."""
    for name, value in row.items():
        kind, optional = COLUMNS.get(name, (object, True))
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

    A reader does not change the file, unless it is empty or of an older version.  ``keep_connection``: use one
    connection to a server for all transactions; a new one costs ten times as much as a small query.
    """

    def __init__(self, url: str, *, keep_connection: bool = False) -> None:
        self.url = url
        self._keep_connection = keep_connection

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

    def without_password(self) -> str:
        """Return the URL as it may be shown: the client finds the password elsewhere (PGPASSWORD, ~/.pgpass)."""
        url = make_url(self.url) if self._parsed.password is None else make_url(self.url)._replace(password=None)
        return url.difference_update_query(["password"]).render_as_string(hide_password=False)

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
            # One that is kept is tried first: it may have been cut.
            kept: dict[str, Any] = {"pool_size": 1, "pool_pre_ping": True}
            pool = kept if self._keep_connection else {"poolclass": NullPool}
            how = {"connect_args": _PATIENCE} if self._parsed.drivername == "postgresql+psycopg" else {}
            engine = create_engine(self._parsed) if lite else create_engine(self._parsed, **pool, **how)
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
            migrate(connection, self.url)
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
                current = is_current(connection, self.url)
            if current:
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
                    migrate(connection, self.url)
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
