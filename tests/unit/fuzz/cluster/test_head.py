# SPDX-License-Identifier: Apache-2.0
"""The head of a cluster on nodes that are played: they join, leave, die, come back, and say nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fuzz.campaign.counters_file import EMPTY, Stats
from fuzz.campaign.parent import Outcome
from fuzz.cluster.head import BAD_REPORTS, MAX_FAILURES, Head, HeadPlan
from fuzz.cluster.node_report import ENDED, FAILED, RUNNING, NodeReport
from fuzz.cluster.nodes import Answer, Place


@dataclass
class Played:
    """Nodes that count an exit a second from when they are started; ``script`` changes them at points in time."""

    script: dict[float, tuple[str, str]]
    now: float = 0.0
    there: dict[str, Place] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)
    mood: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        for when in [when for when in self.script if when <= self.now]:
            node, what = self.script.pop(when)
            if what == "join":
                self.there[node] = Place(f"host-{node}", 2)
            elif what == "leave":
                del self.there[node]
            elif what == "again":
                name = next(name for name, place in self.names.items() if place == node)
                self.started[name], self.lives[name] = self.now, self.lives[name] + 1
            else:
                self.mood[node] = what

    def places(self) -> dict[str, Place]:
        return dict(self.there)

    def start(self, name: str, place: str, job: str) -> None:
        assert name.startswith(place + "x")
        self.names[name] = place
        self.targets.append(job)
        self.started[name], self.lives[name] = self.now, 1

    def ask(self, node: str, question: float | str) -> None:
        self.asked.append(node)

    def answers(self) -> Iterator[tuple[str, Answer]]:
        asked, self.asked = self.asked, []
        for node in asked:
            place = self.names[node]
            mood = ENDED if node in self.ended else self.mood.get(place, RUNNING)
            if mood == "silent" or place not in self.there:
                continue
            if mood in ("nonsense", "died"):
                yield node, Answer(text="{}") if mood == "nonsense" else Answer(gone="its process died")
                continue
            seconds = self.now - self.started[node]
            stats = Stats({("count", "checked_exits"): int(seconds)}, EMPTY.seen)
            why = "no QEMU" if mood == FAILED else ""
            report = NodeReport(str(self.lives[node]), "h", mood, stats, seconds=seconds, alive=1, why=why)
            yield node, Answer(text=report.to_json())

    def stop(self, node: str) -> None:
        if self.mood.get(self.names[node]) != "silent":
            self.ended.add(node)

    def forget(self, node: str) -> None:
        self.forgotten.append(node)


def run(
    script: dict[float, tuple[str, str]],
    seconds: float = 100.0,
    stop_at: float = 1e9,
    targets: tuple[str, ...] = ("kvm-nvhe",),
) -> tuple[Outcome, Head]:
    nodes = Played(script)
    plan = HeadPlan(seconds, lambda name, number, place, target: target, targets)
    stopped = lambda: nodes.now >= stop_at  # noqa: E731
    head = Head(nodes, plan, lambda _, __: None, stopped, lambda: nodes.now, nodes.pause)
    return head.run(), head


def exits(outcome: Outcome) -> int:
    return outcome.stats.get("count", "checked_exits")


def test_nodes_join_at_any_time_and_are_ended() -> None:
    outcome, head = run({0.0: ("a", "join"), 50.0: ("b", "join")})
    assert not outcome.failure and not outcome.interrupted and outcome.deaths == ()
    assert 145 <= exits(outcome) <= 155 and 100 <= outcome.seconds <= 103
    assert all(node.last is not None and node.last.state == ENDED for node in head.totals.nodes.values())


def test_a_node_that_leaves_costs_what_it_would_have_done() -> None:
    outcome, _ = run({0.0: ("a", "join"), 1.0: ("b", "join"), 50.0: ("b", "leave")})
    assert not outcome.failure and 145 <= exits(outcome) <= 155
    assert outcome.deaths == ("host-b: the node is gone: it left the cluster",)


def test_a_node_whose_process_is_another_one_counts_on() -> None:
    outcome, _ = run({0.0: ("a", "join"), 50.0: ("a", "again")})
    assert not outcome.failure and 97 <= exits(outcome) <= 102


def test_a_node_that_dies_or_says_nonsense_is_left_out() -> None:
    outcome, head = run({0.0: ("a", "join"), 1.0: ("b", "join"), 10.0: ("b", "died"), 20.0: ("c", "join")})
    assert not outcome.failure and "host-b: the node is gone: its process died" in outcome.deaths
    outcome, head = run({0.0: ("a", "join"), 1.0: ("b", "join"), 10.0: ("b", "nonsense")})
    assert len(outcome.deaths) == MAX_FAILURES and BAD_REPORTS > 1
    assert not outcome.failure and all("no report of a node" in death for death in outcome.deaths)
    assert "bx1" in head.nodes.forgotten  # type: ignore[attr-defined]


def test_a_node_that_hangs_at_the_end_is_killed() -> None:
    outcome, head = run({0.0: ("a", "join"), 1.0: ("b", "join"), 50.0: ("b", "silent")})
    assert not outcome.failure and 140 <= exits(outcome) <= 155
    assert set(head.nodes.forgotten) == {"ax0", "bx1"}  # type: ignore[attr-defined]


def test_without_a_node_that_works_it_ends_and_says_why() -> None:
    outcome, _ = run({0.0: ("a", "join"), 0.5: ("a", FAILED)})
    assert outcome.failure == "no node works: host-a: no QEMU"
    assert outcome.deaths == ("host-a: no QEMU",) * MAX_FAILURES
    outcome, _ = run({})
    assert outcome.failure == "no node is there"


def test_a_node_that_joins_in_time_takes_over() -> None:
    outcome, _ = run({0.0: ("a", "join"), 20.0: ("a", "leave"), 30.0: ("b", "join")})
    assert not outcome.failure and 85 <= exits(outcome) <= 95


def test_it_ends_when_told() -> None:
    outcome, _ = run({0.0: ("a", "join")}, stop_at=30.0)
    assert outcome.interrupted and 28 <= exits(outcome) <= 33
    assert replace(outcome, interrupted=False).failure == ""


def test_targets_are_spread_and_a_node_tries_another_one_if_it_cannot_boot_the_first() -> None:
    targets = ("kvm-nvhe", "kvm-vhe", "kvm-protected")
    outcome, head = run({0.0: ("a", "join"), 1.0: ("b", "join")}, targets=targets)
    assert head.nodes.targets == ["kvm-nvhe", "kvm-vhe"] and not outcome.failure  # type: ignore[attr-defined]
    outcome, head = run({0.0: ("a", "join"), 0.5: ("a", FAILED)}, targets=targets)
    assert sorted(head.nodes.targets) == sorted(targets * MAX_FAILURES)  # type: ignore[attr-defined]
    assert outcome.failure == "no node works: host-a: no QEMU"


def test_with_more_targets_than_nodes_they_take_turns() -> None:
    _, head = run({0.0: ("a", "join")}, seconds=3000.0, targets=("one", "two", "three"))
    assert head.nodes.targets[:4] == ["one", "two", "three", "one"]  # type: ignore[attr-defined]
