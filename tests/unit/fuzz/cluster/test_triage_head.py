# SPDX-License-Identifier: Apache-2.0
"""Findings are handed to nodes that are free; what a lost node was doing goes to another one, and is not done twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from fuzz.cluster.nodes import Answer, Place
from fuzz.cluster.triage_head import MAX_FAILURES, MAX_TRIES, TriageHead
from fuzz.cluster.triage_job import Result
from harness.errors import InputError

IDS = [f"divergence-{number:012x}" for number in range(9)]


@dataclass
class Played:
    """Nodes that need 5 s for a finding; ``mood`` says what else they do."""

    mood: dict[str, str]
    now: float = 0.0
    asked: dict[str, tuple[str, float]] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    did: list[tuple[str, str]] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def places(self) -> dict[str, Place]:
        left = {name for name, mood in self.mood.items() if mood == "leaves" and self.now > 7}
        return {name: Place(name, 0 if mood == "no CPU" else 2) for name, mood in self.mood.items() if name not in left}

    def start(self, name: str, place: str, job: str) -> None:
        assert (name, job) == (place, "job")

    def ask(self, node: str, question: float | str) -> None:
        assert node not in self.asked, "one at a time"
        self.asked[node] = str(question), self.now

    def answers(self) -> Iterator[tuple[str, Answer]]:
        for node, (id_, since) in list(self.asked.items()):
            mood = self.mood[node]
            if self.now - since < 5 or mood == "leaves":
                continue
            del self.asked[node]
            if mood == "dies":
                yield node, Answer(gone="its process died")
            elif mood == "restarts":
                self.mood[node] = "well"
                yield node, Answer()
            elif mood == "nonsense":
                yield node, Answer(text="{}")
            elif mood == "no QEMU":
                yield node, Answer(text=Result(id_, "QEMU is missing", again=True).to_json())
            else:
                self.did.append((node, id_))
                yield node, Answer(text=Result(id_, "done").to_json())

    def stop(self, node: str) -> None:
        pass

    def forget(self, node: str) -> None:
        self.asked.pop(node, None)
        self.forgotten.append(node)


def run(**mood: str) -> tuple[int, Played, list[str]]:
    nodes, said = Played(mood), list[str]()
    head = TriageHead(nodes, "job", said.append, lambda: False, lambda: nodes.now, nodes.pause)
    return head.run(IDS), nodes, said


def test_nodes_share_the_work() -> None:
    done, nodes, said = run(a="well", b="well", c="no CPU")
    assert done == 9 and sorted(id_ for _, id_ in nodes.did) == IDS and nodes.now < 30
    assert {node for node, _ in nodes.did} == {"a", "b"}
    assert said[0].startswith(f"1 of 9: {IDS[0]}: done") and said[-1].startswith("9 of 9: ")


@pytest.mark.parametrize("mood", ["dies", "restarts", "nonsense", "no QEMU", "leaves"])
def test_what_a_node_fails_to_do_goes_to_another_one(mood: str) -> None:
    done, nodes, _ = run(a=mood, b="well")
    assert done == 9 and sorted(id_ for _, id_ in nodes.did) == IDS
    assert ("a" in nodes.forgotten) and MAX_FAILURES > 1


def test_a_finding_that_nobody_can_do_is_left_as_it_is() -> None:
    moods = {f"n{number}": "no QEMU" for number in range(20)}
    done, _, said = run(**moods)
    assert done == 0 and len(said) == 9 and all("left as it is: QEMU is missing" in line for line in said)
    assert MAX_TRIES < 9


def test_without_a_node_it_says_so() -> None:
    for moods in ({}, {"a": "no CPU"}, {"a": "dies"}):
        with pytest.raises(InputError, match=r"--cluster: no node that can do it; . findings are left"):
            run(**moods)
