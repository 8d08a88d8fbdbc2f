# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of our own on a socket in a temporary directory, which may be restarted and cut off."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from fuzz.store.database import Database

TABLES = (
    *("findings", "texts", "runs", "samples", "examples", "marks", "schema_version", "alembic_version"),
    *("shares", "nodes", "corpus", "features", "serials"),
)


@dataclass(frozen=True)
class Server:
    """A server that runs; ``url`` is that of its database; ``fsync``: whether it waits for the disk."""

    programs: Path
    root: Path
    become: tuple[str, ...]
    fsync: bool = False

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.root}"

    def run(self, *argv: str) -> None:
        done = subprocess.run(
            [*self.become, str(self.programs / argv[0]), *argv[1:]],
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, argv

    def start(self) -> None:
        options = f"-k {self.root} -c listen_addresses= -c fsync={'on' if self.fsync else 'off'}"
        self.run("pg_ctl", "-D", str(self.root / "data"), "-o", options, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        self.run("pg_ctl", "-D", str(self.root / "data"), "-m", how, "-w", "stop")

    def cut(self) -> None:
        """End every connection but one's own."""
        with Database(self.url).access(write=True) as access:
            access.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def clear(self) -> None:
        """Leave no table."""
        engine = create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:  # whatever schema is there
            connection.execute(text(f"DROP TABLE IF EXISTS {', '.join(TABLES)}"))
        engine.dispose()


def _tools() -> tuple[Path, pwd.struct_passwd] | str:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        return "PostgreSQL is not installed (Debian package postgresql)"
    try:
        return found[-1].parent, pwd.getpwnam("postgres")
    except KeyError:
        return "there is no user postgres"


@contextmanager
def server(*, fsync: bool = False) -> Iterator[Server]:
    """Start a server; it ends with the block.  Skips the test where PostgreSQL is not installed."""
    tools = _tools()
    if isinstance(tools, str):
        pytest.skip(tools)
    programs, user = tools
    root = Path(tempfile.mkdtemp(prefix="sf-pg-"))
    if os.geteuid() == 0:  # whom the server refuses; anybody else may run it
        os.chown(root, user.pw_uid, user.pw_gid)
    become = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    found = Server(programs, root, become if os.geteuid() == 0 else (), fsync)
    try:
        found.run("initdb", "-D", str(root / "data"), "-A", "trust", "-U", "postgres", "-N")
        found.start()
        yield found
        found.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)
