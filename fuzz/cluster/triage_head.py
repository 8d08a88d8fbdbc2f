# SPDX-License-Identifier: Apache-2.0
"""The head of triage on a cluster: hand findings to nodes that are free, and on to another one if a node is lost."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fuzz.cluster.head import LOOK_SECONDS, PATIENCE_SECONDS, POLL_SECONDS
from fuzz.cluster.nodes import Nodes
from fuzz.cluster.triage_job import Result
from harness.errors import InputError

MAX_TRIES = 3
"""A finding is tried on so many nodes; then it is left as it is."""
MAX_FAILURES = 3
"""A node that fails so often in a row is left out."""


@dataclass
class TriageHead:
    """Hands out findings; ``say`` gets a line for each.  ``job`` is that of every node."""

    nodes: Nodes
    job: str
    say: Callable[[str], None]
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    _doing: dict[str, str | None] = field(default_factory=dict)
    _failures: Counter[str] = field(default_factory=Counter)
    _tries: Counter[str] = field(default_factory=Counter)
    _waiting: deque[str] = field(default_factory=deque)
    _total: int = 0
    _done: int = 0

    def run(self, ids: Sequence[str]) -> int:
        """Do all findings; return how many were done.  InputError: there is no node, or none can do any."""
        self._waiting.extend(ids)
        self._total = len(ids)
        next_look, alone_since = 0.0, self.clock()
        while (self._waiting or any(self._doing.values())) and not self.stopped():
            now = self.clock()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                self._look()
            if self._doing:
                alone_since = now
            elif now - alone_since > PATIENCE_SECONDS:
                raise InputError("--cluster", None, f"no node that can do it; {len(self._waiting)} findings are left")
            self._hand_out()
            for name, answer in self.nodes.answers():
                if answer.text:
                    self._take(name, answer.text)
                else:
                    self._again(name, answer.gone or "its process died", gone=bool(answer.gone))
            self.pause(POLL_SECONDS)
        for name in list(self._doing):
            self.nodes.forget(name)
        return self._done

    def _look(self) -> None:
        places = self.nodes.places()
        for name in [name for name in self._doing if name not in places]:
            self._again(name, "it left the cluster", gone=True)
        for name, place in places.items():
            if name not in self._doing and self._failures[name] < MAX_FAILURES and place.cpus > 0:
                self.nodes.start(name, name, self.job)
                self._doing[name] = None

    def _hand_out(self) -> None:
        for name in [name for name, doing in self._doing.items() if doing is None]:
            if self._waiting:
                self._doing[name] = self._waiting.popleft()
                self.nodes.ask(name, self._doing[name] or "")

    def _take(self, name: str, text: str) -> None:
        asked = self._doing.get(name)
        try:
            result = Result.from_json(text, name)
            if result.id != asked:
                raise InputError(name, None, f"an answer about {result.id}, asked was {asked}")
        except InputError as error:
            self._again(name, str(error), gone=False)
            return
        if result.again:
            self._again(name, result.words, gone=False)
            return
        self._failures[name] = 0
        self._doing[name] = None
        self._count(result.id, result.words)

    def _again(self, name: str, why: str, *, gone: bool) -> None:
        """Give what a node was doing to another one; leave the node out if it fails repeatedly."""
        id_ = self._doing.get(name)
        self._failures[name] += 1
        if gone or self._failures[name] >= MAX_FAILURES:
            self._doing.pop(name, None)
            self.nodes.forget(name)
        elif name in self._doing:
            self._doing[name] = None
        if id_ is None:
            return
        self._tries[id_] += 1
        if self._tries[id_] < MAX_TRIES:
            self._waiting.append(id_)
        else:
            self._count(id_, f"left as it is: {why}", done=False)

    def _count(self, id_: str, result: str, *, done: bool = True) -> None:
        self._done += done
        left = len(self._waiting) + sum(doing is not None for doing in self._doing.values())
        self.say(f"{self._total - left} of {self._total}: {id_}: {result}")
