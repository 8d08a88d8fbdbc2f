# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz report``: the page as a file, or served to this machine only."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.database import Database, default_url
from fuzz.store.kept_findings import stories
from fuzz.store.marks import Marks
from fuzz.triage.report_page import site_of
from fuzz.triage.report_server import LOOPBACK, make_server
from harness.report import api
from harness.report.html_script import LIVE_SCRIPT
from tests.support.kept import filled
from tests.support.paths import ROOT
from tests.support.schemas import check_schema


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Return a database with findings of campaigns."""
    return filled(tmp_path_factory.mktemp("campaign"))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "c")
    out = tmp_path / "report.html"
    assert main(["report", "--out", str(out), "--campaign", str(tmp_path / "c")]) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert main(["report", "--out", str(tmp_path / "no" / "x"), "--campaign", str(tmp_path / "c")]) == 2
    assert main(["report", "--out", str(out), "--campaign", str(tmp_path / "none")]) == 2
    capsys.readouterr()


@pytest.fixture(scope="module")
def port(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a server and yield its port."""
    server = make_server(0, site_of(database, tmp_path_factory.mktemp("campaign")).get)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def ask(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", path, headers={"Host": f"localhost:{port}", **given})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/", "127.0.0.1", 200), ("/?x", "localhost", 200), ("/etc/passwd", "localhost", 404), ("/", "evil.example", 403)],
)
def test_serve(port: int, path: str, host: str, status: int) -> None:
    answer, body = ask(port, path, Host=f"{host}:{port}")
    assert answer.status == status and body.startswith(b"<!DOCTYPE html>") == (status == 200)
    assert "default-src 'none'" in (answer.headers["Content-Security-Policy"] or "")


def test_a_page_is_compressed_and_cached(port: int) -> None:
    answer, body = ask(port, "/", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    plain = gzip.decompress(body)
    assert plain == ask(port, "/")[1] and len(body) < len(plain) / 3
    again, nothing = ask(port, "/", If_None_Match=answer.headers["ETag"] or "")
    assert (again.status, nothing) == (304, b"")


def test_details_are_loaded_on_demand(port: int, database: Database) -> None:
    _, first = ask(port, "/")
    text = first.decode()
    assert "How to reproduce" not in text and LIVE_SCRIPT in text
    for story in stories(database):
        place = f"/findings/{story.anchor}"
        assert f'data-load="{place}"' in text and f'href="{place}"' in text
        answer, body = ask(port, place)
        assert answer.status == 200 and b"How to reproduce" in body
    assert ask(port, "/findings/nosuch")[0].status == 404


def test_the_api_fits_its_schema(port: int, database: Database) -> None:
    schema = json.loads((ROOT / "docs" / "schema" / "api.json").read_text())
    places = {name: f"/{name}" for name in ("problems", "errata", "clusters", "runs", "nodes")}
    places |= {"index": "", "cluster": f"/clusters/{stories(database)[0].anchor}"}
    for name, place in places.items():
        answer, body = ask(port, f"{api.ROOT}{place}")
        assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
        check_schema({**schema, "$ref": f"#/$defs/{name}"}, json.loads(body))
    answer, body = ask(port, f"{api.ROOT}/nosuch")
    assert answer.status == 404 and "error" in json.loads(body)
    rows = json.loads(ask(port, f"{api.ROOT}/clusters")[1])["clusters"]
    for row in (finding for cluster in rows for finding in cluster["findings"]):
        assert json.loads(ask(port, row["detail"])[1])["finding"]["id"] == row["id"]


def test_two_at_once_are_answered_at_once(port: int) -> None:
    ask(port, "/")
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: ask(port, "/", Accept_Encoding="gzip"), range(20)))
    assert all(answer.status == 200 for answer, _ in answers)
    assert (time.monotonic() - begun) / 20 < 0.3


def test_a_silent_client_blocks_no_other(port: int) -> None:
    with socket.create_connection((LOOPBACK, port)) as silent:
        silent.send(b"GET /")
        assert ask(port, "/")[0].status == 200


def test_changes_of_the_database_are_shown(tmp_path: Path) -> None:
    database = filled(tmp_path)
    site = site_of(database, tmp_path)
    id_ = json.loads(site.get(f"{api.ROOT}/problems").plain)["problems"][0]["id"]
    before = site.get("/").tag
    Marks(database).set(id_, "2026-01-01", note="seen it")
    deadline = time.monotonic() + 30
    while site.get("/").tag == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert b"seen it" in site.get("/").plain


def test_an_unreadable_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "findings.db").write_text("no database, but long enough to be looked at\n" * 100)
    site = site_of(Database(default_url(tmp_path)), tmp_path)
    assert site.get("/").status == 500 and b"not a database" in site.get("/").plain
    assert "error" in json.loads(site.get(api.ROOT).plain)


def test_a_port_in_use(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    for wrong in (port, 70_000):
        assert main(["serve", "--port", str(wrong), "--campaign", str(tmp_path)]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_output_to_a_named_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert main(["report", "write", "--out", str(pipe), "--campaign", str(tmp_path)]) == 0
        assert read.result(timeout=30).startswith("<!DOCTYPE html>")
    assert pipe.is_fifo()
    capsys.readouterr()
