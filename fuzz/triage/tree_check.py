# SPDX-License-Identifier: Apache-2.0
"""Check a kernel against its base: run the corpus on both, then a campaign, and run its findings on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.campaign.live_campaign import Display, LivePlan, run_live_campaign
from fuzz.campaign.summary import Summary
from fuzz.corpus.files import find_scenarios
from fuzz.paths import KEPT, SEEDS
from fuzz.store.kept_findings import open_database, stories
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from fuzz.triage.tree_change import KernelChange, ScenarioChange, compare_scenario, summarise
from harness.errors import InputError, SetupError, TargetError
from harness.exit_status import ExitStatus
from harness.findings.finding import Subject, signature_text, split_text
from harness.findings.regressions import Regression, crash_text, explaining, load_regressions
from harness.report.finding_data import Story
from harness.scenario.requirements import needs_protected
from harness.scenario.scenario import Scenario, load
from harness.vm.target import has_protected_vms

Named = tuple[str, Scenario]
"""A scenario with its name."""
MAX_RERUN = 80
"""Maximum number of a campaign's findings that are run on both; only signatures that the corpus did not show."""
PROGRESS_SECONDS = 5.0
ENOUGH = 60
"""Number of scenarios with differences after which the corpus ends: each is run twice, and a hang takes long."""
MAX_LOST = 5
"""Number of scenarios without a result after which the check ends."""


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What to check: ``targets``, a kernel and its base; a campaign of ``seconds`` (None: no campaign) in ``out``."""

    targets: TargetOptions
    seconds: float | None
    out: Path
    jobs: int | None = None
    seed: int | None = None
    paths: tuple[Path, ...] = SEEDS


@dataclass(frozen=True, slots=True)
class TreeCheck:
    """A finished check.

    ``corpus`` and ``campaign`` are results of scenarios; ``scenarios`` is the number that the campaign ran, ``seconds``
    the duration of the check.  ``undecided`` are scenarios without a result, with the reasons.  If enough scenarios
    differed, ``left`` scenarios of the corpus and the campaign were not run.  ``known`` are the kept findings of the
    project.
    """

    kernel: Subject
    base: Subject
    corpus: tuple[ScenarioChange, ...]
    campaign: tuple[ScenarioChange, ...]
    scenarios: int
    seconds: float
    undecided: tuple[tuple[str, str], ...]
    left: int = 0
    known: tuple[Regression, ...] = ()

    @property
    def change(self) -> KernelChange:
        """Return all differences, grouped by signature."""
        return summarise((*self.corpus, *self.campaign))

    @property
    def exit_status(self) -> ExitStatus:
        """Return 1 for a new problem or another change, else 3 for a scenario without a result, else 0."""
        if self.change.new or self.change.changed:
            return ExitStatus.DIVERGENCE
        return ExitStatus.FAILED if self.undecided else ExitStatus.OK

    def kept(self, signature: str) -> tuple[str, ...]:
        """Return the kept findings of the base that cause a signature, or that show it if it has no cause."""
        found = explaining(self.known, self.base.target, split_text(signature))
        known = {row.id for row in self.known}
        return tuple(name for name in found if name in known)


def check_tree(plan: CheckPlan, display: Display, progress: Callable[[str], None]) -> TreeCheck:
    """Check a kernel against its base.

    InputError, SetupError: a name or the set-up is wrong, or the campaign failed.  TargetError: a kernel does not boot.
    """
    start = time.monotonic()
    scenarios = [(path.stem, load(path)) for path in find_scenarios(plan.paths)]
    targets = open_targets(plan.targets, progress)
    kernel, base = targets.subjects
    if kernel.target == base.target:
        raise InputError(base.target, None, "the kernel and its base are the same target")
    protected = all(has_protected_vms(side.config.mode, side.prepared.kernel_release) for side in targets.sides)
    runnable = [(name, s) for name, s in scenarios if protected or not needs_protected(s)]
    run = _Runner(targets, progress)
    with targets:
        corpus = tuple(run.each(iter(runnable)))
        targets.stop()  # free the memory for the campaign's machines
        fuzz = plan.seconds is not None and run.differ < ENOUGH
        summary = _campaign(plan, plan.seconds or 0.0, display, progress) if fuzz else None
        found = () if summary is None else tuple(run.each(_candidates(plan.out, (kernel, base), corpus)))
    seconds, count = time.monotonic() - start, 0 if summary is None else summary.scenarios
    left = len(runnable) - len(corpus) if run.differ >= ENOUGH else 0
    return TreeCheck(kernel, base, corpus, found, count, seconds, tuple(run.undecided), left, load_regressions(KEPT))


class _Runner:
    """Runs scenarios on both machines, and reports the progress."""

    def __init__(self, targets: PreparedTargets, progress: Callable[[str], None]) -> None:
        self._targets, self._progress = targets, progress
        self._next = time.monotonic() + PROGRESS_SECONDS
        self.undecided: list[tuple[str, str]] = []
        self.differ = 0
        """Number of scenarios that differed so far."""

    def each(self, scenarios: Iterator[Named]) -> Iterator[ScenarioChange]:
        """Yield the differences of scenarios, until enough scenarios differ.

        TargetError: machines do not boot, or are lost repeatedly.
        """
        for number, (name, scenario) in enumerate(scenarios, 1):
            if self.differ >= ENOUGH:
                return
            self._targets.start()
            try:
                shown = compare_scenario(self._targets, name, scenario)
            except TargetError as error:
                self.undecided.append((name, str(error)))
                if len(self.undecided) > MAX_LOST:
                    raise
                continue
            self.differ += shown.differs
            if time.monotonic() > self._next:
                self._next = time.monotonic() + PROGRESS_SECONDS
                self._progress(f"{number} scenarios, {self.differ} differ")
            yield shown


def _campaign(plan: CheckPlan, seconds: float, display: Display, progress: Callable[[str], None]) -> Summary:
    progress(f"a campaign of {seconds:.0f} s on both")
    options = replace(plan.targets, cold=False)
    summary = run_live_campaign(LivePlan(options, seconds, plan.out, plan.jobs, plan.seed), display, progress)
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.failure:
        raise SetupError(f"the campaign ended early: {summary.failure}")
    return summary


def _candidates(out: Path, subjects: tuple[Subject, Subject], corpus: Sequence[ScenarioChange]) -> Iterator[Named]:
    """Yield the scenarios of a campaign's findings whose signatures the corpus did not show, the kernel's own first."""
    seen = frozenset(text for each in corpus for text in (*each.new, *each.fixed, *each.changed, *each.same))
    found = [story for story in stories(open_database(out, None)) if story.kept.confirmed]
    ours = [story for story in found if story.kept.finding.subject in subjects and _text(story) not in seen]
    ours.sort(key=lambda story: (story.kept.finding.other is not None, story.kept.finding.subject != subjects[0]))
    done: set[str] = set()
    for story in ours:
        text = _text(story)
        if story.kept.scenario is not None and text not in done and len(done) < MAX_RERUN:
            done.add(text)
            yield story.id, story.kept.scenario


def _text(story: Story) -> str:
    finding = story.kept.finding
    return crash_text(finding.signature) if finding.kind == "crash" else signature_text(finding.signature)
