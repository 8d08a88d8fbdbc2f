# SPDX-License-Identifier: Apache-2.0
"""What one node of a cluster does: the campaign's parent with its workers, and the exchange with the database of all.

Knows no Ray.  Workers write to a database in the node's own directory, which no network can take from them; what it
has is carried over (:mod:`fuzz.store.replicate`).  What may take minutes has a thread of its own
(:mod:`fuzz.cluster.errands`).
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.campaign.counters_file import Stats
from fuzz.campaign.engine import require_engine
from fuzz.campaign.guidance import Guide, choose_guide
from fuzz.campaign.offers import OFFERS
from fuzz.campaign.parent import CORPUS, RUN, Plan, Progress, campaign_directory, run_campaign
from fuzz.campaign.worker_job import Launcher
from fuzz.cluster.built import Built
from fuzz.cluster.errands import Errands
from fuzz.cluster.exchange import EXCHANGED, Exchange, sentences
from fuzz.cluster.files import Files
from fuzz.cluster.left_behind import hold, remove, settle
from fuzz.cluster.node_job import NodeJob
from fuzz.cluster.node_report import ENDED, FAILED, PREPARING, RUNNING, NodeReport
from fuzz.paths import SEEDS
from fuzz.store.database import Database, default_url
from fuzz.store.replicate import Carrier
from fuzz.store.shared_corpus import SharedCorpus, corpus_key
from fuzz.targets.target_set import PreparedTargets, open_targets
from harness.errors import InputError, ShadowfuzzError
from harness.vm.cache import Cache, default_root
from harness.vm.target import has_protected_vms

FOREVER = 1e9
"""Seconds: a node runs until the head ends it."""
COUNT_SECONDS = 10.0
"""How often counts are carried over, times the pause between two looks in seconds; what is new goes at once."""
HOLD_SECONDS = 60.0
"""So long it waits for its directory, which another node may be carrying over."""
MAX_SAID = 20
FOUND = ("unexplained", "alarms", "crashes", "internal", "flaky")
"""The groups of statistics whose names are findings."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a node prepared before it starts workers."""

    targets: PreparedTargets
    guide: Guide


class Node:
    """One node; :meth:`run` works until :meth:`stop`, :meth:`report` may be called at any time by other threads."""

    def __init__(self, job: NodeJob, cache: Path | None = None) -> None:
        self._job = job
        self._cache = cache if cache is not None else default_root(os.environ)
        self._place = job.place(self._cache)
        self._files = None if job.files is None else Files(job.files)
        self._built = None if self._files is None else Built(self._files, job.run, job.secret, self._say)
        self._stop = threading.Event()
        self._report = NodeReport(uuid.uuid4().hex, socket.gethostname(), PREPARING)
        self._pause = 1.0
        self._started = time.monotonic()

    def stop(self) -> None:
        """Make the node end; its last report comes when it has."""
        self._stop.set()

    def report(self, pause: float) -> NodeReport:
        """Return how the node stands; ``pause`` seconds are to lie between two of its looks at the database."""
        self._pause = pause
        return self._report

    def run(self) -> None:
        """Work until :meth:`stop`.  Raises nothing: the report says what went wrong."""
        try:
            self._work()
        except (ShadowfuzzError, OSError) as error:
            self._tell(state=FAILED, why=str(error))
        except BaseException as error:  # an error of shadowfuzz ends this node, not the campaign
            self._tell(state=FAILED, why=f"shadowfuzz failed: {error!r}")
            raise

    def _tell(self, **changes: object) -> None:
        self._report = replace(self._report, **changes)  # type: ignore[arg-type]  # fields of a report

    def _say(self, line: str) -> None:
        self._tell(said=(*self._report.said, line)[-MAX_SAID:])

    def _work(self) -> None:
        job = self._job
        require_engine()
        for name in job.corpus:
            if not Path(name).is_dir():
                raise InputError(name, None, f"no directory on {self._report.host}: expected one of scenarios")
        targets = open_targets(job.targets, self._say, Cache(self._cache, self._built))
        prepared = Prepared(targets, choose_guide(job.coverage, targets.sides[0].prepared, self._say))
        guide = prepared.guide
        self._tell(subjects=targets.subjects, guide=guide.mode, kvm_off=guide.kvm_off)
        protected = all(has_protected_vms(side.config.mode, side.prepared.kernel_release) for side in targets.sides)
        seeds = tuple(map(Path, job.corpus)) or SEEDS
        with hold(self._place, job.store, HOLD_SECONDS):
            with campaign_directory(self._place, seeds, protected=protected):
                failure = self._fuzz(prepared)
            if not self._report.why:  # all of it is in the database of all
                remove(self._place, keep_dumps=self._files is None)
        settle(self._cache, job.store, self._files)
        self._tell(state=FAILED if failure else ENDED)  # the last report: the process is killed after it

    def _fuzz(self, prepared: Prepared) -> str:
        """Run workers until :meth:`stop`; return why they could not go on, empty if they could."""
        job, place = self._job, self._place
        url, offers = default_url(place), place / RUN / OFFERS
        offers.mkdir()
        shared = Database(job.store, keep_connection=True)
        corpus = SharedCorpus(shared, corpus_key(prepared.targets.subject))
        sync = Sync(Carrier(Database(url), shared, f"{job.run}/{job.node}"), Exchange(corpus, offers, place / CORPUS))
        launch = Launcher(job.targets, job.seed, place, url, prepared.guide.mode, offers=offers)
        errands = Errands(self._cache, job.store, place, self._files, self._built)
        latest: list[Progress] = []

        def tick(progress: Progress) -> None:
            latest[:] = [progress]

        self._tell(state=RUNNING)
        with self._synchronised(sync, errands, latest):
            # Workers die with the thread that started them, which is this one.
            outcome = run_campaign(Plan(FOREVER, job.workers, place), launch, tick, self._stop.is_set)
        unsent = errands.last_time()  # before the findings, which say where the dumps are then
        why = sync.last_time() or outcome.failure or unsent
        stats = only_carried(outcome.stats, sync.carrier.carried)
        refused = () if self._built is None else self._built.refused.values()
        deaths = (*outcome.deaths, *refused, *sentences(sync.exchange.counts, EXCHANGED))[-MAX_SAID:]
        self._tell(stats=stats, seconds=outcome.seconds, alive=0, deaths=deaths, why=why)
        return outcome.failure

    @contextmanager
    def _synchronised(self, sync: Sync, errands: Errands, latest: list[Progress]) -> Iterator[None]:
        """Exchange with the database in a thread of its own: one that hangs keeps no worker from being replaced."""
        ending = threading.Event()

        def loop() -> None:
            while not ending.wait(self._pause):
                progress = latest[0] if latest else None
                why = sync.once(time.monotonic(), self._pause) or errands.why
                if progress is not None:
                    self._tell(**_standing(progress, sync.carrier.carried), why=why)

        thread = threading.Thread(target=loop, name="exchange", daemon=True)
        thread.start()
        errands.start()
        try:
            yield
        finally:
            ending.set()
            thread.join(timeout=30)


class Sync:
    """What a node does with the database of all, repeatedly."""

    def __init__(self, carrier: Carrier, exchange: Exchange) -> None:
        self.carrier, self.exchange = carrier, exchange
        self._next_counts = 0.0

    def once(self, now: float, pause: float) -> str:
        """Carry findings, push and fetch scenarios; return what went wrong, empty if nothing did.

        ``pause`` seconds lie between two calls; where many nodes make it longer, counts wait longer, too.
        """
        counts = now >= self._next_counts
        if counts:
            self._next_counts = now + COUNT_SECONDS * pause
        return _attempt(
            lambda: self.carrier.carry(counts=counts), self.exchange.collect, self.exchange.push, self.exchange.fetch
        )

    def last_time(self, tries: int = 20, pause: float = 1.0) -> str:
        """Carry all that there is; try it again while the database cannot be reached."""
        why = ""
        for _ in range(tries):
            why = _attempt(self.carrier.carry, self.exchange.collect, self.exchange.push)
            if not why:
                break
            time.sleep(pause)
        return why or next(iter(self.carrier.unreadable.values()), "")


def _attempt(*steps: Callable[[], object]) -> str:
    """Take steps; return why one failed.  The later ones are taken as well."""
    why = ""
    for step in steps:
        try:
            step()
        except (InputError, OSError) as error:
            why = why or f"{error}"
    return why


def only_carried(stats: Stats, carried: frozenset[str]) -> Stats:
    """Return statistics without findings that are not in the database of all: those are not confirmed yet."""
    return Stats({n: v for n, v in stats.words.items() if n[0] not in FOUND or n[1] in carried}, stats.seen)


def _standing(progress: Progress, carried: frozenset[str]) -> dict[str, object]:
    stats = only_carried(progress.stats, carried)
    ready, first = stats.get("time", "ready"), stats.get("time", "first_exit")
    exit_after = (first - ready) / 1e9 if ready and first else None
    return {"stats": stats, "seconds": progress.seconds, "alive": progress.alive, "first_exit": exit_after}
