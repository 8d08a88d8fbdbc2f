# SPDX-License-Identifier: Apache-2.0
"""The actor that minimises and confirms findings on one node, one at a time.  Knows no Ray."""

from __future__ import annotations

from contextlib import ExitStack

from fuzz.cluster.triage_job import Result, TriageJob
from fuzz.store.database import Database
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import Explainer, story_of
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from fuzz.triage.triage import TriagePlan, Triager
from harness.errors import InputError, SetupError, ShadowfuzzError, TargetError
from harness.findings.finding import Subject


class TriageActor:
    """One node; the target of the last finding stays prepared, because the next one is probably of the same."""

    def __init__(self, job: str) -> None:
        self._job = TriageJob.from_json(job)
        self._store = Store(Database(self._job.store), FINDINGS)
        self._explainer = Explainer()
        self._open = ExitStack()
        self._subject: Subject | None = None
        self._triager: Triager | None = None

    def triage(self, id_: str) -> str:
        """Do one finding; return the result as JSON."""
        try:
            story = story_of(self._store, id_, self._explainer)
            try:
                triager = self._for(story.kept.finding.subject)
            except ShadowfuzzError as error:
                self._close()
                return Result(id_, str(error), unable=True).to_json()
            if not triager.waits(story):
                return Result(id_, "left as it is: done before, or of another kernel than this node has").to_json()
            return Result(id_, triager.do(story.kept)).to_json()
        except (SetupError, TargetError, OSError) as error:
            self._close()
            return Result(id_, str(error), again=True).to_json()
        except InputError as error:
            return Result(id_, f"left as it is: {error}").to_json()

    def stop(self) -> None:
        """End the machines."""
        self._close()

    def _for(self, subject: Subject) -> Triager:
        if self._triager is None or self._subject != subject:
            self._close()
            targets = self._open.enter_context(open_targets(TargetOptions(subject.target, subject.level)))
            self._subject = subject
            self._triager = Triager(self._store, targets, TriagePlan(self._job.runs, self._job.only_new))
        return self._triager

    def _close(self) -> None:
        self._triager = None
        self._open.close()
