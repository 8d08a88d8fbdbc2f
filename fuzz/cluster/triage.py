# SPDX-License-Identifier: Apache-2.0
"""Triage as work of a cluster: the findings of a database, each minimised and confirmed on some node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fuzz.campaign.parent import until_signal
from fuzz.cluster.address import Address, check_store
from fuzz.cluster.ray_nodes import Work, connected
from fuzz.cluster.task_head import Sort, Task, TaskHead
from fuzz.cluster.triage_actor import TriageActor
from fuzz.cluster.triage_job import Result, TriageJob
from fuzz.store.database import Database
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import read_stories
from fuzz.store.unreadable_text import unreadable_lines
from fuzz.triage.triage import in_order, is_waiting


def triage_on_cluster(
    database: Database, address: Address, job: TriageJob, pattern: str, say: Callable[[str], None]
) -> int:
    """Minimise and confirm what was found on the targets that match; return how many findings were done.

    InputError, SetupError: the cluster cannot be used, or no node can do it.  KeyboardInterrupt: what was done is kept.
    """
    check_store(address, job.store)
    found, unreadable = read_stories(Store(database, FINDINGS))
    for line in unreadable_lines(unreadable):
        say(line)
    waiting = in_order(
        story
        for story in found
        if is_waiting(story, only_new=job.only_new)
        and story.kept.finding.other is None
        and fnmatchcase(story.kept.finding.subject.target, pattern)
    )
    if not waiting:
        say(f"nothing to do on targets that match {pattern}")
        return 0
    with connected(address, Work(TriageActor, TriageActor.triage.__name__)) as nodes, until_signal() as stopped:
        tasks = [Task(story.id, story.kept.finding.subject.target, story.id) for story in waiting]
        tally = Tally(len(tasks), say)
        TaskHead(nodes, Sort(job.to_json(), read_result, tally.take), say, stopped).run(tasks)
        if stopped():
            raise KeyboardInterrupt
    return tally.done


def read_result(task: Task, text: str, node: str) -> Result:
    """Read what a node answers about a finding.  InputError: it is no answer."""
    return Result.from_json(text, node)


@dataclass
class Tally:
    """Counts what came of findings, ``done`` those that were processed, and says a line for each."""

    total: int
    say: Callable[[str], None]
    ended: int = 0
    done: int = 0

    def take(self, task: Task, result: Result | None, why: str) -> None:
        """Count a finding; ``why``: no node could process it."""
        self.ended += 1
        self.done += result is not None
        words = f"left as it is: {why}" if result is None else result.words
        self.say(f"{self.ended} of {self.total}: {task.id}: {words}")
