# SPDX-License-Identifier: Apache-2.0
"""The store: SQLite and PostgreSQL, concurrent writers, workers killed at random times, a full disk, old schemas.

``SHADOWFUZZ_KILLS=1000`` sets the number of kills.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fuzz.store import database
from fuzz.store.database import Database, StoreError, default_url
from fuzz.store.findings import FINDINGS, FLAKY, TRACE, Store
from fuzz.store.runs import History
from harness.errors import InputError
from harness.findings.finding import Tries
from harness.report.campaign_data import Sample
from harness.scenario.scenario import Scenario, Step, format_scenario
from tests.support.fake_worker import DIVERGENCE, TEXT, checked, make_worker
from tests.support.postgres import TABLES, server
from tests.unit.harness.findings.test_finding import finding

KILLS = int(os.environ.get("SHADOWFUZZ_KILLS", "200"))
SMALL = Scenario("Small.", (), (Step("hvc", (0,)),))
LARGE = Scenario("Large.", (("x0", 1),), (Step("hvc", (0,)), Step("wfi")))
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of our own."""
    with server() as found:
        yield found.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database of each kind."""
    if request.param == "sqlite":
        yield default_url(tmp_path)
        return
    server = request.getfixturevalue("postgres")
    yield server
    with Database(server).access(write=True) as access:
        access.run(f"DROP TABLE {', '.join(TABLES)}")


def test_add_count_and_replace_by_a_simpler_scenario(url: str) -> None:
    store = Store(Database(url), FINDINGS)
    one = finding()
    assert store.ids() == () and store.count(one.id) == 0 and one.id not in store
    assert store.add(one, LARGE, {"console.txt": "panic\0", TRACE: "old"})
    assert not store.add(one, LARGE)
    store.bump({one.id: 1}, "2027-01-01")
    entry = store.entry(one.id)
    assert (entry.finding, entry.scenario, entry.count) == (one, format_scenario(LARGE), 3)
    assert (entry.first_seen, entry.last_seen) == (one.first_seen, "2027-01-01")
    assert store.texts(one.id) == {"console.txt": "panic\\x00", TRACE: "old"}
    again = replace(one, fresh_vm=Tries(3, 3))
    assert not store.add(again, SMALL, {TRACE: "new"})
    entry = store.entry(one.id)
    assert (entry.finding, entry.scenario, entry.count) == (again, format_scenario(SMALL), 4)
    assert (entry.first_seen, store.texts(one.id)) == (one.first_seen, {TRACE: "new"})
    assert store.ids() == (one.id,) and one.id in store
    assert Store(Database(url), FLAKY).ids() == ()


def test_a_read_only_user_reads_a_server(postgres: str) -> None:
    one = finding()
    store = Store(Database(postgres), FINDINGS)
    store.add(one, SMALL)
    with Database(postgres).access(write=True) as access:
        access.run("CREATE ROLE reader LOGIN")
        access.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reader = Store(Database(postgres.replace("postgres@", "reader@")), FINDINGS)
    try:
        assert reader.ids() == (one.id,)
        with pytest.raises(StoreError, match="permission denied"):
            reader.add(one, SMALL)
    finally:
        with Database(postgres).access(write=True) as access:
            access.run("DROP OWNED BY reader")
            access.run("DROP ROLE reader")
            access.run(f"DROP TABLE {', '.join(TABLES)}")


def test_runs_and_samples(url: str) -> None:
    history = History(Database(url))
    run = history.begin("2026-01-01", {"target": "kvm-nvhe"})
    sample = Sample(5, 1, 2, 3, 4)
    history.sample(run, sample)
    history.sample(run, sample)  # the same second again
    (noted,) = history.runs()
    assert (noted.asked, noted.summary, noted.samples) == ({"target": "kvm-nvhe"}, None, (sample,))
    history.end(run, {"scenarios": 1})
    assert history.runs()[0].summary == {"scenarios": 1}


def _add_many(url: str, count: int) -> None:
    store = Store(Database(url), FINDINGS)
    for i in range(count):
        store.add(finding(("restore", f"r{i % 5}", "WFX", "")), SMALL)


def test_many_writers_count_every_member(url: str) -> None:
    writers = [FORK.Process(target=_add_many, args=(url, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = Store(Database(url), FINDINGS)
    assert [store.count(id_) for id_ in store.ids()] == [20] * 5


def test_export(tmp_path: Path) -> None:
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    store.add(finding(), SMALL, {"console.txt": "panic"})
    store.export(tmp_path / "out")
    store.bump({finding().id: 1}, "2027-01-01")
    store.export(tmp_path / "out")
    place = tmp_path / "out" / finding().id
    assert {path.name: path.read_text() for path in place.iterdir() if path.name != "finding.json"} == {
        "scenario.scn": format_scenario(SMALL),
        "console.txt": "panic",
        "count": "2\n",
    }
    store.export(tmp_path / "others", only=("divergence-000000000000",))
    assert not (tmp_path / "others").exists()


# ---- failures ----------------------------------------------------------------------------------------------------


def _work(root: Path, first: int, said: Connection) -> None:
    """Run a worker that finds something new in each scenario; report each scenario when it is done."""
    b = make_worker(root)
    for i in range(first, first + 100_000):
        b.executor.answers[:] = [checked(DIVERGENCE._replace(register=f"r{i}"))] * 3
        b.worker.run_input(TEXT)
        said.send(i)


def test_killed_workers_lose_no_confirmed_finding(tmp_path: Path) -> None:
    """Kill a worker at random times, reopen its directory, and check that all confirmed findings are stored."""
    rng = random.Random(1)
    confirmed = first = 0
    deadline = time.monotonic() + (30 if KILLS <= 200 else 36_000)
    kills, patience = 0, 0.06
    for kills in range(1, KILLS + 1):  # noqa: B007
        ours, theirs = FORK.Pipe(duplex=False)
        worker = FORK.Process(target=_work, args=(tmp_path, first, theirs))
        worker.start()
        theirs.close()
        time.sleep(rng.expovariate(1 / patience))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        said = []
        while ours.poll():
            try:
                said.append(ours.recv())
            except EOFError:
                break
        ours.close()
        confirmed += len(said)
        # On a disk with a slow sync, a worker may be killed before its first finding.
        patience = 0.06 if said else patience * 1.2
        first = said[-1] + 1 if said else first
        if time.monotonic() > deadline:
            break
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    registers = set()
    for id_ in store.ids():
        entry = store.entry(id_)
        assert entry.finding.id == id_ and entry.scenario == TEXT.decode() and entry.count >= 1
        assert TRACE in store.texts(id_)
        registers.add(entry.finding.signature[1])
    assert {f"r{i}" for i in range(first)} <= registers
    print(f"{kills} kills, {confirmed} confirmed findings, all there")
    assert min(confirmed, kills) >= min(KILLS, 20), f"{confirmed} findings in {kills} kills: too few to show anything"
    (check,) = sqlite3.connect(tmp_path / database.FILE).execute("PRAGMA integrity_check").fetchone()
    assert check == "ok"


def _fill_the_disk(root: Path, said: Connection) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = Store(Database(default_url(root)), FINDINGS)
    store.add(finding(), SMALL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # a limit on the file size acts as a full disk
    written = 0
    try:
        for i in range(1000):
            store.add(finding(("restore", f"r{i}", "WFX", "")), SMALL, {TRACE: "x" * 5000})
            written += 1
    except StoreError as error:
        said.send((written, str(error)))


def test_a_full_disk_is_reported_and_stored_findings_stay(tmp_path: Path) -> None:
    ours, theirs = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=_fill_the_disk, args=(tmp_path, theirs))
    writer.start()
    assert ours.poll(30)
    written, why = ours.recv()
    writer.join()
    assert 0 < written < 1000 and why
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    assert len(store.ids()) == written + 1
    assert store.add(finding(("restore", "later", "WFX", "")), SMALL)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / database.FILE).write_text("another program's file, long enough for a header\n" * 100)
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    with pytest.raises(InputError, match="not a database"):
        store.ids()
    with pytest.raises(StoreError, match="not a database"):
        store.add(finding(), SMALL)
    with pytest.raises(InputError, match="no such finding"):
        Store(Database(default_url(tmp_path / "..")), FINDINGS).load(finding().id)
    for url in ("nonsense", "nosuch://here", "sqlite://host/x"):
        with pytest.raises(InputError, match="no usable database URL"):
            Store(Database(url), FINDINGS).ids()
