# SPDX-License-Identifier: Apache-2.0
"""A simulation of many nodes that share one database: what they send, what they wait for, when a scenario arrives.

``python -m tests.support.fleet_simulation`` prints the table of docs/cluster.md.  Pauses are those of the program; what
transactions take and what nodes find is measured (:data:`RATES`), and extrapolated to many nodes in two ways:

- *n* nodes find in *t* seconds what one finds in *n t*: each scenario has a rate of its own at which a node comes
  across it, and rates fall as a power law that meets both measured points.
- Two that write the same row wait for each other, and there are no other waits: the server is never short of CPU.
  How many CPUs that takes is in the table (``busy``).

All nodes start at once, which is the worst case.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from fuzz.campaign.limits import RELOAD_SECONDS
from fuzz.cluster.node import COUNT_SECONDS
from fuzz.cluster.totals import LOOKS_A_SECOND, REPORTS_A_SECOND, pause_between
from fuzz.store.shared_corpus import BATCH

MINUTE = 60.0
PAGES, COSTS = "cluster_rates, 2 CPUs, load 6 to 20", "store_costs, 2 CPUs, load 6"


@dataclass(frozen=True, slots=True)
class Rate:
    """A number, its unit, and what measured it."""

    value: float
    unit: str
    source: str


RATES: dict[str, Rate] = {
    "nodes where finds were measured": Rate(2, "nodes", PAGES),
    "pushed by a node, first minute": Rate(2.5, "scenarios/s", PAGES),
    "pushed by a node, five minutes": Rate(0.7, "scenarios/s", PAGES),
    "features of a target": Rate(6838, "features", PAGES),
    "scenario": Rate(0.8, "kB, mean", PAGES),
    "report": Rate(20, "kB, at most", PAGES),
    "findings": Rate(100, "findings", PAGES),
    "transactions of a node, first minute": Rate(12, "a second", PAGES),
    "transactions of a node, later": Rate(2, "a second", PAGES),
    "push of 1 new": Rate(5.93, "ms", COSTS),
    "push of 1 known": Rate(0.92, "ms", COSTS),
    "push of 100 new": Rate(112.21, "ms", COSTS),
    "push of 100 known": Rate(27.18, "ms", COSTS),
    "look in vain": Rate(0.26, "ms", COSTS),
    "fetch of 200": Rate(4.42, "ms", COSTS),
    "finding that is known": Rate(8.35, "ms", COSTS),
    "counts of 100 findings": Rate(15.1, "ms", COSTS),
}
"""What was measured."""


def _ms(name: str) -> float:
    return RATES[name].value / 1e3


def push_seconds(scenarios: int, what: str) -> float:
    """Return what a push of scenarios takes that are all new, or all known: in a straight line between the measured."""
    one, hundred = _ms(f"push of 1 {what}"), _ms(f"push of 100 {what}")
    return one + (scenarios - 1) * (hundred - one) / 99


def found_by(node_seconds: float) -> float:
    """Return how many scenarios nodes find in so many seconds times nodes: the power law through what was measured."""
    nodes = RATES["nodes where finds were measured"].value
    points = [(nodes * t, nodes * t * RATES[f"pushed by a node, {name}"].value) for t, name in _SPANS]
    (t1, n1), (t2, n2) = points
    power = math.log(n2 / n1) / math.log(t2 / t1)
    return float(n1 * (node_seconds / t1) ** power)


NEW, KNOWN = "new", "known"
_SPANS = ((MINUTE, "first minute"), (5 * MINUTE, "five minutes"))


def rates_of_scenarios() -> list[float]:
    """Return how often a node comes across each scenario, a second, the most frequent first.

    With rates c / j^(1/b) for j = 1, 2, ..., Gamma(1 - b) (c T)^b are found in T: so c and b follow from ``found_by``.
    There are as many scenarios as features, because each has one of its own.
    """
    power = math.log(found_by(math.e) / found_by(1))
    scale = (found_by(1) / math.gamma(1 - power)) ** (1 / power)
    return [scale * j ** (-1 / power) for j in range(1, int(RATES["features of a target"].value) + 1)]


def discoveries(nodes: int, seconds: float, rng: random.Random) -> list[list[tuple[float, int]]]:
    """Return what each node of a target comes across first and when, in the order of times."""
    found: list[list[tuple[float, int]]] = [[] for _ in range(nodes)]
    for scenario, rate in enumerate(rates_of_scenarios()):
        if rate * seconds > 0.05:
            for node in range(nodes):
                if (at := rng.expovariate(rate)) < seconds:
                    found[node].append((at, scenario))
            continue
        at = rng.expovariate(rate * nodes)
        while at < seconds:  # rare: hardly ever twice by one node
            found[rng.randrange(nodes)].append((at, scenario))
            at += rng.expovariate(rate * nodes)
    return [sorted(each) for each in found]


def changes(seconds: float, rng: random.Random) -> list[tuple[float, int]]:
    """Return when a node finds something new or simpler, and which finding that is, in the order of times.

    Their rate is what is left of the transactions that were measured: those that are not a look, a push or counts.
    """
    looks = 1 / pause_between(1, LOOKS_A_SECOND)
    found: list[tuple[float, int]] = []
    for begin, end, name in ((0.0, MINUTE, "first minute"), (MINUTE, seconds, "later")):
        rate = RATES[f"transactions of a node, {name}"].value - 2 * looks - looks / COUNT_SECONDS
        at = begin + rng.expovariate(rate)
        while at < end:
            found.append((at, rng.randrange(int(RATES["findings"].value))))
            at += rng.expovariate(rate)
    return found


@dataclass(frozen=True, slots=True)
class Transaction:
    """A step of a node: ``seconds`` in the database with ``lock`` held, of ``kind``; no lock: a pause or a read."""

    seconds: float
    kind: str = ""
    lock: str = ""


Steps = Generator[Transaction, float, None]


@dataclass
class Tally:
    """What happened, by kind and minute: transactions, seconds in the database, kB sent; and each wait for a lock."""

    times: Counter[tuple[str, int]] = field(default_factory=Counter)
    busy: Counter[int] = field(default_factory=Counter)
    sent: Counter[int] = field(default_factory=Counter)
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, step: Transaction, now: float, wait: float) -> None:
        """Count a transaction that was asked for ``now``."""
        minute = int((now + wait) / MINUTE)
        self.times[step.kind, minute] += 1
        self.busy[minute] += step.seconds  # type: ignore[assignment]
        if step.lock:
            self.waits[step.kind].append(wait)


def play(everybody: Sequence[Steps], tally: Tally) -> None:
    """Let all nodes take their steps, in the order of times; a lock goes to who asked first."""
    free: dict[str, float] = defaultdict(float)
    queue = [(0.0, number, steps) for number, steps in enumerate(everybody)]
    for _, _, steps in queue:
        next(steps)
    while queue:
        now, number, steps = heapq.heappop(queue)
        try:
            step = steps.send(now)
        except StopIteration:
            continue
        start = max(now, free[step.lock]) if step.lock else now
        if step.lock:
            free[step.lock] = start + step.seconds
        if step.kind:
            tally.take(step, now, start - now)
        heapq.heappush(queue, (start + step.seconds, number, steps))


class Corpus:
    """The corpus of a target: scenarios in the order of commits, and when each node's workers had each of them."""

    def __init__(self, found: Sequence[Sequence[tuple[float, int]]], tally: Tally) -> None:
        numbers = sorted({scenario for each in found for _, scenario in each})
        self.had = {scenario: array("d", [math.inf]) * len(found) for scenario in numbers}
        self.found, self.tally = found, tally
        self.rows: list[int] = []
        self.inside: set[int] = set()
        self.searching = len(found)
        """So many nodes may still push something."""

    def latencies(self) -> list[float]:
        """Return for each scenario how long after the first node the last one had it, in seconds."""
        return [max(times) - min(times) for times in self.had.values()]


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a target: its number among the nodes of the target, and its pause in seconds."""

    corpus: Corpus
    name: str
    number: int
    pause: float

    def steps(self, seconds: float, rng: random.Random) -> Steps:
        """Do what :class:`fuzz.cluster.node.Sync` does after each pause, until all nodes have everything."""
        corpus, seen, next_counts, known = self.corpus, 0, 0.0, set[int]()
        coming = list(reversed(corpus.found[self.number]))
        changing = list(reversed(changes(seconds, rng)))
        searching = True
        now = yield Transaction(0)
        now = yield Transaction(rng.random() * self.pause)
        while searching or corpus.searching or seen < len(corpus.rows):
            began, changed = now, set[int]()
            while changing and changing[-1][0] <= began:
                changed.add(changing.pop()[1])
            for finding in sorted(changed):
                now = yield Transaction(_ms("finding that is known"), "finding", f"{self.name} {finding}")
            known |= changed
            if began >= next_counts:
                next_counts = began + COUNT_SECONDS * self.pause
                cost = len(known) * _ms("counts of 100 findings") / 100
                now = yield Transaction(cost, "counts", f"{self.name} counts")
            offers = list(self._come_across(coming, now))
            if offers:
                yield from self._push(offers)
            if searching and not coming and began >= seconds:
                searching = False
                corpus.searching -= 1
            now = yield Transaction(_ms("look in vain"), "look")
            while True:
                rows = corpus.rows[seen : seen + BATCH]
                self._fetched(rows, now, rng)
                seen += len(rows)
                if len(rows) < BATCH:
                    break
                now = yield Transaction(_ms("fetch of 200"), "look")
            now = yield Transaction(self.pause)

    def _come_across(self, coming: list[tuple[float, int]], now: float) -> Iterator[int]:
        """Yield what workers covered first since the last look."""
        while coming and coming[-1][0] <= now:
            at, scenario = coming.pop()
            had = self.corpus.had[scenario]
            if at < had[self.number]:
                had[self.number] = at
                yield scenario

    def _push(self, offers: Sequence[int]) -> Steps:
        """See without a lock what is new, then push that; what another one pushed meanwhile is none."""
        corpus = self.corpus
        now = yield Transaction(push_seconds(len(offers), KNOWN), "check")
        if fresh := [scenario for scenario in offers if scenario not in corpus.inside]:
            now = yield Transaction(push_seconds(len(fresh), NEW), "push", f"{self.name} serials")
        fresh = [scenario for scenario in fresh if scenario not in corpus.inside]
        corpus.rows += fresh
        corpus.inside.update(fresh)
        corpus.tally.sent[int(now / MINUTE)] += len(offers)

    def _fetched(self, rows: Sequence[int], now: float, rng: random.Random) -> None:
        arrives = now + rng.random() * RELOAD_SECONDS
        for scenario in rows:
            had = self.corpus.had[scenario]
            had[self.number] = min(had[self.number], arrives)
        self.corpus.tally.sent[int(now / MINUTE)] += len(rows)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came out for so many nodes on so many targets, over ``minutes``."""

    nodes: int
    targets: int
    minutes: int
    tally: Tally
    corpora: tuple[Corpus, ...]

    def row(self, minute: int) -> dict[str, str]:
        """Return the table's row of a minute, a second on average."""
        tally = self.tally
        each = {kind: tally.times[kind, minute] / MINUTE for kind in KINDS}
        reports = self.nodes / pause_between(self.nodes, REPORTS_A_SECOND)
        kilobytes = tally.sent[minute] / MINUTE * RATES["scenario"].value + reports * RATES["report"].value
        return {
            "nodes": f"{self.nodes:,}".replace(",", " "),
            "targets": f"{self.targets}",
            "minute": f"{minute + 1}",
            "reports/s": f"{reports:.1f}",
            "looks/s": f"{each['look']:.1f}",
            "pushes/s": f"{each['check']:.1f}",
            "transactions/s": f"{sum(each.values()) - each['push']:.0f}",
            "kB/s": f"{kilobytes:.0f}",
            "busy": f"{tally.busy[minute] / MINUTE:.2f}",
        }

    def whole(self) -> dict[str, str]:
        """Return the row of the whole run: how long scenarios take to the last node, and waits for locks."""
        latencies = self.latencies()
        return {
            "nodes": f"{self.nodes:,}".replace(",", " "),
            "targets": f"{self.targets}",
            "scenarios": f"{len(latencies):,}".replace(",", " "),
            "to the last node, s": f"{statistics.median(latencies):.1f}, at most {max(latencies):.1f}",
            **{f"wait for {name}, s": _waits(self.tally.waits[kind]) for kind, name in LOCKS.items()},
        }

    def latencies(self) -> list[float]:
        """Return the latencies of all scenarios of all targets, in seconds."""
        return [latency for corpus in self.corpora for latency in corpus.latencies()]


KINDS = ("look", "check", "push", "counts", "finding")
LOCKS = {"push": "a push", "counts": "counts", "finding": "a finding"}


def _waits(waits: Sequence[float]) -> str:
    return f"{statistics.mean(waits):.2f}, at most {max(waits):.1f}" if waits else "-"


def simulate(nodes: int, targets: int = 1, minutes: int = 10, seed: int = 1) -> Simulated:
    """Simulate so many nodes, spread evenly over targets; all numbers are positive."""
    rng, tally = random.Random(seed), Tally()
    pause = pause_between(nodes, LOOKS_A_SECOND)
    corpora, everybody = [], []
    for target in range(targets):
        count = nodes // targets + (target < nodes % targets)
        corpus = Corpus(discoveries(count, minutes * MINUTE, rng), tally)
        corpora.append(corpus)
        members = [Member(corpus, f"target {target}", number, pause) for number in range(count)]
        everybody += [member.steps(minutes * MINUTE, random.Random(rng.random())) for member in members]
    play(everybody, tally)
    return Simulated(nodes, targets, minutes, tally, tuple(corpora))


def table(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| {' | '.join(rows[0])} |"
    yield f"| {' | '.join('---' for _ in rows[0])} |"
    for row in rows:
        yield f"| {' | '.join(row.values())} |"


def lines(runs: Sequence[tuple[int, int]], minutes: int) -> Iterator[str]:
    """Yield what is measured, what is simulated of nodes on targets, and how long scenarios take to arrive."""
    measured = [{"what": n, "measured": f"{r.value:g} {r.unit}", "by": r.source} for n, r in RATES.items()]
    yield from (*table(measured), "")
    done = [simulate(nodes, targets, minutes) for nodes, targets in runs]
    yield from (*table([run.row(minute) for run in done for minute in (0, minutes - 1)]), "")
    yield from table([run.whole() for run in done])


def main(words: Sequence[str]) -> None:
    """Print it; ``words`` are NODES or NODES/TARGETS."""
    runs = [(int(word.partition("/")[0]), int(word.partition("/")[2] or 1)) for word in words]
    print("\n".join(lines(runs or [(1, 1), (10, 1), (100, 1), (1000, 1), (1000, 10)], 10)))


if __name__ == "__main__":
    main(sys.argv[1:])
