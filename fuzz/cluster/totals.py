# SPDX-License-Identifier: Apache-2.0
"""What all nodes of a cluster counted together, whatever became of them.  Pure: reports and times go in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fuzz.campaign.counters_file import EMPTY, Stats, merge
from fuzz.campaign.guidance import Guide
from fuzz.campaign.parent import Progress
from fuzz.cluster.node_report import ENDED, FAILED, PREPARING, NodeReport
from fuzz.store.nodes import LOST
from harness.findings.finding import Subject
from harness.report.campaign_data import NodeRow

REPORTS_A_SECOND = 20
"""So many reports the head reads a second at most."""
LOOKS_A_SECOND = 100
"""So often all nodes together look at the database in a second at most."""
LEAST_SECONDS = 2.0
"""No node is asked, or looks at the database, more often than that."""
RATE_SECONDS = 20.0
"""A node's rate is over so many seconds at least."""


def pause_between(nodes: int, a_second: float) -> float:
    """Return how many seconds lie between two things that each node does, so often a second in all."""
    return max(LEAST_SECONDS, nodes / a_second)


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node that joined: ``past`` are the counts of its earlier lives, ``last`` its last report, which came ``at``.

    ``gone``: why it is lost, empty while it is not.  ``mark``: seconds and checked exits, some time ago.
    """

    host: str
    past: Stats = EMPTY
    last: NodeReport | None = None
    at: float = 0.0
    gone: str = ""
    mark: tuple[float, int] = (0.0, 0)
    rate: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it does nothing any more."""
        return bool(self.gone) or (self.last is not None and self.last.state in (ENDED, FAILED))

    @property
    def stats(self) -> Stats:
        """All that it counted."""
        return merge([self.past, self.last.stats]) if self.last is not None else self.past

    def told(self, report: NodeReport, now: float) -> NodeState:
        """Return the state after a report that came ``now``."""
        past, mark = self.past, self.mark
        if self.last is not None and self.last.life != report.life:
            past, mark = merge([past, self.last.stats]), (0.0, 0)
        exits, rate = report.stats.get("count", "checked_exits"), self.rate
        if report.seconds - mark[0] >= RATE_SECONDS or not rate:
            rate = (exits - mark[1]) / (report.seconds - mark[0]) if report.seconds > mark[0] else 0.0
            mark = (report.seconds, exits) if report.seconds - mark[0] >= RATE_SECONDS else mark
        return replace(self, past=past, last=report, at=now, gone="", mark=mark, rate=rate)


@dataclass
class Totals:
    """All nodes that ever joined, by name; ``ready`` is when the first worker of any was, None before."""

    nodes: dict[str, NodeState] = field(default_factory=dict)
    ready: float | None = None
    first_exit: float | None = None

    def join(self, node: str, host: str) -> None:
        """Note that a node joins, for the first time or again."""
        self.nodes.setdefault(node, NodeState(host))
        self.nodes[node] = replace(self.nodes[node], gone="")

    def take(self, node: str, report: NodeReport, now: float) -> None:
        """Take a report that came ``now``, in seconds of the head's clock."""
        self.nodes[node] = self.nodes[node].told(report, now)
        if report.seconds > 0:
            began = now - report.seconds
            self.ready = began if self.ready is None else min(self.ready, began)
            if report.first_exit is not None:
                exit_ = began + report.first_exit
                self.first_exit = exit_ if self.first_exit is None else min(self.first_exit, exit_)

    def lose(self, node: str, why: str) -> None:
        """Note that a node is gone."""
        self.nodes[node] = replace(self.nodes[node], gone=why or "gone")

    def stats(self) -> Stats:
        """Return what all counted together."""
        return merge(node.stats for node in self.nodes.values())

    def progress(self, now: float, seconds: float) -> Progress:
        """Return how the campaign stands, which is to take so many seconds."""
        done = 0.0 if self.ready is None else now - self.ready
        alive = sum(n.last.alive for n in self.nodes.values() if n.last is not None and not n.is_over)
        return Progress(done, max(0.0, seconds - done), alive, self.stats())

    @property
    def subjects(self) -> tuple[tuple[Subject, ...], ...]:
        """What is tested: each target, or pair of them, that some node prepared, in the order of their first ones."""
        reports = [node.last for node in self.nodes.values() if node.last is not None and node.last.subjects]
        return tuple(dict.fromkeys(report.subjects for report in reports))

    @property
    def guide(self) -> Guide | None:
        """What guides, by the first node that knows."""
        reports = (n.last for n in self.nodes.values() if n.last is not None and n.last.guide)
        return next((Guide(report.guide, report.kvm_off) for report in reports), None)

    def sentences(self) -> tuple[str, ...]:
        """Return what went wrong on nodes, a sentence each."""
        found: list[str] = []
        for node in self.nodes.values():
            if node.last is not None:
                found += [f"{node.host}: {death}" for death in node.last.deaths]
                if node.last.why:
                    found.append(f"{node.host}: {node.last.why}")
            if node.gone:
                found.append(f"{node.host}: the node is gone: {node.gone}")
        return tuple(found)

    def rows(self, run: str, seen: str) -> tuple[NodeRow, ...]:
        """Return the nodes as rows of the database."""
        return tuple(_row(run, name, node, seen) for name, node in self.nodes.items())


def _row(run: str, name: str, node: NodeState, seen: str) -> NodeRow:
    last, stats = node.last, node.stats
    state = LOST if node.gone else PREPARING if last is None else last.state
    return NodeRow(
        *(run, name, node.host, last.subjects[0].target if last is not None and last.subjects else ""),
        state=f"{state}: {why}" if (why := node.gone or (last.why if last else "")) else state,
        seen=seen,
        workers=0 if node.is_over or last is None else last.alive,
        scenarios=stats.get("count", "scenarios"),
        checked_exits=stats.get("count", "checked_exits"),
        coverage=stats.coverage,
        rate=0 if node.is_over else round(node.rate),
    )


def why_none_works(nodes: Iterable[NodeState]) -> str:
    """Return why no node works any more; empty: one does, or may."""
    known = list(nodes)
    if not known or not all(node.is_over for node in known):
        return ""
    whys = [f"{n.host}: {n.gone or (n.last.why if n.last is not None else '')}" for n in known]
    return f"no node works: {'; '.join(dict.fromkeys(whys))[:400]}"
