# SPDX-License-Identifier: Apache-2.0
"""Measure what a node's transactions take in the database of a cluster, by the code that nodes run.

``python -m tests.vm.store_costs`` prints how many ms each takes with a PostgreSQL of its own that waits for the disk.
They are times of the wall, of one node alone: of the machine's load as well.  :mod:`tests.support.fleet_simulation`
takes them.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from fuzz.corpus.files import find_scenarios
from fuzz.paths import CORPUS
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.replicate import Carrier
from fuzz.store.shared_corpus import Offer, SharedCorpus
from harness.scenario.scenario import format_scenario, load
from tests.support.findings import finding
from tests.support.postgres import server

FEATURES = 16
"""Features of a scenario: 6 838 features have 442 scenarios (docs/cluster.md)."""
FINDINGS_OF_A_MINUTE = 100
TEXT = "a line of a console\n" * 100
TIMES = 21


def clocked(what: Callable[[], object]) -> float:
    """Return how long a call takes, in ms."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1e3


def usual(times: Iterable[float]) -> float:
    """Return a time that a quarter of the calls took at most: a load only adds to it."""
    return statistics.quantiles(times, n=4)[0]


def offers() -> Iterator[Offer]:
    """Yield scenarios of the project's corpus, repeatedly, each with features of its own."""
    texts = [format_scenario(load(path)) for path in find_scenarios([CORPUS / "seeds", CORPUS / "regressions"])]
    number = 0
    while True:
        text = texts[number % len(texts)].replace("about ", f"about {number} ", 1)
        yield Offer(text, frozenset(range(number * FEATURES, (number + 1) * FEATURES)))
        number += 1


def corpus_costs(database: Database) -> Iterator[tuple[str, float]]:
    """Yield the times of pushes of 1, 10 and 100 scenarios, of the same once more, and of a look in vain."""
    shared, source = SharedCorpus(database, "kvm-nvhe 0 spec"), offers()
    shared.push([next(source)])
    for size in (1, 10, 100):
        new, known = [], []
        for _ in range(TIMES):
            some = [next(source) for _ in range(size)]
            new.append(clocked(lambda some=some: shared.push(some)))  # type: ignore[misc]
            known.append(clocked(lambda some=some: shared.push(some)))  # type: ignore[misc]
        yield f"push of {size} new", usual(new)
        yield f"push of {size} known", usual(known)
    last = shared.fetch(0).serial
    while (more := shared.fetch(last).serial) != last:
        last = more
    yield "look in vain", usual(clocked(lambda: shared.fetch(last)) for _ in range(TIMES))
    yield "fetch of 200", usual(clocked(lambda: shared.fetch(0)) for _ in range(TIMES))


def finding_costs(database: Database, work: Path) -> Iterator[tuple[str, float]]:
    """Yield the times of carrying a finding, new and known, and of the counts of a hundred."""
    counts: list[float] = []
    scenario = load(CORPUS / "regressions" / "mmio_load_signed_word.scn")
    for node in ("one", "two", "three"):
        (work / node).mkdir()
        local = Database(default_url(work / node))
        store = Store(local, FINDINGS)
        for number in range(FINDINGS_OF_A_MINUTE):
            store.add(finding(("host", "xN", f"R{number}", "prep")), scenario, {"console.txt": TEXT})
        carrier = Carrier(local, database, node)
        whole = clocked(lambda carrier=carrier: carrier.carry(counts=False))  # type: ignore[misc]
        yield f"finding of node {node}", whole / FINDINGS_OF_A_MINUTE
        ids = store.ids()
        for _ in range(TIMES // 3):
            store.bump(dict.fromkeys(ids, 1), "2999-01-01")
            counts.append(clocked(carrier.carry))
    yield f"counts of {FINDINGS_OF_A_MINUTE} findings", usual(counts)


def main() -> None:
    """Measure, and print."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(server(fsync=True))
        database = Database(postgres.url, keep_connection=True)
        for name, cost in (*corpus_costs(database), *finding_costs(database, work)):
            print(f"{name:32} {cost:8.2f} ms", flush=True)
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
