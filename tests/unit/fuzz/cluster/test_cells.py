# SPDX-License-Identifier: Apache-2.0
"""Cells as tasks: a matrix gets from a cluster what it gets from this machine, whatever becomes of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from fuzz.cluster import task_head
from fuzz.cluster.address import read_address
from fuzz.cluster.cell_job import CellResult, answer_text, read_question, task_id
from fuzz.cluster.cells import Gathered, check_targets, run_cells_on
from fuzz.triage.matrix import CANNOT, CLEAN, Cell, MatrixWork, make_case
from harness.errors import InputError
from tests.support.fake_worker import SCENARIO
from tests.support.played_nodes import Played

CASES = tuple(make_case(name, SCENARIO) for name in ("a", "b", "c"))
WORK = [MatrixWork(target, CASES, 8) for target in ("one", "two")]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_head, "POLL_SECONDS", 0.01)


def answer(mood: str, question: str) -> str:
    work = read_question(question)
    id_ = task_id(work.target, work.cases)
    if mood == work.target:
        return answer_text(CellResult(id_, "no image", unable=True))
    cells = tuple(Cell(work.target, case.name, case.key, CLEAN, (), 0, work.repeat) for case in work.cases)
    return answer_text(CellResult(id_, "done", cells=cells))


def run(stop_after: int = 10**6, **mood: str) -> tuple[list[Sequence[Cell]], Played, list[str]]:
    nodes, said, got, looks = Played(mood, answer), list[str](), list[Sequence[Cell]](), count()
    # The head waits by the machine's own clock: the played one goes on when nodes are looked at.
    asked = nodes.answers
    nodes.answers = lambda: (nodes.pause(5), asked())[1]  # type: ignore[method-assign]
    try:
        run_cells_on(nodes, lambda: next(looks) > stop_after, Gathered(WORK, got.append), said.append)
    except KeyboardInterrupt:
        said.append("interrupted")
    return got, nodes, said


def test_the_cells_of_a_target_come_together_and_in_order() -> None:
    got, nodes, _ = run(a="well", b="well")
    assert sorted(cells[0].target for cells in got) == ["one", "two"]
    for cells in got:
        assert [each.scenario for each in cells] == ["a", "b", "c"] and {each.verdict for each in cells} == {CLEAN}
        assert all(each.runs == 8 and each.key == CASES[0].key for each in cells)
    assert len(nodes.did) == 4, "16 runs are a task"


def test_what_a_lost_node_was_doing_is_done_by_another_one() -> None:
    got, nodes, _ = run(a="dies", b="well")
    assert sum(map(len, got)) == 6 and all(each.verdict == CLEAN for cells in got for each in cells)
    assert {node for node, _ in nodes.did} == {"b"}


def test_a_case_that_no_node_survives_takes_no_other_one_with_it() -> None:
    poison = make_case("poison", SCENARIO)
    work, got = [MatrixWork("one", (CASES[0], poison, CASES[2]), 1)], list[Sequence[Cell]]()
    nodes = Played(dict.fromkeys("abcd", "well"), answer, deadly=f'"{poison.name}"')
    asked = nodes.answers
    nodes.answers = lambda: (nodes.pause(5), asked())[1]  # type: ignore[method-assign]
    run_cells_on(nodes, lambda: False, Gathered(work, got.append), lambda _: None)
    assert [(cell.scenario, cell.verdict) for cell in got[0]] == [("a", CLEAN), ("poison", CANNOT), ("c", CLEAN)]
    assert "its process died" in got[0][1].why and len(got) == 1


def test_a_target_that_no_node_can_run_says_why_as_on_one_machine() -> None:
    got, _, said = run(a="one", b="one")
    cells = {each[0].target: each for each in got}
    assert {each.verdict for each in cells["two"]} == {CLEAN}
    assert {(each.verdict, each.why) for each in cells["one"]} == {(CANNOT, "a: no image; b: no image")}
    assert "a cannot run one: no image" in said


def test_what_was_done_is_kept_when_it_is_interrupted() -> None:
    got, nodes, said = run(2, a="well")
    assert said == ["interrupted"] and 0 < len(nodes.did) < 4
    assert sum(map(len, got)) == sum(len(read_question(question).cases) for _, question in nodes.did)


def test_a_directory_of_this_machine_is_none_of_a_node() -> None:
    work = [MatrixWork("kvm-nvhe@/linux", CASES, 1)]
    check_targets(read_address("local"), work)
    with pytest.raises(InputError, match="kvm-nvhe@/linux: a directory of this machine"):
        check_targets(read_address("10.0.0.1:6379"), work)
