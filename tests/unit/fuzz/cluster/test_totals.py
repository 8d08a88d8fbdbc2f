# SPDX-License-Identifier: Apache-2.0
"""What nodes counted is added up, whatever became of them."""

from __future__ import annotations

from fuzz.campaign.counters_file import EMPTY, Stats
from fuzz.cluster.node_report import ENDED, FAILED, RUNNING, NodeReport
from fuzz.cluster.totals import NodeState, Totals, pause_between, why_none_works
from harness.findings.finding import Subject

SUBJECT = Subject("kvm-nvhe", "6.1", "ab" * 32, "spec")


def report(life: str, exits: int, seconds: float, state: str = RUNNING) -> NodeReport:
    stats = Stats({("count", "checked_exits"): exits, ("count", "scenarios"): 1}, EMPTY.seen)
    return NodeReport(life, "host", state, stats, (SUBJECT,), seconds, 2.0, alive=2)


def test_a_node_that_comes_back_keeps_what_it_counted() -> None:
    totals = Totals()
    totals.join("n", "host")
    totals.take("n", report("one", 10, 5), 100)
    totals.take("n", report("one", 30, 10), 105)
    totals.take("n", report("two", 4, 2), 120)
    totals.take("n", report("two", 5, 3), 121)
    assert totals.stats().get("count", "checked_exits") == 35
    totals.lose("n", "it left the cluster")
    totals.join("m", "other")
    totals.take("m", report("three", 5, 3), 130)
    assert totals.stats().get("count", "checked_exits") == 40
    assert totals.ready == 95 and totals.first_exit == 97
    progress = totals.progress(135, 60)
    assert (progress.seconds, progress.left, progress.alive) == (40, 20, 2)
    assert totals.subjects == ((SUBJECT,),)
    assert totals.sentences() == ("host: the node is gone: it left the cluster",)
    lost, there = totals.rows("run", "2027")
    assert (lost.state, lost.workers, lost.rate) == ("lost: it left the cluster", 0, 0)
    assert (there.state, there.target, there.workers, there.checked_exits) == ("running", "kvm-nvhe", 2, 5)


def test_rate_is_that_of_lately() -> None:
    node = NodeState("host")
    for second, exits in ((10, 100), (20, 200), (30, 400), (40, 600), (60, 1600)):
        node = node.told(report("one", exits, second), second)
    assert node.rate == (1600 - 600) / 20


def test_why_none_works() -> None:
    one, failed = NodeState("a").told(report("x", 0, 0), 1), NodeReport("y", "b", FAILED, why="no QEMU")
    assert why_none_works([]) == why_none_works([one, NodeState("b").told(failed, 1)]) == ""
    over = [NodeState("b").told(failed, 1), NodeState("c", gone="left")]
    assert why_none_works(over) == "no node works: b: no QEMU; c: left"
    assert NodeState("d").told(report("x", 0, 0, ENDED), 1).is_over


def test_pauses_grow_with_the_nodes() -> None:
    assert [pause_between(nodes, 20) for nodes in (0, 1, 20, 100, 1000)] == [2, 2, 2, 5, 50]
