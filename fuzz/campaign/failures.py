# SPDX-License-Identifier: Apache-2.0
"""Keep what ends the work on a scenario as a finding: the loss of a machine, an error of shadowfuzz itself."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from dataclasses import replace

from fuzz.campaign.kept_findings import KeptFindings, earlier_texts
from fuzz.campaign.reproduce_crash import Reproductions
from fuzz.campaign.worker_context import GiveUp, WorkerContext
from fuzz.campaign.worker_machines import WorkerMachines
from fuzz.store.findings import CONSOLE
from fuzz.targets.runner import MAX_LOSSES
from harness.errors import InputError, Remains, TargetError, VmLost
from harness.findings.finding import Finding
from harness.scenario.scenario import Scenario
from harness.vm.crash import CRASH, End, Report, end_of, from_text, to_text

MAX_INTERNAL = 20
"""Number of internal errors after which a worker gives up, because its counts are no longer reliable."""


class Failures:
    """Keeps, counts and reproduces the failures of a worker, until there are too many."""

    def __init__(
        self, context: WorkerContext, machines: WorkerMachines, kept: KeptFindings, reproductions: Reproductions
    ) -> None:
        self._with, self._stats = context, context.stats
        self._machines, self._kept, self._reproductions = machines, kept, reproductions
        self._losses = 0  # in a row
        self._internal = 0

    def on_success(self) -> None:
        """Take note that a scenario ran to its end."""
        self._losses = 0

    def on_loss(self, scenario: Scenario | None, error: TargetError) -> None:
        """Store how a machine was lost, end all machines, and try to reproduce the loss on fresh ones.

        ``scenario``: the one that ran; None: the machine was booting.  GiveUp: the machine was lost too often in a row,
        and does not even run the simplest scenario.
        """
        end, reason = _end_of(error), str(error)
        console, config = (error.console_tail, error.config) if isinstance(error, VmLost) else ("", "")
        self._stats.add("lost", f"{end.kind}: {re.sub(r'0x[0-9a-fA-F]+|[0-9]+', 'N', reason)}")
        subjects = self._with.targets.subjects
        subject = next((s for s in subjects if s.target == config), subjects[0])
        finding = self._kept.without_values("crash", end.signature, subject, end.sentence)
        report = Report(end.kind, end.words, end.place, reason, self._collect_remains(error, finding.id))
        self._stats.add("crashes", finding.id)
        if self._was_tried(finding.id):
            self._kept.count(finding.id)
        else:
            self._kept.keep(finding, scenario, _crash_texts(report, console, self._machines.recent))
        self._losses += 1
        self._kept.write_counts()
        self._machines.stop()
        if self._losses >= MAX_LOSSES:
            if not self._machines.run_simplest():
                raise GiveUp(f"the machine was lost {self._losses} times in a row, the last time: {reason}") from error
            self._losses = 0
        if scenario is not None:
            self._reproduce_loss(finding, report, console, scenario)

    def on_internal_error(self, scenario: Scenario, error: Exception) -> None:
        """Store an error of shadowfuzz itself.  GiveUp: there were too many."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = "".join(traceback.format_exception(error))
        signature = (type(error).__name__, f"{where.filename.rpartition('/')[2]}:{where.name}")
        finding = self._kept.without_values("internal", signature, self._with.targets.subject, str(error))
        self._kept.keep(finding, scenario, {"traceback.txt": text})
        self._stats.add("internal", finding.id)
        self._internal += 1
        if self._internal >= MAX_INTERNAL:
            raise GiveUp(f"shadowfuzz itself failed {self._internal} times, the last time: {error!r}") from error

    def _collect_remains(self, error: TargetError, id_: str) -> Remains:
        """Keep what could be read from a lost machine, its memory dump among others; at least why there is none."""
        remains = error.remains if isinstance(error, VmLost) else None
        if remains is None:
            return Remains(missing=("nothing was taken from the machine",))
        if remains.dump is None:
            return remains
        try:
            dump, removed = self._with.dumps.keep(remains.dump, id_)
        except OSError as full:
            self._stats.add("dumps", "not kept")
            return replace(remains, dump=None, missing=(*remains.missing, f"no memory dump: {full.strerror}"))
        self._stats.add("dumps", "written")
        if removed:
            self._stats.add("dumps", "removed for newer ones", removed)
        return replace(remains, dump=dump)

    def _was_tried(self, id_: str) -> bool:
        """Return whether the reproduction of a crash was measured already: further crashes of it are only counted."""
        try:
            return from_text(self._with.findings.texts(id_).get(CRASH, "")).again is not None
        except (InputError, ValueError):
            return False

    def _reproduce_loss(self, finding: Finding, report: Report, console: str, scenario: Scenario) -> None:
        """Try to reproduce a loss, and store the rate with the finding."""
        if self._was_tried(finding.id):
            return
        earlier = tuple(self._machines.recent)

        def same(error: TargetError) -> bool:
            return _end_of(error).signature == finding.signature

        again = self._reproductions.find(finding, earlier, scenario, same=same)
        if again is None or (not again.hits and self._reproductions.left(finding.id)):
            return  # another scenario with the same loss may reproduce it
        # Store the scenario that reproduced the loss, even if another one is simpler.
        self._kept.revise(finding, scenario, _crash_texts(replace(report, again=again), console, earlier))


def _crash_texts(report: Report, console: str, earlier: Iterable[Scenario]) -> dict[str, str]:
    """Return the texts of a crash; ``earlier`` scenarios are in the order in which they ran, and numbered backwards."""
    return {CONSOLE: console, CRASH: to_text(report), **earlier_texts(earlier)}


def _end_of(error: TargetError) -> End:
    """Classify how a machine ended."""
    if not isinstance(error, VmLost):
        return end_of(str(error), "", protocol=True)
    return end_of(error.reason, error.console_tail, error.remains)
