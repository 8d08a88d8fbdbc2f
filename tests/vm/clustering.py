# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of several nodes in processes of this machine, a real PostgreSQL, a campaign on both, and kills.

``python -m tests.vm.clustering KILLS`` kills so often and prints what it cost.  Needs Ray (the extra ``cluster``).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.cluster.node_job import PLACES
from fuzz.store.database import FILE, Database
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.nodes import Nodes
from fuzz.store.runs import History
from harness.vm.cache import default_root
from tests.support.postgres import Server, server

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@dataclass
class Fleet:
    """A cluster with nodes that can be killed; its head is a node without CPUs, on which nothing runs."""

    cluster: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        for left in reversed(range(5)):
            try:
                self.nodes.append(self.cluster.add_node(**NODE))
                return
            except Exception:  # Ray gives a node 30 s to start: on a busy machine not always enough
                if not left:
                    raise

    def lose(self, rng: random.Random) -> None:
        """Kill all processes of a node."""
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)

    def pids(self, what: str) -> list[int]:
        """Return our processes whose command line has a text, those of the cluster alone."""
        return [pid for pid, words in descendants(os.getpid()) if what in words]


def descendants(root: int) -> list[tuple[int, str]]:
    """Return all processes below one, with their command lines."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [(int(pid), int(ppid), words) for pid, ppid, words in (r.split(None, 2) for r in table.splitlines()[1:])]
    below, found = {root}, []
    while more := [(pid, words) for pid, ppid, words in rows if ppid in below and pid not in below]:
        below |= {pid for pid, _ in more}
        found += more
    return found


@contextmanager
def fleet(count: int) -> Iterator[Fleet]:
    """Start a cluster of so many nodes with a CPU each, on the loopback address; it ends with the block."""
    os.environ.update(LOOPBACK)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_log_monitor": False})
    found = Fleet(cluster, [])
    try:
        for _ in range(count):
            found.add()
        yield found
    finally:
        cluster.shutdown()


def command(fleet_: Fleet, url: str, out: Path, *more: str) -> list[str]:
    """Return the command line of a campaign on the fleet."""
    words = ["fuzz", "--cluster", fleet_.address, "--store", url, "--out", str(out), *more]
    return [sys.executable, "-m", "fuzz.cli.main", *words]


@dataclass
class Campaign:
    """A campaign that runs on a fleet, and what is known to be confirmed by its nodes' own databases."""

    process: subprocess.Popen[bytes]
    url: str
    out: Path
    confirmed: set[str] = field(default_factory=set)
    run: str = ""

    def note(self) -> None:
        """Note what nodes have confirmed so far, whether or not it is in the database of all."""
        with suppress(Exception):
            self.run = self.run or History(Database(self.url)).runs()[-1].id
        for file in (default_root(os.environ) / PLACES).glob(f"{self.run or 'none'}/*/{FILE}"):
            with suppress(sqlite3.Error):
                lite = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
                sql = "SELECT id FROM findings WHERE shelf = ?"
                self.confirmed |= {id_ for (id_,) in lite.execute(sql, (FINDINGS,))}
                lite.close()

    def exits(self) -> int:
        """Return how many exits all nodes have checked, as the database has it; -1: it cannot be asked."""
        with suppress(Exception):
            return sum(node.checked_exits for node in Nodes(Database(self.url)).readable()[0])
        return -1

    def workers(self) -> int:
        """Return how many workers are alive, as the database has it; 0: it cannot be asked."""
        with suppress(Exception):
            return sum(node.workers for node in Nodes(Database(self.url)).readable()[0])
        return 0

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait; return how many seconds that took."""
        began = time.monotonic()
        while not condition():
            assert self.process.poll() is None, f"the campaign ended: {self.process.returncode}"
            assert time.monotonic() - began < seconds, f"not in {seconds} s: {what}"
            self.note()
            time.sleep(0.25)
        return time.monotonic() - began

    def end(self) -> dict[str, Any]:
        """End it as Ctrl-C does; return its summary."""
        self.process.send_signal(signal.SIGINT)
        return self.summary(120)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Wait for its end; return its summary."""
        self.process.wait(seconds)
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return found


@contextmanager
def campaign(fleet_: Fleet, url: str, out: Path, *more: str) -> Iterator[Campaign]:
    """Start a campaign; it is killed at the end of the block if it is still there."""
    with (out.parent / "said").open("wb") as said:
        process = subprocess.Popen(command(fleet_, url, out, *more), stdout=said, stderr=said)
        try:
            yield Campaign(process, url, out)
        finally:
            process.kill()
            process.wait()


# ---- kills -------------------------------------------------------------------------------------------------------


def _kill_one(fleet_: Fleet, rng: random.Random, what: str) -> bool:
    pids = fleet_.pids(what)
    if pids:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(pids), signal.SIGKILL)
    return bool(pids)


def kill(how: str, fleet_: Fleet, postgres: Server, rng: random.Random) -> bool:
    """Kill something; return whether there was anything to kill."""
    if how == "node":
        fleet_.lose(rng)
        fleet_.add()
    elif how == "postgres":
        postgres.stop()
        time.sleep(rng.uniform(0, 3))
        postgres.start()
    elif how == "connection":
        for _ in range(20):
            postgres.cut()
            time.sleep(0.1)
    else:
        names = {"worker": "fuzz.campaign.worker_process", "actor": "ray::NodeActor", "qemu": "qemu-system-aarch64"}
        return _kill_one(fleet_, rng, names[how])
    return True


HOWS = ("worker", "qemu", "actor", "node", "postgres", "connection")


@dataclass(frozen=True)
class Toll:
    """What kills cost: how often each was done, and how long it took until exits were checked again."""

    kills: Counter[str]
    seconds: dict[str, list[float]]


def kill_again_and_again(running: Campaign, fleet_: Fleet, postgres: Server, hows: list[str], seed: int) -> Toll:
    """Kill in these ways; after each, exits must be checked again."""
    rng, kills, seconds = random.Random(seed), Counter[str](), dict[str, list[float]]()
    for how in hows:
        time.sleep(rng.uniform(0, 2))
        running.note()
        killed = time.monotonic()
        if not kill(how, fleet_, postgres, rng):
            continue
        running.note()
        time.sleep(6)  # what the database has of a node that was killed is older than this
        before = running.exits()
        if before < 0:
            running.wait_for(lambda: running.exits() >= 0, 60, "the database answers")
            before = running.exits()
        # All nodes work again, a new one included, and more exits were checked.
        running.wait_for(lambda: running.workers() >= len(fleet_.nodes), 180, f"all workers after {how}")
        running.wait_for(lambda before=before: running.exits() > before, 180, f"exits after {how}")  # type: ignore[misc]
        took = time.monotonic() - killed
        kills[how] += 1
        seconds.setdefault(how, []).append(took)
        print(f"{sum(kills.values())} {how}: whole again after {took:.1f} s", flush=True)
    return Toll(kills, seconds)


def check_nothing_lost(running: Campaign, url: str) -> tuple[int, int]:
    """Check what is in the database of all; return how many findings there are, and how many members."""
    store = Store(Database(url), FINDINGS)
    ids = set(store.ids())
    assert running.confirmed <= ids, f"confirmed and lost: {running.confirmed - ids}"
    with Database(url).access() as access:
        rows = access.rows("SELECT id, count FROM findings WHERE shelf = :s", s=FINDINGS)
        shares = access.rows("SELECT id, count FROM shares WHERE shelf = :s", s=FINDINGS)
    parts = Counter[str]()
    for row in shares:
        parts[row["id"]] += row["count"]
    assert {row["id"]: row["count"] for row in rows} == dict(parts), "counts are those of the nodes, added up"
    assert len(rows) == len(ids)
    return len(ids), sum(parts.values())


def main(kills: int, seed: int) -> None:
    """Kill so often, by hand."""
    rng = random.Random(seed)
    hows = [HOWS[number % len(HOWS)] for number in range(kills)]
    rng.shuffle(hows)
    with tempfile.TemporaryDirectory() as work, server() as postgres, fleet(3) as nodes:
        out = Path(work) / "out"
        with campaign(nodes, postgres.url, out, "--seconds", "100000", "--jobs", "1") as running:
            print(f"first exits after {running.wait_for(lambda: running.exits() > 0, 240, 'first exits'):.1f} s")
            toll = kill_again_and_again(running, nodes, postgres, hows, seed)
            found = running.end()
        print((Path(work) / "said").read_text()[-3000:])
        print(check_nothing_lost(running, postgres.url), len(running.confirmed), "confirmed by nodes")
        for how, seconds in toll.seconds.items():
            ordered = sorted(seconds)
            print(
                f"{how}: {len(seconds)} kills, again after {ordered[len(ordered) // 2]:.1f} s, most {ordered[-1]:.1f} s"
            )
        print({k: found[k] for k in ("scenarios", "checked_exits", "clusters", "failure", "seconds")})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
