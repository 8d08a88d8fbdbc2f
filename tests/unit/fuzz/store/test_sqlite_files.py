# SPDX-License-Identifier: Apache-2.0
"""Readers do not change a database: in a read-only directory, with a writer, with a log that was not merged."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fuzz.store.database import FILE, Database, StoreError, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.marks import Marks
from fuzz.store.migrate import SCRIPTS
from fuzz.store.runs import History
from fuzz.store.schema import MIGRATIONS
from fuzz.store.sqlite_files import open_read_only
from harness.errors import InputError
from tests.unit.fuzz.store.test_database import SMALL
from tests.unit.harness.findings.test_finding import finding

FORK = multiprocessing.get_context("fork")
NOBODY = 65534


def state(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def filled(directory: Path) -> None:
    directory.mkdir()
    database = Database(default_url(directory))
    Store(database, FINDINGS).add(finding(), SMALL)
    database.close()


def as_nobody(what: Callable[[], object]) -> object:
    """Return the result of a function that runs as a user who owns no file."""
    ours, theirs = FORK.Pipe(duplex=False)

    def child(said: Connection) -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            said.send(what())
        except Exception as error:
            said.send(f"{type(error).__name__}: {error}")

    process = FORK.Process(target=child, args=(theirs,))
    process.start()
    assert ours.poll(20), "it hangs"
    process.join()
    return ours.recv()


def open_to_all(root: Path, directory: Path) -> None:
    """Make a directory readable for all users, but not writable."""
    for path in (root, *(p for p in root.parents if str(p).startswith("/tmp/"))):
        path.chmod(path.stat().st_mode | 0o055)
    directory.chmod(0o555)
    for path in directory.iterdir():
        path.chmod(0o444)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an unprivileged user")


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    before = state(tmp_path / "c")
    database = Database(default_url(tmp_path / "c"))
    assert Store(database, FINDINGS).ids() == (finding().id,)
    assert Marks(database).all() == {} and History(database).runs() == ()
    database.close()
    after = state(tmp_path / "c")
    assert after[FILE] == before[FILE]
    assert not (tmp_path / "c" / f"{FILE}-wal").read_bytes(), "SQLite leaves an empty log"
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        open_read_only(tmp_path / "c" / FILE).execute("DELETE FROM findings")


@needs_root
def test_a_read_only_directory_is_read_without_delay(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    open_to_all(tmp_path, tmp_path / "c")
    begun = time.monotonic()
    found = as_nobody(lambda: Store(Database(default_url(tmp_path / "c")), FINDINGS).ids())
    assert found == (finding().id,)

    def write() -> object:
        return Store(Database(default_url(tmp_path / "c")), FINDINGS).add(finding(), SMALL)

    assert "StoreError: attempt to write a readonly database" in str(as_nobody(write))
    assert time.monotonic() - begun < 10


@needs_root
@pytest.mark.skipif(
    any(not place.stat().st_mode & 0o001 for place in SCRIPTS.parents),
    reason="another user cannot read the scripts of Alembic in this checkout",
)
def test_an_older_database_in_a_read_only_directory_is_read_from_a_copy(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with sqlite3.connect(tmp_path / "c" / FILE) as old:
        old.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
        for statement in MIGRATIONS[0]:
            old.execute(statement)
        old.execute("INSERT INTO schema_version VALUES (1)")
    old.close()
    open_to_all(tmp_path, tmp_path / "c")
    before = state(tmp_path / "c")
    assert as_nobody(lambda: Marks(Database(default_url(tmp_path / "c"))).all()) == {}
    assert state(tmp_path / "c") == before


def test_a_log_that_was_not_merged_is_read(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    writer = Database(default_url(tmp_path / "c"))
    Store(writer, FINDINGS).add(finding(), SMALL)
    assert (tmp_path / "c" / f"{FILE}-wal").stat().st_size > 0, "else this shows nothing"
    shutil.copytree(tmp_path / "c", tmp_path / "copy")  # the state after a kill
    (tmp_path / "copy" / f"{FILE}-shm").unlink()
    assert Store(Database(default_url(tmp_path / "copy")), FINDINGS).ids() == (finding().id,)
    writer.close()


def test_a_database_of_another_program_is_not_changed(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    before = state(tmp_path)
    with pytest.raises(InputError, match="not one of shadowfuzz's"):
        Store(Database(f"sqlite:///{tmp_path}/other.db"), FINDINGS).ids()
    assert state(tmp_path) == before


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        Store(Database(default_url(tmp_path / "none")), FINDINGS).add(finding(), SMALL)
    with pytest.raises(InputError, match="unable to open"):
        Store(Database(default_url(tmp_path / "none")), FINDINGS).ids()
