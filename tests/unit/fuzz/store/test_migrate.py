# SPDX-License-Identifier: Apache-2.0
"""Alembic takes earlier schemas to this one, on both databases, in many processes at once; a newer one is refused."""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from fuzz.store.database import FILE, Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.migrate import SCRIPTS
from fuzz.store.migrations import env
from fuzz.store.migrations.versions import v0001, v0002, v0003, v0004
from fuzz.store.nodes import Nodes
from fuzz.store.runs import History
from fuzz.store.schema import COLUMNS, MIGRATIONS, OLDER, REVISIONS
from harness.errors import InputError
from tests.support.paths import ROOT
from tests.support.postgres import Server, server
from tests.unit.harness.findings.test_finding import finding

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield default_url(tmp_path)
        return
    found: Server = request.getfixturevalue("postgres")
    yield found.url
    found.clear()


def make_old(url: str, version: int) -> None:
    """Make a database as shadowfuzz of that version left it, before Alembic, with a finding."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as old:
        old.execute(text("CREATE TABLE schema_version (version BIGINT NOT NULL)"))
        for number in range(version):
            for statement in MIGRATIONS[number]:
                old.execute(text(statement))
            old.execute(text(f"INSERT INTO schema_version VALUES ({number + 1})"))
        row = "('findings', 'id', 'divergence', '{}', NULL, 0, 1, '2026', '2026')"
        old.execute(text(f"INSERT INTO findings VALUES {row}"))
    engine.dispose()


def shape(url: str) -> dict[str, list[str]]:
    """Return the columns of each table, and the indices."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    found = inspect(engine)
    shape = {name: sorted(column["name"] for column in found.get_columns(name)) for name in found.get_table_names()}
    shape["indices"] = sorted(str(index["name"]) for name in shape for index in found.get_indexes(name))
    engine.dispose()
    return shape


@pytest.mark.parametrize("version", range(1, OLDER + 1))
def test_from_every_schema_before_alembic(version: int, url: str, tmp_path: Path) -> None:
    make_old(url, version)
    database = Database(url)
    assert Store(database, FINDINGS).ids() == ("id",)
    assert History(database).runs() == () and Nodes(database).readable() == ((), ())
    Store(database, FINDINGS).add(finding(), None)
    (tmp_path / "new").mkdir()
    new = default_url(tmp_path / "new")
    Store(Database(new), FINDINGS).ids()
    assert shape(url) == shape(new), "an old database has become what a new one is"


def _open(url: str) -> None:
    Store(Database(url), FINDINGS).add(finding(), None)


@pytest.mark.parametrize("version", [0, 2])
def test_many_at_once(version: int, url: str) -> None:
    if version:
        make_old(url, version)
    others = [FORK.Process(target=_open, args=(url,)) for _ in range(5)]
    for other in others:
        other.start()
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert Store(Database(url), FINDINGS).count(finding().id) == 5


def test_a_migration_that_fails_leaves_the_old_schema(url: str) -> None:
    make_old(url, OLDER)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as old:
        old.execute(text("CREATE TABLE serials (in_the_way BIGINT)"))  # the last one of version 4
    before = shape(url)
    with pytest.raises((InputError, OSError), match="already exists"):
        Store(Database(url), FINDINGS).add(finding(), None)
    assert shape(url) == before
    with engine.begin() as old:
        old.execute(text("DROP TABLE serials"))
    engine.dispose()
    assert Store(Database(url), FINDINGS).ids() == ("id",)


def test_a_newer_schema_is_left_alone(url: str) -> None:
    Store(Database(url), FINDINGS).ids()
    with Database(url).access(write=True) as access:
        access.run("INSERT INTO schema_version VALUES (99)")
    with pytest.raises(InputError, match="schema 99 is newer"):
        Store(Database(url), FINDINGS).ids()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as newer:
        newer.execute(text("DELETE FROM schema_version WHERE version = 99"))
        newer.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    engine.dispose()
    with pytest.raises(InputError, match="schema '0099' is newer than this shadowfuzz, which knows"):
        Store(Database(url), FINDINGS).ids()


def test_shadowfuzz_before_alembic_refuses_this_schema(tmp_path: Path) -> None:
    """It looked at the highest number of this table, and knew up to 3."""
    Store(Database(default_url(tmp_path)), FINDINGS).ids()
    with sqlite3.connect(tmp_path / FILE) as here:
        assert here.execute("SELECT MAX(version) FROM schema_version").fetchone() == (OLDER + 1,)


def test_each_version_has_its_script() -> None:
    scripts = sorted(path.stem for path in (SCRIPTS / "versions").glob("v*.py"))
    assert scripts == [f"v{name}" for name in REVISIONS]
    chain_ = [(module.revision, module.down_revision) for module in (v0001, v0002, v0003, v0004)]
    assert chain_ == list(zip(REVISIONS, (None, *REVISIONS), strict=False)), "a new one is listed here, too"
    assert callable(env.run), "it can be imported where Alembic does not run it"


def test_a_column_is_the_same_in_every_table() -> None:
    """What is read is checked by the column's name alone."""
    found: dict[str, set[tuple[str, str]]] = {}
    for statement in chain(*MIGRATIONS):
        for name, kind, must in re.findall(r"(\w+) (TEXT|BIGINT)( NOT NULL)?", statement):
            found.setdefault(name, set()).add((kind, must))
    assert [name for name, kinds in found.items() if len(kinds) > 1] == []
    assert COLUMNS["scenario"] == (str, True)


def test_who_opens_what_is_current_does_not_wait_for_alembic(tmp_path: Path) -> None:
    url = default_url(tmp_path)
    Store(Database(url), FINDINGS).add(finding(), None)
    code = (
        "import sys; from fuzz.store.database import Database; from fuzz.store.findings import Store;"
        f"Store(Database({url!r}), 'findings').bump({{}}, ''); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
