# SPDX-License-Identifier: Apache-2.0
"""Open SQLite files: for writing with a write-ahead log, for reading without any change to the file.

Source: https://www.sqlite.org/wal.html section 5 (read-only databases), https://www.sqlite.org/uri.html.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

BUSY_MS = 60_000
"""Time that a process waits for another one's commit."""


def prepare_to_write(connection: sqlite3.Connection, _record: object = None) -> None:
    """Prepare a new connection for writing.  sqlite3.OperationalError: the file cannot be written."""
    _settle(connection)
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # If several processes open a new file at once, only one can convert it; busy_timeout does not cover this.
            if not _is(error, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def open_read_only(file: Path) -> sqlite3.Connection:
    """Return a read-only connection; it may leave an empty log file.  sqlite3.OperationalError: cannot be opened."""
    # Reading a log needs a second file, which cannot be made in a read-only directory; without a log it is not needed.
    still = not os.access(file.absolute().parent, os.W_OK) and not has_content(Path(f"{file}-wal"))
    options = "mode=ro&immutable=1" if still else "mode=ro"
    connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?{options}", uri=True, check_same_thread=False)
    _settle(connection)
    return connection


def copy_to_memory(file: Path) -> sqlite3.Connection:
    """Return a writable copy of a database in memory.  sqlite3.OperationalError: it cannot be read."""
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    source = open_read_only(file)
    try:
        source.backup(copy)
    finally:
        source.close()
    _settle(copy)
    return copy


def has_content(file: Path) -> bool:
    """Return whether a file exists and is not empty."""
    try:
        return file.stat().st_size > 0
    except (OSError, ValueError):
        return False


def is_read_only(error: object) -> bool:
    """Return whether SQLite failed because a file or its directory is read-only."""
    return _is(error, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _is(error: object, *codes: int) -> bool:
    # The low byte of an extended code is the primary one: https://www.sqlite.org/rescode.html
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in codes


def _settle(connection: sqlite3.Connection) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions
    # Otherwise one text that is not UTF-8 would make the whole query fail.
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
