# SPDX-License-Identifier: Apache-2.0
"""Bisect a scenario over kernels: choose the kernels, run those that the search selects, and describe the changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.store.database import Database
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.store.kept_findings import find_finding
from fuzz.triage.bisect import (
    Outcome,
    Search,
    changelog_lines,
    confidence,
    ends_of_series,
    search,
    split_target,
    target_name,
)
from fuzz.triage.matrix import CLEAN, DIVERGES, Case, Cell, MatrixWork, RunAll, load_cases, make_case, run_all
from harness.errors import InputError, SetupError
from harness.findings.release_history import CANNOT, HISTORY, SHOWS, SHOWS_NOT, ReleaseResult, history_text
from harness.relations import hyp_copy
from harness.report.finding_data import Story
from harness.vm.cache import Cache, default_root
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.crash import EARLIER
from harness.vm.debian.kernel_archive import Kernels
from harness.vm.kernels.fetch import load_kernels

FLAKY_RUNS = 30
"""Number of runs of a scenario whose first runs had different results."""


@dataclass(frozen=True, slots=True)
class BisectPlan:
    """The kernels to search: those between the targets ``good`` and ``bad``, or all kernels of ``config``.

    If all are None: all kernels of the default configuration.  Each kernel is run ``repeat`` times, and more often if
    the results of the first runs differ.
    """

    config: str | None = None
    good: str | None = None
    bad: str | None = None
    repeat: int = 5
    deterministic: bool = False


def case_of_file(path: Path) -> Case:
    """Return the scenario of a file.  InputError: it is no scenario."""
    return load_cases([path])[0]


def case_of_story(story: Story) -> Case:
    """Return the scenario of a stored finding.  InputError: it cannot be run alone."""
    finding, scenario = story.kept.finding, story.kept.scenario
    if scenario is None or finding.kind not in ("divergence", "alarm") or finding.other is not None:
        raise InputError(story.id, None, "expected a divergence or an alarm of one target, with its scenario")
    if any(name.startswith(EARLIER) for name in story.kept.texts):
        raise InputError(story.id, None, "needs earlier scenarios: this runs one scenario alone")
    if hyp_copy.options(finding.signature):
        raise InputError(story.id, None, "this does not compare the hypervisor's own copy of a vCPU")
    return make_case(story.id, scenario)


@dataclass(frozen=True, slots=True)
class _Range:
    """A configuration, its kernels between two ends, in order, and those to run first."""

    config: str
    versions: list[str]
    first: tuple[str, ...]


def _range(plan: BisectPlan, kernels: Kernels) -> _Range:
    versions = [kernel.version for kernel in kernels.kernels]
    if bool(plan.good) != bool(plan.bad):
        raise InputError("--good, --bad", None, "give both ends or none")
    if not plan.good or not plan.bad:
        config = plan.config or DEFAULT_TARGET
        load_config(config)
        return _Range(config, versions, ends_of_series(versions))
    if plan.config:
        raise InputError("--target", None, "--good and --bad name the configuration")
    names = [split_target(end) for end in (plan.good, plan.bad)]
    if names[0][0] != names[1][0] or not all(version for _, version in names):
        raise InputError(f"{plan.good}, {plan.bad}", None, "expected two kernels of one configuration: CONFIG@VERSION")
    load_config(names[0][0])
    ends = sorted(versions.index(kernels.find(version).version) for _, version in names)
    between = versions[ends[0] : ends[1] + 1]
    return _Range(names[0][0], between, (between[0], between[-1]))


@dataclass(frozen=True, slots=True)
class Bisection:
    """A finished search: the cells of the kernels that were run, by version, and its duration."""

    plan: BisectPlan
    config: str
    kernels: Kernels
    kernel_count: int
    found: Search
    cells: Mapping[str, Cell]
    seconds: float

    def lines(self) -> Iterator[str]:
        """Yield a line for each kernel that was run, then each change with its changelog, then the confidence."""
        cache = Cache(default_root(os.environ))
        for version, outcome in self.found.probed.items():
            cell = self.cells[version]
            shown = f"cannot run: {cell.why}" if outcome is None else ", ".join(outcome) or "nothing"
            part = f" ({cell.seen} of {cell.runs} runs)" if 0 < cell.seen < cell.runs else ""
            yield f"{target_name(self.config, version):34}  {shown}{part}"
        if not self.found.changes:
            yield "no change between the kernels that were run"
        for change in self.found.changes:
            yield ""
            yield f"between {change.before} and {change.after}"
            if change.disappears:
                yield f"  disappears: {', '.join(change.disappears)}"
            if change.appears:
                yield f"  appears:    {', '.join(change.appears)}"
            yield from changelog_lines(change, cache, self.kernels)
        repeat = self.plan.repeat
        yield (
            f"{len(self.found.probed)} of {self.kernel_count} kernels run, {self.seconds:.0f} s; {repeat} runs each: "
            f"a finding with a rate of 1/2 is found with a probability of {confidence(repeat):.1%}"
        )

    def to_json(self) -> dict[str, object]:
        """Return plain data for :mod:`json`."""
        return {
            "config": self.config,
            "seconds": round(self.seconds, 1),
            "probed": {
                version: {
                    "findings": outcome,
                    "seen": self.cells[version].seen,
                    "runs": self.cells[version].runs,
                    "why": self.cells[version].why,
                }
                for version, outcome in self.found.probed.items()
            },
            "changes": [
                {"before": c.before, "after": c.after, "appears": c.appears, "disappears": c.disappears}
                for c in self.found.changes
            ],
        }

    def history(self, story: Story) -> str:
        """Return which kernels show a finding, as the text that is stored with it."""
        name = ".".join(filter(None, story.kept.finding.signature[:2]))
        results: list[ReleaseResult] = []
        for version, outcome in self.found.probed.items():
            answer = CANNOT if outcome is None else SHOWS if name in outcome else SHOWS_NOT
            results.append(
                ReleaseResult(self.config, version, answer, self.cells[version].seen, self.cells[version].runs)
            )
        return history_text(results)


@dataclass
class _Prober:
    """Runs kernels for a search, and stores the last cell of each."""

    case: Case
    config: str
    plan: BisectPlan
    progress: Callable[[str], None]
    run: RunAll
    cells: dict[str, Cell] = field(default_factory=dict)

    def __call__(self, wanted: Sequence[str]) -> Mapping[str, Outcome | None]:
        self._run(wanted, self.plan.repeat)
        again = [version for version in wanted if 0 < self.cells[version].seen < self.cells[version].runs]
        if again:
            self._run(again, FLAKY_RUNS)
        cells = {version: self.cells[version] for version in wanted}
        return {v: cell.findings if cell.verdict in (CLEAN, DIVERGES) else None for v, cell in cells.items()}

    def _run(self, versions: Sequence[str], runs: int) -> None:
        names = [target_name(self.config, version) for version in versions]
        self.run([MatrixWork(name, (self.case,), runs, self.plan.deterministic) for name in names], self._keep)

    def _keep(self, found: Sequence[Cell]) -> None:
        for cell in found:
            self.cells[split_target(cell.target)[1]] = cell
            shown = ", ".join(cell.findings) or cell.why or "nothing"
            self.progress(f"{len(self.cells)}: {cell.target}: {shown} ({cell.seen} of {cell.runs} runs)")


def bisect(case: Case, plan: BisectPlan, progress: Callable[[str], None], run: RunAll = run_all) -> Bisection:
    """Search for changes of a scenario's outcome; ``run`` runs the kernels that are probed.

    InputError: a name is wrong; SetupError: no kernel can run.
    """
    for name in filter(None, (plan.config, plan.good, plan.bad)):  # check names before the archive is read
        config, version = split_target(name)
        load_config(config)
        if name != plan.config and not version:
            raise InputError(name, None, "expected a kernel of a configuration: CONFIG@VERSION")
    kernels = load_kernels(Cache(default_root(os.environ)), progress)
    where = _range(plan, kernels)
    prober = _Prober(case, where.config, plan, progress, run)
    start = time.monotonic()
    found = search(where.versions, where.first, prober)
    seconds = time.monotonic() - start
    if all(outcome is None for outcome in found.probed.values()):
        raise SetupError(f"no kernel could run: {next(iter(prober.cells.values())).why}")
    return Bisection(plan, where.config, kernels, len(where.versions), found, prober.cells, seconds)


def find_story(database: Database, id_: str) -> tuple[Case, Story]:
    """Return a stored finding and its scenario.  InputError: it does not exist, or cannot be bisected."""
    story = find_finding(database, id_)
    return case_of_story(story), story


def keep_history(database: Database, story: Story, found: Bisection) -> None:
    """Store with a finding which kernels show it."""
    shelf = FINDINGS if story.kept.confirmed else FLAKY
    Store(database, shelf).annotate(story.id, HISTORY, found.history(story))
