# SPDX-License-Identifier: Apache-2.0
"""Minimise and confirm the findings of a campaign, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.store.database import Database
from fuzz.store.findings import CONSOLE, FINDINGS, FRESH_QEMU, Store
from fuzz.store.kept_findings import read_stories
from fuzz.store.unreadable_text import unreadable_lines
from fuzz.targets.observation import Observation, clusters_of, leaders_of, signatures, texts_of
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import Side, TargetSet, open_targets
from fuzz.triage.confirm import ALARM_BOOTS, stages_of
from fuzz.triage.kept_on_emulators import on_emulators
from fuzz.triage.minimise import LEAST, minimise_on
from harness.errors import InputError
from harness.findings.checked import signature
from harness.findings.finding import (
    MAX_DIVERGENCES,
    Finding,
    Signature,
    Tries,
    difference,
    finding_id,
    is_member,
    signature_text,
)
from harness.findings.problems import group_problems
from harness.report.finding_data import Kept, Story
from harness.report.terminal import many
from harness.scenario.scenario import Scenario
from harness.scenario.simplify import order, simplicity
from harness.vm.crash import EARLIER


@dataclass(frozen=True, slots=True)
class TriagePlan:
    """``runs``: number of runs in one VM, and in fresh ones; ``only_new``: skip findings that an erratum explains.

    ``tries`` limits the scenarios that are run to minimise one finding, so that the findings of a night are processed
    in a morning; ``shadowfuzz minimise`` has no such limit.
    """

    runs: int
    only_new: bool = False
    tries: int = 300


class _MinimisedScenarios:
    """The minimised scenarios so far, by the signatures that each shows: candidates to begin the next minimisation."""

    def __init__(self) -> None:
        self._of: dict[Signature, Scenario] = {}

    def note(self, found: Observation, scenario: Scenario) -> None:
        """Store a minimised scenario for the signatures of its run."""
        for key in signatures(found.checked):
            self._of[key] = min(self._of.get(key, scenario), scenario, key=order)

    def start(self, kept: Kept) -> Scenario:
        """Return the simplest known scenario that shows a finding."""
        assert kept.scenario is not None
        return min(self._of.get(kept.finding.signature, kept.scenario), kept.scenario, key=order)


class Triager:
    """Minimises and confirms findings on targets, one at a time; those before say where the next one may begin."""

    def __init__(self, store: Store, targets: TargetSet[Side], plan: TriagePlan) -> None:
        self._store, self._targets, self._plan = store, targets, plan
        self._leasts = _MinimisedScenarios()

    def waits(self, story: Story) -> bool:
        """Whether a finding is to be done: it is of these targets, and was not done since it has its scenario."""
        finding, targets = story.kept.finding, self._targets
        here = (finding.subject, finding.other) == (targets.subject, targets.other)
        return here and is_waiting(story, only_new=self._plan.only_new)

    def do(self, kept: Kept) -> str:
        """Do one finding and keep the result; return it in words.  TargetError: machines are lost too often."""
        if kept.finding.kind == "alarm":
            return _alarm(self._store, kept, self._targets, self._plan.runs)
        return _one(self._store, kept, self._targets, self._plan, self._leasts)


def is_waiting(story: Story, *, only_new: bool = False) -> bool:
    """Whether a finding was not done since it has its scenario; ``only_new``: and no erratum explains it."""
    kept = story.kept
    if kept.finding.kind not in ("divergence", "alarm") or (only_new and story.like):
        return False
    return kept.scenario is not None and not _is_done(kept)


def triage(database: Database, targets: TargetSet[Side], plan: TriagePlan, say: Callable[[str], None]) -> int:
    """Minimise and confirm the findings on the targets, new ones first; return the number of processed findings.

    Each result is stored before the next finding.  Findings with the same minimised scenario become one problem
    (:mod:`harness.findings.problems`).  TargetError: the machine was lost too often.
    """
    store = Store(database, FINDINGS)
    found, unreadable = read_stories(store)
    for line in unreadable_lines(unreadable):
        say(line)
    triager = Triager(store, targets, plan)
    waiting = in_order(filter(triager.waits, found))
    began, before = time.monotonic(), _problem_count(store, waiting)
    for number, story in enumerate(waiting, 1):
        result = triager.do(story.kept)
        say(f"{number} of {len(waiting)}: {story.id}: {result}")
    if waiting:
        spent = time.monotonic() - began
        say(f"{many(len(waiting), 'finding')} in {duration(spent)}, {spent / len(waiting):.1f} s each")
    if before:
        after = many(_problem_count(store, waiting), "problem")
        say(f"{many(before, 'problem')} before, {after} now: findings with the same minimal scenario are one")
    if not waiting:
        others = sorted({story.kept.finding.where for story in found} - {_where(targets)})
        elsewhere = f"; there are findings of {', '.join(others)}" if others else ""
        say(f"nothing to do on {_where(targets)}{elsewhere}")
    return len(waiting)


def _where(targets: TargetSet[Side]) -> str:
    """Return the names of the tested targets, as in findings."""
    return " against ".join(subject.target for subject in targets.subjects)


def in_order(stories: Iterable[Story]) -> list[Story]:
    """Return findings in the order in which they are done: new ones first; then simple ones, where others may begin."""

    def rank(story: Story) -> tuple[bool, int]:
        return bool(story.like), 0 if story.kept.scenario is None else simplicity(story.kept.scenario)

    return sorted(stories, key=rank)


def _problem_count(store: Store, waiting: Sequence[Story]) -> int:
    """Return the number of problems among the new findings."""
    examples = store.examples()
    return len(group_problems({story.id: examples.get(story.id, ()) for story in waiting if not story.like}))


def duration(seconds: float) -> str:
    """Return a time as text, in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _is_done(kept: Kept) -> bool:
    """Return whether a finding was triaged before; for alarms, the campaign itself has measured the rate."""
    if kept.finding.kind == "alarm":
        return kept.scenario is not None and kept.scenario.about.startswith(LEAST)
    return kept.fresh_qemu is not None


def _alarm(store: Store, kept: Kept, targets: TargetSet[Side], runs: int) -> str:
    """Minimise an alarm and measure its rate, each run in a newly booted machine."""
    wanted = kept.finding.signature
    assert kept.scenario is not None
    if any(name.startswith(EARLIER) for name in kept.texts):
        return f"{signature_text(wanted)} needs scenarios that ran before it; unchanged"
    try:
        least = minimise_on(targets, kept.scenario, wanted)
    except InputError:
        return f"{signature_text(wanted)} was not reproduced; unchanged"
    targets.stop()
    found = targets.run_and_check(least.scenario)
    alarm = next((alarm for alarm in found.alarms if alarm.signature == wanted), None)
    if alarm is None:
        return f"{signature_text(wanted)} was not reproduced after minimisation; unchanged"
    (stage,) = stages_of(targets, least.scenario, (wanted,), 0, min(runs, ALARM_BOOTS))[wanted]
    texts = {CONSOLE: alarm.splat, FRESH_QEMU: f"{stage.tries.hits} {stage.tries.runs}"}
    store.revise(replace(kept.finding, detail=alarm.sentence), least.scenario, texts)
    before, after = len(kept.scenario.steps), len(least.scenario.steps)
    return f"{signature_text(wanted)}: {before} steps -> {after}, {least.tries} tries"


def triage_campaign(
    database: Database, out: Path, options: TargetOptions, plan: TriagePlan, say: Callable[[str], None]
) -> int:
    """Minimise and confirm a campaign's findings on targets, run them on other emulators, write their directories.

    Return the number of processed findings.  InputError, SetupError: a name or the set-up is wrong.  TargetError: the
    machine was lost too often.
    """
    with open_targets(options, say) as targets:
        done = triage(database, targets, plan, say)
    on_emulators(options, say)(database, targets)
    Store(database, FINDINGS).export(out / FINDINGS)
    return done


def _one(store: Store, kept: Kept, targets: TargetSet[Side], plan: TriagePlan, leasts: _MinimisedScenarios) -> str:
    wanted = kept.finding.signature
    assert kept.scenario is not None
    try:
        least = minimise_on(targets, leasts.start(kept), wanted, plan.tries)
    except InputError:
        return f"{signature_text(wanted)} was not reproduced; unchanged"
    found = targets.run_and_check(least.scenario)
    members = [divergence for divergence in found.checked.unexplained if is_member(signature(divergence), wanted)]
    if not members:
        return f"{signature_text(wanted)} was not reproduced after minimisation; unchanged"
    leasts.note(found, least.scenario)
    repeat, fresh, _ = stages_of(targets, least.scenario, (wanted,), plan.runs, 0)[wanted]
    finding = replace(
        kept.finding,
        divergences=tuple(difference(divergence) for divergence in members[:MAX_DIVERGENCES]),
        divergence_count=len(members),
        same_vm=repeat.tries,
        fresh_vm=fresh.tries,
    )
    qemu = Tries(int(least.confirmed), 1)
    texts = {**texts_of(found), FRESH_QEMU: f"{qemu.hits} {qemu.runs}"}
    store.revise(finding, least.scenario, texts, _leader(found, kept.finding))
    before, after = len(kept.scenario.steps), len(least.scenario.steps)
    limit = ", the limit of triage" if least.tries >= plan.tries else ""
    return f"{signature_text(wanted)}: {before} steps -> {after}, {least.tries} tries{limit}"


def _leader(found: Observation, finding: Finding) -> str:
    """Return the id of the first cluster in a run that shows a finding; empty if an erratum explains the finding."""
    key = found.subject, found.other, finding.signature
    leader = leaders_of(clusters_of((found,))).get(key)
    return "" if leader is None else finding_id("divergence", leader[2], *leader[:2])
