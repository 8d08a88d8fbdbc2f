# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz report``: the page as a file, or served to this machine only."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.database import Database
from fuzz.triage.report_page import book_of
from fuzz.triage.report_server import LOOPBACK, make_server
from harness.report.html_report import page
from tests.support.kept import filled


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database as campaigns leave it."""
    return filled(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def html(database: Database) -> str:
    """The report of it."""
    return page(book_of(database))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "c")
    out = tmp_path / "report.html"
    assert main(["report", "--out", str(out), "--campaign", str(tmp_path / "c")]) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert main(["report", "--out", str(tmp_path / "no" / "x"), "--campaign", str(tmp_path / "c")]) == 2
    assert main(["report", "--out", str(out), "--campaign", str(tmp_path / "none")]) == 2
    capsys.readouterr()


@pytest.fixture
def port(html: str) -> Iterator[int]:
    """A server that runs."""
    server = make_server(0, lambda: html)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/", "127.0.0.1", 200), ("/?x", "localhost", 200), ("/etc/passwd", "localhost", 404), ("/", "evil.example", 403)],
)
def test_serve(port: int, html: str, path: str, host: str, status: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == status and (body == html) == (status == 200)
    assert "default-src 'none'" in (answer.headers["Content-Security-Policy"] or "")


def test_a_port_that_is_taken(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    for wrong in (port, 70_000):
        assert main(["serve", "--port", str(wrong), "--campaign", str(tmp_path)]) == 2
    assert "cannot be used" in capsys.readouterr().err
