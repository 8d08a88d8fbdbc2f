# SPDX-License-Identifier: Apache-2.0
"""Measure what a cluster costs: the same two workers with and without one, in turns.

``python -m tests.vm.cluster_rates PAIRS SECONDS`` prints checked exits a second of each campaign, and what PostgreSQL
counted meanwhile.  Needs Ray (the extra ``cluster``) and PostgreSQL.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fuzz.store.database import Database
from tests.support.postgres import Server, server
from tests.vm.clustering import Fleet, command, fleet

CGROUPS = Path("/sys/fs/cgroup")
GROUP = (CGROUPS / "cpuacct" if (CGROUPS / "cpuacct").is_dir() else CGROUPS) / "shadowfuzz-rates"
"""A control group for what is measured, because CPU time depends less on other work than wall time.  Needs root."""


def run(argv: list[str], out: Path) -> dict[str, Any]:
    """Run a campaign; return its summary."""
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def exchanged(postgres: Server) -> dict[str, float]:
    """Return what PostgreSQL counted: transactions, rows written, bytes of its log."""
    with Database(postgres.url).access() as access:
        sql = (
            "SELECT xact_commit AS commits, xact_rollback AS rollbacks, tup_inserted AS inserted, "
            "tup_updated AS updated, sessions FROM pg_stat_database WHERE datname = 'postgres'"
        )
        (row,) = access.run(sql).mappings().all()
        wal = access.run("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").scalar()
    return {**{name: float(value) for name, value in row.items()}, "wal_bytes": float(wal or 0)}


def cpu_seconds() -> float:
    """Return the CPU time that this process and all below it took so far: of a control group of their own."""
    if (GROUP / "cpuacct.usage").exists():  # version 1 of control groups, in ns
        return int((GROUP / "cpuacct.usage").read_text()) / 1e9
    words = (GROUP / "cpu.stat").read_text().split()
    return int(words[words.index("usage_usec") + 1]) / 1e6


def pair(number: int, seconds: int, nodes: Fleet, postgres: Server, work: Path) -> tuple[float, float]:
    """Run both, the one first that was second before; return exits a second of CPU, without a cluster first."""
    rates: dict[str, float] = {}
    ways = ("alone", "cluster") if number % 2 else ("cluster", "alone")
    common = ["--seconds", str(seconds), "--seed", str(number), "--quiet"]
    for way in ways:
        out = work / f"{way}-{number}"
        before, cpu = exchanged(postgres), cpu_seconds()
        if way == "alone":
            argv = [sys.executable, "-m", "fuzz.cli.main", "fuzz", "--jobs", "2", "--out", str(out), *common]
        else:
            argv = command(nodes, postgres.url, out, "--jobs", "1", *common)
        found = run(argv, out)
        rate = found["checked_exits"] / found["seconds"]
        after, cpu = exchanged(postgres), cpu_seconds() - cpu
        told = {name: round((after[name] - before[name]) / found["seconds"], 1) for name in after}
        load = os.getloadavg()[0]
        keys = ("checked_exits", "scenarios", "coverage", "corpus", "clusters")
        rates[way] = found["checked_exits"] / cpu
        print(
            *(number, way, f"{rate:.1f} exits/s, {rates[way]:.1f} a second of CPU ({cpu:.0f} s)"),
            *({k: found[k] for k in keys}, f"load {load:.1f}"),
            flush=True,
        )
        if way == "cluster":
            print("  PostgreSQL, a second:", told, flush=True)
            postgres.clear()
    return rates["alone"], rates["cluster"]


def main(pairs: int, seconds: int) -> None:
    """Measure pairs of campaigns."""
    GROUP.mkdir(exist_ok=True)
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    with tempfile.TemporaryDirectory() as work, server() as postgres, fleet(2) as nodes:
        Database(postgres.url).close()
        rates = [pair(number, seconds, nodes, postgres, Path(work)) for number in range(1, pairs + 1)]
    ratios = [cluster / alone for alone, cluster in rates]
    alone, cluster = (sum(column) for column in zip(*rates, strict=True))
    told = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    middle = statistics.median(ratios)
    print(f"exits a second of CPU: ratio of the sums {cluster / alone:.3f}, median {middle:.3f}, all {told}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
