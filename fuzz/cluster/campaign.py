# SPDX-License-Identifier: Apache-2.0
"""A campaign on a cluster from beginning to end: connect, run nodes, note how they stand, sum up."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fuzz.campaign.campaign_results import CampaignOptions
from fuzz.campaign.counters_file import Stats
from fuzz.campaign.guidance import Guide
from fuzz.campaign.limits import MAX_JOBS, MODEL
from fuzz.campaign.live_campaign import Display, LivePlan, RunRecorder, export_found, export_new
from fuzz.campaign.offers import FIRST_EDGE
from fuzz.campaign.parent import CORPUS, Outcome, Progress, campaign_directory, until_signal
from fuzz.campaign.status_line import NewClusterCounter, status_line
from fuzz.campaign.summary import Summary, summarise
from fuzz.cluster.address import Address, check_store
from fuzz.cluster.exchange import Exchange
from fuzz.cluster.files import Files
from fuzz.cluster.head import Head, HeadPlan
from fuzz.cluster.node_job import NodeJob
from fuzz.cluster.nodes import Nodes, Place
from fuzz.cluster.ray_actor import NodeActor
from fuzz.cluster.ray_nodes import Work, connected
from fuzz.cluster.totals import Totals
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import kept_rows
from fuzz.store.nodes import Nodes as NodeTable
from fuzz.store.runs import History
from fuzz.store.shared_corpus import SharedCorpus, corpus_key
from harness.errors import InputError, SetupError
from harness.findings.finding import Subject

ROWS_SECONDS = 5.0
"""How often the state of the nodes is written to the database."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What is asked for; ``jobs`` of the live plan are workers a node (None: as many as it has CPUs).

    ``targets``: nodes are spread over these, in the place of the one of the live plan; none: they are not.  ``files``
    are where nodes keep what all of them can read.
    """

    live: LivePlan
    address: Address
    targets: tuple[str, ...] = ()
    files: Files | None = None


def run_cluster_campaign(plan: ClusterPlan, display: Display, progress: Callable[[str], None]) -> Summary:
    """Run a campaign.  InputError, SetupError: the cluster, a name or the set-up is wrong; nothing was run."""
    check_plan(plan)
    with connected(plan.address, Work(NodeActor, NodeActor.report.__name__)) as nodes:
        able = sum(place.cpus > 0 for place in nodes.places().values())  # not the head, if it offers none
        progress(f"cluster: {able} nodes at {plan.address.text}")
        return run_on(nodes, plan, display)


def check_plan(plan: ClusterPlan) -> None:
    """InputError: something that a cluster cannot do was asked for."""
    given = plan.live.targets
    if plan.targets and (given.against is not None or given.kernel is not None):
        option = "--kernel" if given.against is None else "--against"
        raise InputError(option, None, "not with --targets: it is of one target")
    if given.deterministic:
        raise InputError("--deterministic", None, "not with --cluster: several workers find things in no set order")
    check_store(plan.address, plan.live.store)


def run_on(nodes: Nodes, plan: ClusterPlan, display: Display) -> Summary:
    """Run a campaign on nodes.  SetupError: none of them could work."""
    live, names = plan.live, plan.targets or plan.live.targets.names
    started, out = time.monotonic(), live.out.absolute()
    url = live.store or default_url(out)
    seed = live.seed if live.seed is not None else secrets.randbits(32)
    kept = kept_rows()
    with campaign_directory(out, ()):
        database = Database(url, keep_connection=True)
        known = {**asdict(live.targets), "seed": seed, "jobs": live.jobs or 0, "cluster": True}
        run = RunRecorder(History(database), {name: value for name, value in known.items() if name != "kernel"})
        new = NewClusterCounter(Store(database, FINDINGS), kept)
        job = _Jobs(replace(live, store=url), run.id, seed, plan.files)
        table, next_rows, most = NodeTable(database), 0.0, 0

        def tick(totals: Totals, now: Progress) -> None:
            nonlocal next_rows, most
            most = max(most, now.alive)
            working = sum(not node.is_over for node in totals.nodes.values())
            display.tick(f"{working} nodes, {status_line(now, export_new(new, database, out, now))}")
            run.tick(now)
            if time.monotonic() >= next_rows:
                next_rows = time.monotonic() + ROWS_SECONDS
                _note(table, totals, run.id)

        with until_signal() as stopped:
            head = Head(nodes, HeadPlan(live.seconds, job, plan.targets or (live.targets.target,)), tick, stopped)
            outcome = head.run()
        display.clear()
        totals = head.totals
        _note(table, totals, run.id)
        if not totals.subjects:
            raise SetupError(outcome.failure or "the campaign ended before any node was ready")
        guide = totals.guide or Guide(MODEL)
        asked = CampaignOptions(
            *(totals.subjects[0], names, live.targets.kernel, seed, most, live.out, started, url),
            *(guide.mode, live.accept_kept, guide.kvm_off, live.program),
        )
        edges = sum(_corpus(database, subject, out) for subject, *_ in totals.subjects)
        summary = summarise(asked, _with_first_exit(outcome, totals), kept, export_found(database, out), edges)
        run.end(summary.to_json())
    return summary


class _Jobs:
    """The jobs of nodes, in the order in which they join."""

    def __init__(self, live: LivePlan, run: str, seed: int, files: Files | None) -> None:
        self._live, self._run, self._seed = live, run, seed
        self._files = None if files is None else files.url
        self._secret = secrets.token_hex(32)

    def __call__(self, node: str, number: int, place: Place, target: str) -> str:
        live = self._live
        workers = live.jobs or max(1, min(MAX_JOBS, place.cpus))
        kernel = live.targets.kernel
        targets = replace(live.targets, target=target, kernel=None if kernel is None else kernel.absolute())
        seed = (self._seed + 7919 * number) % (1 << 32)
        corpus = tuple(str(path.absolute()) for path in live.corpus) if live.given_corpus else ()
        store = str(live.store)
        return NodeJob(
            *(self._run, node, targets, workers, seed, store, live.coverage, corpus),
            *(self._files, self._secret),
        ).to_json()


def _note(table: NodeTable, totals: Totals, run: str) -> None:
    with suppress(OSError, InputError):  # a database that is away for a while: the next time will do
        table.put(totals.rows(run, datetime.now(UTC).isoformat(timespec="seconds")))


def _corpus(database: Database, subject: Subject, out: Path) -> int:
    """Write the corpus of a target to the campaign's directory; return how many edges of KVM it covers."""
    shared = SharedCorpus(database, corpus_key(subject))
    with suppress(OSError, InputError):
        Exchange(shared, out, out / CORPUS).fetch()
        return shared.features_from(FIRST_EDGE)
    return 0


def _with_first_exit(outcome: Outcome, totals: Totals) -> Outcome:
    """Return the outcome with the time of the first checked exit on this machine's clock."""
    if totals.first_exit is None:
        return outcome
    words = {**outcome.stats.words, ("time", "first_exit"): int(totals.first_exit * 1e9)}
    return replace(outcome, stats=Stats(words, outcome.stats.seen))
