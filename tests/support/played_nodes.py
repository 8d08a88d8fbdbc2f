# SPDX-License-Identifier: Apache-2.0
"""Nodes of a cluster that are played, in a time of their own: they do tasks, and fail in the ways that nodes do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fuzz.cluster.nodes import Answer, Place


@dataclass
class Played:
    """Nodes that need 5 s for a task; ``mood`` says what else they do, ``answer`` what they answer to a question.

    A question with ``deadly`` in it kills any.  What was done and who was ended is noted by node, not by actor.
    """

    mood: dict[str, str]
    answer: Callable[[str, str], str]
    cpus: int = 1
    deadly: str = ""
    now: float = 0.0
    asked: dict[str, tuple[str, float]] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    actors: dict[str, str] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    did: list[tuple[str, str]] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def places(self) -> dict[str, Place]:
        left = {name for name, mood in self.mood.items() if mood == "leaves" and self.now > 7}
        return {
            name: Place(name, 0 if mood == "no CPU" else self.cpus)
            for name, mood in self.mood.items()
            if name not in left
        }

    def start(self, name: str, place: str, job: str) -> None:
        self.actors[name] = place
        self.jobs.add(job)

    def ask(self, node: str, question: float | str) -> None:
        assert node not in self.asked, "one at a time"
        self.asked[node] = str(question), self.now

    def answers(self) -> Iterator[tuple[str, Answer]]:
        for actor, (question, since) in list(self.asked.items()):
            node = self.actors[actor]
            mood = self.mood[node]
            if self.now - since < 5 or mood == "leaves":
                continue
            del self.asked[actor]
            if mood == "dies" or (self.deadly and self.deadly in question):
                yield actor, Answer(gone="its process died")
            elif mood == "restarts":
                self.mood[node] = "well"
                yield actor, Answer()
            elif mood == "nonsense":
                yield actor, Answer(text="{}")
            else:
                self.did.append((node, question))
                yield actor, Answer(text=self.answer(mood, question))

    def stop(self, node: str) -> None:
        pass

    def forget(self, node: str) -> None:
        self.asked.pop(node, None)
        self.forgotten.append(self.actors[node])
