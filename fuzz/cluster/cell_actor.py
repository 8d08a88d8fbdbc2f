# SPDX-License-Identifier: Apache-2.0
"""The actor that runs cells of a matrix on one node, one after the other.  Knows no Ray."""

from __future__ import annotations

from contextlib import ExitStack

from fuzz.cluster.cell_job import CellResult, answer_text, read_question, task_id
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from fuzz.triage.matrix import CANNOT, LEVEL, LOST, MatrixWork, run_cases
from harness.errors import InputError, ShadowfuzzError


class CellActor:
    """One node; the target of the last cell stays booted, because the next one is probably of the same."""

    def __init__(self, job: str) -> None:
        self._open = ExitStack()
        self._key: tuple[str, bool] | None = None
        self._targets: PreparedTargets | None = None

    def cells(self, question: str) -> str:
        """Run the cells of a task; return the result as JSON."""
        try:
            work = read_question(question)
        except InputError as error:
            return answer_text(CellResult("", str(error), again=True))
        id_ = task_id(work.target, work.cases)
        try:
            cells = tuple(run_cases(work, self._for(work)))
        except ShadowfuzzError as error:
            self._close()
            return answer_text(CellResult(id_, str(error), unable=True))
        except OSError as error:
            self._close()
            return answer_text(CellResult(id_, str(error), again=True))
        if cells[-1].verdict in (LOST, CANNOT):
            self._close()  # the next cell finds out by itself whether the target boots
        if cells[0].verdict == CANNOT:
            return answer_text(CellResult(id_, cells[0].why, unable=True))
        return answer_text(CellResult(id_, "done", cells=cells))

    def stop(self) -> None:
        """End the machines."""
        self._close()

    def _for(self, work: MatrixWork) -> PreparedTargets:
        key = work.target, work.deterministic
        if self._targets is None or self._key != key:
            self._close()
            options = TargetOptions(work.target, LEVEL, cold=True, deterministic=work.deterministic)
            self._targets, self._key = self._open.enter_context(open_targets(options)), key
        return self._targets

    def _close(self) -> None:
        self._targets = None
        self._open.close()
