# SPDX-License-Identifier: Apache-2.0
"""The head of a cluster: start an actor on each node that joins, read reports, end when the time is up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.campaign.counters_file import merge
from fuzz.campaign.parent import Outcome, Progress
from fuzz.cluster.node_report import FAILED, NodeReport
from fuzz.cluster.nodes import Nodes, Place
from fuzz.cluster.spread import Growth, Work, next_target, who_moves
from fuzz.cluster.totals import LOOKS_A_SECOND, REPORTS_A_SECOND, Totals, pause_between, why_none_works
from harness.errors import InputError

POLL_SECONDS = 0.25
GROWTH_SECONDS = 10.0
"""How often it notes how much of each target is covered."""
LOOK_SECONDS = 2.0
"""How often it looks for nodes that joined or left."""
END_SECONDS = 45.0
"""So long may nodes take to end; after that they are killed."""
MAX_FAILURES = 3
"""A node gets a target so often; what it lacks may be there the next time."""
BAD_REPORTS = 5
"""A node that sends so many reports in a row that are none is left out."""
PATIENCE_SECONDS = 60.0
"""So long a campaign goes on without any node: others may join."""
GRACE_SECONDS = 30.0
"""When no node works any more, so long others may still join."""


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """What is asked for: seconds from the first worker that is ready, targets, and the job of a node.

    ``job`` is given the name of a node, its number in the order of joining, where it is, and its target.
    """

    seconds: float
    job: Callable[[str, int, Place, str], str]
    targets: tuple[str, ...]


@dataclass
class _Node:
    """What the head knows of a node besides its reports; one that is given another target is another node."""

    place: str
    target: str
    since: float
    asked: float = 0.0
    bad: int = 0
    moving: bool = False


@dataclass
class Head:
    """The loop of one campaign; ``tick`` is called about once a second."""

    nodes: Nodes
    plan: HeadPlan
    tick: Callable[[Totals, Progress], None]
    stopped: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    totals: Totals = field(default_factory=Totals)
    _known: dict[str, _Node] = field(default_factory=dict)
    _course: list[tuple[float, int]] = field(default_factory=list)
    _growth: Growth = field(default_factory=Growth)
    _next_growth: float = 0.0
    _failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    def run(self) -> Outcome:
        """Run until the time is up, ``stopped`` says so, or no node is left that works."""
        began, next_look, next_tick = self.clock(), 0.0, 0.0
        idle_since: float | None = None
        interrupted, failure = False, ""
        while True:
            now = self.clock()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                self._look(now)
            self._listen(now)
            if now >= next_tick:
                next_tick = now + 1.0
                self._tick(now)
            if self.totals.ready is not None and now >= self.totals.ready + self.plan.seconds:
                break
            if self.stopped():
                interrupted = True
                break
            why = why_none_works(self.totals.nodes.values())
            idle_since = (idle_since or now) if why else None
            if (idle_since is not None and now - idle_since > GRACE_SECONDS) or (
                not self.totals.nodes and now - began > PATIENCE_SECONDS
            ):
                failure = why or "no node is there"
                break
            self.pause(POLL_SECONDS)
        self._end()
        return self._outcome(now, failure, interrupted)

    def _look(self, now: float) -> None:
        """Start actors on nodes that joined or are free, and note those that left."""
        places = self.nodes.places()
        for name in [name for name in self._working() if self._known[name].place not in places]:
            self.totals.lose(name, "it left the cluster")
            self.nodes.forget(name)
        busy = {self._known[name].place for name in self._working()}
        for id_, place in places.items():
            if id_ not in busy and place.cpus > 0:
                self._employ(id_, place, now)
        mover = who_moves(self.plan.targets, self._work(), self._growth.gains(), now)
        if mover is not None and not any(node.moving for node in self._known.values()):
            self._known[mover.node].moving = True
            self.nodes.stop(mover.node)

    def _employ(self, id_: str, place: Place, now: float) -> None:
        """Start an actor on a node for the target that needs it most, if it can boot any that is left."""
        refused = {target for (node, target), count in self._failures.items() if node == id_ and count >= MAX_FAILURES}
        served = {node.target: node.since for node in self._known.values()}
        target = next_target(self.plan.targets, self._work(), self._growth.gains(), refused, served)
        if target is not None:
            name = f"{id_}x{len(self._known)}"
            self.nodes.start(name, id_, self.plan.job(name, len(self._known), place, target))
            self._known[name] = _Node(id_, target, now)
            self.totals.join(name, place.host)

    def _work(self) -> list[Work]:
        nodes = [(name, self._known[name]) for name in self._working()]
        return [Work(name, node.target, node.since) for name, node in nodes]

    def _listen(self, now: float) -> None:
        wait = pause_between(len(self._working()), REPORTS_A_SECOND)
        look = pause_between(len(self._working()), LOOKS_A_SECOND)
        for name in self._working():
            if now - self._known[name].asked >= wait:
                self._known[name].asked = now
                self.nodes.ask(name, look)
        for name, answer in self.nodes.answers():
            if answer.gone:
                self._leave_out(name, answer.gone)
            elif answer.text:
                self._take(name, answer.text, now)

    def _take(self, name: str, text: str, now: float) -> None:
        node = self._known[name]
        try:
            self.totals.take(name, NodeReport.from_json(text, self.totals.nodes[name].host), now)
            node.bad = 0
        except InputError as error:
            node.bad += 1
            if node.bad >= BAD_REPORTS:
                self._leave_out(name, str(error))
            return
        last = self.totals.nodes[name].last
        if last is not None and last.state == FAILED:
            self._failures[node.place, node.target] += 1
        node.moving = node.moving and not self.totals.nodes[name].is_over
        if self.totals.nodes[name].is_over:
            self.nodes.forget(name)

    def _leave_out(self, name: str, why: str) -> None:
        """Give up a node that cannot do its work; another target it may still try."""
        node = self._known[name]
        node.moving = False
        self._failures[node.place, node.target] += 1
        self.totals.lose(name, why)
        self.nodes.forget(name)

    def _working(self) -> list[str]:
        return [name for name in self._known if not self.totals.nodes[name].is_over]

    def _tick(self, now: float) -> None:
        progress = self.totals.progress(now, self.plan.seconds)
        self._course.append((progress.seconds, progress.stats.coverage))
        if len(self.plan.targets) > 1 and now >= self._next_growth:
            self._next_growth = now + GROWTH_SECONDS
            self._growth.note(now, {target: self._coverage(target) for target in self.plan.targets})
        self.tick(self.totals, progress)

    def _coverage(self, target: str) -> int:
        names = [name for name, node in self._known.items() if node.target == target]
        return merge(self.totals.nodes[name].stats for name in names).coverage

    def _end(self) -> None:
        """End all nodes, in order if they can; take their last reports."""
        for name in self._working():
            self.nodes.stop(name)
            self._known[name].asked = 0.0
        deadline = self.clock() + END_SECONDS
        while self._working() and self.clock() < deadline:
            self._listen(self.clock())
            self.pause(POLL_SECONDS)
        for name in self._known:
            self.nodes.forget(name)

    def _outcome(self, end: float, failure: str, interrupted: bool) -> Outcome:
        stats = self.totals.stats()
        # Nodes count until they have ended, which takes some of them longer.
        lives = [n.last.seconds for n in self.totals.nodes.values() if n.last is not None]
        seconds = max([*lives, end - self.totals.ready if self.totals.ready is not None else 0.0])
        self._course.append((seconds, stats.coverage))
        return Outcome(stats, seconds, self.totals.sentences(), failure, interrupted, tuple(self._course))
