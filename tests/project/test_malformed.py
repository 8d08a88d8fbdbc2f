# SPDX-License-Identifier: Apache-2.0
"""Any malformed input of a command gives one line with the error, and a status; never a traceback."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from pathlib import Path

import pytest

from fuzz.cli.main import main
from tests.support.kept import filled

Capture = pytest.CaptureFixture[str]
SEED = "corpus/seeds/psci_version.scn"

JUNK: dict[str, bytes] = {
    "empty": b"",
    "bytes": bytes(range(256)),
    "null": b"null",
    "list": b"[]",
    "object": b'{"format": 1, "targets": {"x": {"places": [[]], "lost": 0}}, "cells": [{}], "campaigns": [{}]}',
    "deep": b"[" * 100_000,
    "digits": b'{"format": ' + b"9" * 6000 + b"}",
    "gzip": gzip.compress(b"{}"),
    "cut": gzip.compress(bytes(range(256)) * 9)[:-9],
    "toml": b"known = 5\nintended = 5\n",
}

COMMANDS: tuple[tuple[str, ...], ...] = (
    # FILE is the malformed file; none of these commands boots a machine.
    ("replay", "FILE"),
    ("replay", SEED, "--target", "FILE.toml"),
    ("replay", SEED, "--kernel", "FILE"),
    ("minimise", "FILE"),
    ("confirm", "FILE"),
    ("bisect", "FILE"),
    ("against", "kvm-nvhe", "kvm-vhe", "FILE"),
    ("matrix", "FILE"),
    ("ci", "FILE"),
    ("ci", "--tree", "FILE"),
    ("replay", SEED, "--tree", "FILE"),
    ("doctor", "--tree", "FILE"),
    ("coverage", "FILE"),
    ("coverage-trial", "--page", "DIR"),
    ("reach", "FILE"),
    ("reach", "--show", "FILE"),
    ("cmin", "DIR", "OUT"),
    ("check", "FILE"),
    ("distil", "FILE", "--out", "OUT"),
    ("findings", "--out", "DIR"),
    ("findings", "--store", "FILE"),
    ("report", "--campaign", "DIR", "--out", "OUT"),
    ("export", "0", "--out", "DIR", "--to", "OUT"),
    ("triage", "--store", "FILE"),
)
TAKEN = {
    # An empty file is a database without findings.
    ("empty", "findings", "--out", "DIR"): 0,
    ("empty", "report", "--campaign", "DIR", "--out", "OUT"): 0,
}


def one_line(argv: list[str], capsys: Capture) -> int:
    """Run a command; return its status."""
    status = main(argv)
    error = capsys.readouterr().err
    if status not in (0, 1):
        assert error.startswith("shadowfuzz: ") and error.count("\n") == 1, (argv, status, error[:500])
    return status


@pytest.mark.parametrize("name", JUNK)
def test_files(name: str, tmp_path: Path, capsys: Capture) -> None:
    directory = tmp_path / "dir"
    directory.mkdir()
    for path in (tmp_path / "file", tmp_path / "file.toml", directory / "coverage.json", directory / "findings.db"):
        path.write_bytes(JUNK[name])
    for number, command in enumerate(COMMANDS):
        places = {"FILE": str(tmp_path / "file"), "DIR": str(directory), "OUT": str(tmp_path / f"out{number}")}
        argv = list(command)
        for word, path in places.items():
            argv = [part.replace(word, path) for part in argv]
        assert one_line(argv, capsys) == TAKEN.get((name, *command), 2), argv


VALUES: tuple[object, ...] = ("x", "[]", "[" * 100_000, b"\xff", 5)
READ_BY = {
    "findings": (
        ("findings", "show", "crash-cea6", "--out"),
        ("findings", "export", "crash-cea6", "--mail", "--campaign"),
        ("findings", "export", "divergence-", "--selftest", "--out", "OUT", "--campaign"),
        ("findings", "--format", "sarif", "--out"),
    ),
    "examples": (("findings", "--out"),),
    "marks": (("findings", "--out"),),
    "texts": (
        ("export", "crash-cea6", "--to", "OUT", "--out"),
        ("findings", "export", "crash-cea6", "--mail", "--campaign"),
    ),
    "runs": (("report", "--out", "OUT", "--campaign"),),
    "samples": (("report", "--out", "OUT", "--campaign"),),
    "schema_version": (("findings", "--out"),),
    "alembic_version": (("findings", "--out"),),
    # What nodes of a cluster read: fuzz/store has tests of that.
    "shares": (("findings", "--out"),),
    "corpus": (("findings", "--out"),),
    "features": (("findings", "--out"),),
    "serials": (("findings", "--out"),),
    "nodes": (("report", "--out", "OUT", "--campaign"),),
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept") / "campaign"
    filled(root)
    return root


def columns(database: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(t, row[1]) for t in tables for row in connection.execute(f"PRAGMA table_info({t})")]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:8])
def test_databases(value: object, campaign: Path, tmp_path: Path, capsys: Capture) -> None:
    for table, column in columns(campaign / "findings.db"):
        changed = tmp_path / f"{table}-{column}"
        shutil.copytree(campaign, changed)
        with sqlite3.connect(changed / "findings.db") as connection:
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
        for command in READ_BY[table]:
            argv = [part.replace("OUT", str(changed / "out")) for part in command]
            assert one_line([*argv, str(changed)], capsys) in (0, 1, 2), (table, column)
