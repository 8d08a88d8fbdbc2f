# SPDX-License-Identifier: Apache-2.0
"""The head of tasks on a cluster: hand them to nodes that are free, and on to another one if a node is lost.

A task is done on a target.  A node gets tasks of the target that it had last, because it is prepared there; otherwise
those of the target that the fewest nodes are working on.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fuzz.campaign.limits import MAX_JOBS
from fuzz.cluster.head import LOOK_SECONDS, PATIENCE_SECONDS, POLL_SECONDS
from fuzz.cluster.nodes import Nodes
from fuzz.cluster.triage_job import Result
from harness.errors import InputError

MAX_TRIES = 3
"""A task is tried so often, on other nodes if there are any; then it is given up."""
MAX_FAILURES = 3
"""An actor that fails so often in a row is left out."""

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work: its name, on which target it is done, and what a node is asked.

    ``pieces`` are tried instead if a node fails: one of them may be what it cannot stand.
    """

    id: str
    target: str
    question: str
    pieces: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class Sort(Generic[R]):
    """A sort of tasks: the job of every node, how an answer is read, and who gets what came of a task.

    ``read`` is given a task, the text of an answer and the node's name; InputError: it is none.  ``done`` is given
    a task with its result, or None and why no node could do it.
    """

    job: str
    read: Callable[[Task, str, str], R]
    done: Callable[[Task, R | None, str], None]


class Waiting:
    """The tasks that wait, by target, and what each node has shown that it cannot do."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._by_target: dict[str, deque[Task]] = defaultdict(deque)
        for task in tasks:
            self._by_target[task.target].append(task)
        self._tried: dict[str, list[str]] = defaultdict(list)
        self._unable: dict[str, dict[str, str]] = defaultdict(dict)
        self._ran: set[str] = set()

    def __len__(self) -> int:
        return sum(map(len, self._by_target.values()))

    def take(self, node: str, last: str, nodes: Iterable[str], busy: Counter[str]) -> Task | None:
        """Take a task for a node; ``nodes`` are all that work, ``busy`` how many of them have each target.

        None: there is none that the node can do, or another node is to try it.
        """
        targets = [name for name, tasks in self._by_target.items() if tasks and node not in self._unable[name]]
        others = [other for other in nodes if other != node]
        for target in sorted(targets, key=lambda name: (name != last, busy[name])):
            able = [other for other in others if other not in self._unable[target]]
            for task in self._by_target[target]:
                tried = self._tried[task.id]
                if node not in tried or all(other in tried for other in able):
                    self._by_target[target].remove(task)
                    return task
        return None

    def ran(self, target: str) -> None:
        """Note that some node can run a target."""
        self._ran.add(target)

    def again(self, task: Task, node: str) -> bool:
        """Note that a node failed to do a task; whether it waits for another try, in pieces if it has some."""
        tried = [*self._tried[task.id], node]
        if len(tried) >= MAX_TRIES:
            return False
        for piece in task.pieces or (task,):
            self._tried[piece.id] = list(tried)
            self._by_target[task.target].append(piece)
        return True

    def unable(self, task: Task, node: str, why: str) -> bool:
        """Note that a node cannot run the target of a task, which waits for another node; whether that is new."""
        self._by_target[task.target].appendleft(task)
        new = node not in self._unable[task.target]
        self._unable[task.target][node] = why
        return new

    def hopeless(self, nodes: Sequence[str], busy: Counter[str]) -> Iterator[tuple[Task, str]]:
        """Take the tasks that no node can do, each with why: none that is there, or many and no other one so far."""
        for target, whys in list(self._unable.items()):
            many = len(whys) >= MAX_TRIES and target not in self._ran and not busy[target]
            if whys and nodes and (many or all(node in whys for node in nodes)):
                for task in self._by_target.pop(target, ()):
                    yield task, "; ".join(dict.fromkeys(whys.values()))


@dataclass
class TaskHead(Generic[R]):
    """Hands out tasks; ``say`` gets a line for what a node cannot do.

    A node works on as many tasks at once as it offers CPUs, each with an actor, which is named ``NODE#NUMBER``.
    """

    nodes: Nodes
    sort: Sort[R]
    say: Callable[[str], None]
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    _doing: dict[str, Task | None] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)
    _hosts: dict[str, str] = field(default_factory=dict)
    _failures: Counter[str] = field(default_factory=Counter)
    _waiting: Waiting = field(default_factory=lambda: Waiting(()))

    def run(self, tasks: Sequence[Task]) -> None:
        """Do all tasks, as far as nodes can.  InputError: there is no node."""
        self._waiting = Waiting(tasks)
        next_look, alone_since = 0.0, self.clock()
        while (len(self._waiting) or any(self._doing.values())) and not self.stopped():
            now = self.clock()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                self._look()
            if self._doing:
                alone_since = now
            elif now - alone_since > PATIENCE_SECONDS:
                raise InputError("--cluster", None, f"no node that can do it; {len(self._waiting)} tasks are left")
            for name, answer in self.nodes.answers():
                if answer.text:
                    self._take(name, answer.text)
                else:
                    self._again(name, answer.gone or "its process died", gone=bool(answer.gone))
            for task, why in self._waiting.hopeless(self._nodes(), self._busy()):
                self.sort.done(task, None, why)
            self._hand_out()
            self.pause(POLL_SECONDS)
        for name in list(self._doing):
            self.nodes.forget(name)

    def _nodes(self) -> list[str]:
        """Return the nodes that have an actor."""
        return list(dict.fromkeys(map(_node, self._doing)))

    def _busy(self) -> Counter[str]:
        return Counter(task.target for task in self._doing.values() if task is not None)

    def _look(self) -> None:
        places = self.nodes.places()
        for name in [name for name in self._doing if _node(name) not in places]:
            self._again(name, "it left the cluster", gone=True)
        for node, place in places.items():
            self._hosts[node] = place.host
            for name in (f"{node}#{number}" for number in range(min(place.cpus, MAX_JOBS))):
                if name not in self._doing and self._failures[name] < MAX_FAILURES:
                    self.nodes.start(name, node, self.sort.job)
                    self._doing[name] = None

    def _hand_out(self) -> None:
        busy, nodes = self._busy(), self._nodes()
        for name in [name for name, doing in self._doing.items() if doing is None]:
            task = self._waiting.take(_node(name), self._last.get(name, ""), nodes, busy)
            if task is not None:
                busy[task.target] += 1
                self._doing[name], self._last[name] = task, task.target
                self.nodes.ask(name, task.question)

    def _take(self, name: str, text: str) -> None:
        task = self._doing.get(name)
        if task is None:  # it answers, and nothing was asked
            return
        try:
            result = self.sort.read(task, text, name)
            if result.id != task.id:
                raise InputError(name, None, f"an answer about {result.id}, asked was {task.id}")
        except InputError as error:
            self._again(name, str(error), gone=False)
            return
        if result.again:
            self._again(name, result.words, gone=False)
            return
        self._failures[name] = 0
        self._doing[name] = None
        if result.unable:
            host = self._hosts[_node(name)]
            if self._waiting.unable(task, _node(name), f"{host}: {result.words}"):
                self.say(f"{host} cannot run {task.target}: {result.words}")
            return
        self._waiting.ran(task.target)
        self.sort.done(task, result, "")

    def _again(self, name: str, why: str, *, gone: bool) -> None:
        """Give what an actor was doing to another node; leave the actor out if it fails repeatedly."""
        task = self._doing.get(name)
        self._failures[name] += 1
        if gone or self._failures[name] >= MAX_FAILURES:
            self._doing.pop(name, None)
            self.nodes.forget(name)
        elif name in self._doing:
            self._doing[name] = None
        if task is not None and not self._waiting.again(task, _node(name)):
            self.sort.done(task, None, f"{self._hosts[_node(name)]}: {why}")


def _node(name: str) -> str:
    """Return the node of an actor."""
    return name.rpartition("#")[0]
