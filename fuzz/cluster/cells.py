# SPDX-License-Identifier: Apache-2.0
"""Cells of a matrix, and the probes of a bisection, as work of a cluster: tasks that any node takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from fuzz.campaign.parent import until_signal
from fuzz.cluster.address import Address
from fuzz.cluster.cell_actor import CellActor
from fuzz.cluster.cell_job import CellResult, cell_tasks, read_answer, read_question
from fuzz.cluster.nodes import Nodes
from fuzz.cluster.ray_nodes import RayNodes, Work, connected, require_ray
from fuzz.cluster.task_head import Sort, Task, TaskHead
from fuzz.triage.matrix import CANNOT, Cell, MatrixWork, RunAll
from harness.errors import InputError


@contextmanager
def cells_on_cluster(address: Address, say: Callable[[str], None]) -> Iterator[RunAll]:
    """Yield what runs the work of machines on a cluster, to which it connects when there is work.

    InputError, SetupError: the cluster cannot be used.  KeyboardInterrupt: what was done has been handed on.
    """
    require_ray()
    with ExitStack() as stack:
        opened: list[tuple[RayNodes, Callable[[], bool]]] = []

        def run(work: Sequence[MatrixWork], done: Callable[[Sequence[Cell]], None]) -> None:
            check_targets(address, work)
            if not opened:
                nodes = stack.enter_context(connected(address, Work(CellActor, CellActor.cells.__name__)))
                opened.append((nodes, stack.enter_context(until_signal())))
            run_cells_on(*opened[0], Gathered(work, done), say)

        yield run


def run_cells_on(nodes: Nodes, stopped: Callable[[], bool], gathered: Gathered, say: Callable[[str], None]) -> None:
    """Run work on nodes.  InputError: there is no node.  KeyboardInterrupt: ``stopped``; what was done is handed on."""
    try:
        TaskHead(nodes, Sort("", read_answer, gathered.take), say, stopped).run(gathered.tasks)
    finally:
        gathered.hand_on_rest()
    if stopped():
        raise KeyboardInterrupt


def check_targets(address: Address, work: Sequence[MatrixWork]) -> None:
    """Check that nodes can have the targets.  InputError: one is a directory, and they may be on other machines."""
    for each in work:
        if "/" in each.target and not address.is_local:
            raise InputError(each.target, None, "a directory of this machine: nodes of a cluster may not have it")


@dataclass
class Gathered:
    """Hands on the cells of each target when all of them are there; a cell that no node could run cannot run."""

    work: Sequence[MatrixWork]
    done: Callable[[Sequence[Cell]], None]
    _cells: dict[str, dict[str, Cell]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def tasks(self) -> list[Task]:
        """The cells that are to be run."""
        return [task for work in self.work for task in cell_tasks(work)]

    def take(self, task: Task, result: CellResult | None, why: str) -> None:
        """Take what came of a task; ``why``: no node could do it."""
        (work,) = (work for work in self.work if work.target == task.target)
        cells = self._cells[task.target]
        if result is None:
            some = read_question(task.question).cases
            cells |= {case.name: Cell(task.target, case.name, case.key, CANNOT, why=why) for case in some}
        else:
            cells |= {cell.scenario: cell for cell in result.cells}
        if len(cells) == len(work.cases):
            self._hand_on(work)

    def hand_on_rest(self) -> None:
        """Hand on the cells of targets that did not come to an end."""
        for work in self.work:
            self._hand_on(work)

    def _hand_on(self, work: MatrixWork) -> None:
        cells = self._cells.pop(work.target, {})
        if cells:
            self.done([cells[case.name] for case in work.cases if case.name in cells])
