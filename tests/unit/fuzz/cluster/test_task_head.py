# SPDX-License-Identifier: Apache-2.0
"""Tasks are handed to nodes that are free; what a lost node was doing goes to another one, and is not done twice."""

from __future__ import annotations

from collections import Counter

import pytest

from fuzz.cluster.task_head import MAX_FAILURES, MAX_TRIES, Sort, Task, TaskHead
from fuzz.cluster.triage import Tally, read_result
from fuzz.cluster.triage_job import Result
from harness.errors import InputError
from tests.support.played_nodes import Played

IDS = [f"divergence-{number:012x}" for number in range(9)]
TARGETS = ("one", "two", "three")


def target_of(id_: str) -> str:
    return TARGETS[int(id_[-1]) // 3]


def answer(mood: str, id_: str) -> str:
    """Answer as a node in some mood: one of a target's name can do everything else."""
    if mood == "no QEMU":
        return Result(id_, "QEMU is missing", again=True).to_json()
    if mood in (target_of(id_), "no kernel"):
        return Result(id_, "does not boot", unable=True).to_json()
    return Result(id_, "done").to_json()


def run(cpus: int = 1, **mood: str) -> tuple[int, Played, list[str]]:
    nodes, said = Played(mood, answer, cpus), list[str]()
    tally = Tally(len(IDS), said.append)
    sort = Sort("job", read_result, tally.take)
    head = TaskHead(nodes, sort, said.append, lambda: False, lambda: nodes.now, nodes.pause)
    head.run([Task(id_, target_of(id_), id_) for id_ in IDS])
    assert nodes.jobs <= {"job"} and tally.ended == 9
    return tally.done, nodes, said


def test_nodes_share_the_work() -> None:
    done, nodes, said = run(a="well", b="well", c="no CPU")
    assert done == 9 and sorted(id_ for _, id_ in nodes.did) == IDS and nodes.now < 30
    assert {node for node, _ in nodes.did} == {"a", "b"}
    assert said[0].startswith(f"1 of 9: {IDS[0]}: done") and said[-1].startswith("9 of 9: ")


@pytest.mark.parametrize("mood", ["dies", "restarts", "nonsense", "no QEMU", "leaves"])
def test_what_a_node_fails_to_do_goes_to_another_one(mood: str) -> None:
    done, nodes, _ = run(a=mood, b="well")
    assert done == 9 and sorted(id_ for node, id_ in nodes.did if nodes.mood[node] == "well") == IDS
    assert ("a" in nodes.forgotten) and MAX_FAILURES > 1


def test_a_finding_that_nobody_can_do_is_left_as_it_is() -> None:
    moods = {f"n{number}": "no QEMU" for number in range(20)}
    done, _, said = run(**moods)
    assert (
        done == 0
        and len(said) == 9
        and all(": QEMU is missing" in line and "left as it is: n" in line for line in said)
    )
    assert MAX_TRIES < 9


def test_without_a_node_it_says_so() -> None:
    for moods in ({}, {"a": "no CPU"}, {"a": "dies"}):
        with pytest.raises(InputError, match=r"--cluster: no node that can do it; . tasks are left"):
            run(**moods)


def test_a_node_that_cannot_run_a_target_does_the_others() -> None:
    done, nodes, said = run(a="one", b="well")
    assert done == 9 and "a cannot run one: does not boot" in said
    did = Counter(target_of(id_) for node, id_ in nodes.did if node == "a")
    assert did["one"] == 1 and did["two"] + did["three"] >= 3


def test_a_target_that_no_node_can_run_is_given_up_and_no_other_one() -> None:
    done, nodes, said = run(a="two", b="two", c="two", d="two", e="two")
    assert done == 6 and len(nodes.forgotten) == 5, "none is left out, all are ended"
    given_up = [line for line in said if "left as it is" in line]
    assert len(given_up) == 3 and all(line.count(": does not boot") == MAX_TRIES for line in given_up)
    assert sum(target_of(id_) == "two" for _, id_ in nodes.did) <= 2 * MAX_TRIES


def test_a_node_stays_at_a_target_and_nodes_spread_over_targets() -> None:
    _, nodes, _ = run(a="well", b="well", c="well")
    assert {tuple(target_of(id_) for node, id_ in nodes.did if node == name) for name in "abc"} == {
        (target,) * 3 for target in TARGETS
    }


def test_another_try_is_on_another_node() -> None:
    _, nodes, _ = run(a="no QEMU", b="no QEMU", c="no QEMU", d="well")
    assert not [each for each, times in Counter(nodes.did).items() if times > 1]


def test_a_node_works_on_as_many_tasks_as_it_has_cpus() -> None:
    done, nodes, _ = run(9, a="well")
    assert done == 9 and nodes.now < 8 and set(nodes.actors.values()) == {"a"} and len(nodes.actors) == 9


@pytest.mark.parametrize("mood", ["dies", "restarts", "nonsense", "no QEMU", "leaves", "one"])
def test_what_a_large_node_fails_to_do_goes_to_another_one(mood: str) -> None:
    done, _, said = run(4, a=mood, b="well")
    assert done == 9, "by b, or by a when it is well again"
    assert said.count("a cannot run one: does not boot") == (mood == "one")
