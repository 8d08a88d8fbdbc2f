# SPDX-License-Identifier: Apache-2.0
"""Run a matrix: choose scenarios and targets, run the cells, store the results, format them as text and pages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.corpus.files import find_scenarios
from fuzz.paths import CORPUS, KEPT
from fuzz.store.database import Database
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import find_finding, read_stories
from fuzz.store.unreadable_text import unreadable_lines
from fuzz.targets.emulators import emulators_here
from fuzz.triage.bisect_run import case_of_story
from fuzz.triage.emulator_matrix import EmulatorTable, read_explained_differences
from fuzz.triage.emulator_matrix import markdown as markdown_emulators
from fuzz.triage.matrix import (
    CANNOT,
    DIVERGES,
    Case,
    Cell,
    MatrixResults,
    MatrixWork,
    RunAll,
    check_patterns,
    load_cases,
    match_targets,
    read_results,
    run_all,
    write_results,
)
from fuzz.triage.matrix_html import page
from fuzz.triage.matrix_text import Table, markdown
from harness.errors import InputError
from harness.findings.regressions import Regression, load_regressions
from harness.vm.cache import Cache, default_root
from harness.vm.kernels.fetch import load_kernels

DEFAULT, DETERMINISTIC = "matrix.json", "matrix-deterministic.json"
"""Files for results in the cache, one for each mode: their cells are separate."""
ALL = "all"
"""Names all findings of a campaign."""


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """The scenarios of files and directories to run, and patterns of targets.

    Each is run ``repeat`` times; with ``missing``, only cells without a result are run.  ``results`` is the file of
    results; None: one in the cache.  ``found`` are the scenarios of ``findings``, as they were named, to run as well.
    """

    paths: tuple[Path, ...]
    patterns: tuple[str, ...]
    repeat: int = 1
    missing: bool = False
    deterministic: bool = False
    results: Path | None = None
    findings: tuple[str, ...] = ()
    found: tuple[Case, ...] = ()

    def command(self, form: str) -> str:
        """Return the command that makes a page, for the text of the page."""
        globs = (f"--target '{glob}'" for glob in self.patterns)
        found = (f"--finding {name}" for name in self.findings)
        mode = ["--missing", *(["--deterministic"] if self.deterministic else [])]
        return f"shadowfuzz kernels matrix {' '.join([*map(str, self.paths), *found, *globs, *mode, form])}"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was run: its targets, its cases, and all stored results."""

    plan: MatrixPlan
    targets: tuple[str, ...]
    cases: tuple[Case, ...]
    results: MatrixResults

    @property
    def cells(self) -> list[Cell]:
        """Return the existing cells, by target and case."""
        keys = [(target, case.name) for target in self.targets for case in self.cases]
        return [self.results.cells[key] for key in keys if key in self.results.cells]

    @property
    def _plain(self) -> list[str]:
        return [target for target in self.targets if "%" not in target]

    @property
    def _moved(self) -> list[str]:
        """Return the targets on another QEMU or CPU model."""
        return [target for target in self.targets if "%" in target]

    @property
    def _table(self) -> Table:
        return Table(self.results.cells, self._plain, [case.name for case in self.cases])

    @property
    def _emulators(self) -> EmulatorTable:
        explained = read_explained_differences(CORPUS / "emulators.toml")
        return EmulatorTable(self.results.cells, self._moved, [case.name for case in self.cases], explained)

    def text(self) -> str:
        """Return the tables for a terminal."""
        plain = self._table.lines() if self._plain else ()
        return "\n".join([*plain, *(self._emulators.lines() if self._moved else ())])

    def markdown(self) -> str:
        """Return a Markdown page for docs."""
        command = self.plan.command("--markdown")
        if self._moved:
            return markdown_emulators(self._emulators, command)
        return markdown(self._table, command, _findings(self.cases))

    def html(self, name: Path) -> str:
        """Return a self-contained HTML page; ``name`` is its file."""
        lines = list(self._emulators.lines()) if self._moved else []
        return page(self._table, self.plan.command(f"--html {name}"), _findings(self.cases), lines)


def cases_of_findings(database: Database, names: Sequence[str], say: Callable[[str], None]) -> tuple[Case, ...]:
    """Return the scenarios of findings, named as :func:`find_finding` does; ``all``: those of all that can be run.

    InputError: one does not exist, or cannot be run alone.
    """
    if ALL not in names:
        found = {story.id: story for story in (find_finding(database, name) for name in names)}
        return tuple(map(case_of_story, found.values()))
    stories, unreadable = read_stories(Store(database, FINDINGS))
    for line in unreadable_lines(unreadable):
        say(line)
    cases: list[Case] = []
    for story in stories:
        try:
            cases.append(case_of_story(story))
        except InputError as error:
            say(f"left out: {error}")
    if not cases:
        raise InputError(database.url, None, "no finding that can be run")
    return tuple(cases)


def run_matrix(plan: MatrixPlan, progress: Callable[[str], None], run: RunAll = run_all) -> Matrix:
    """Run the cells, by ``run``, and store the results.  InputError: a file or a pattern is wrong; nothing was run."""
    cases = (*load_cases(find_scenarios(plan.paths)), *plan.found)
    twice = [case.name for case in cases if sum(case.name == other.name for other in cases) > 1]
    if twice:
        raise InputError(twice[0], None, "two scenarios have this name: their cells could not be distinguished")
    check_patterns(plan.patterns)
    cache = Cache(default_root(os.environ))
    path = plan.results or cache.root / (DETERMINISTIC if plan.deterministic else DEFAULT)
    before = read_results(path)
    here = emulators_here() if any("%" in pattern for pattern in plan.patterns) else ()
    targets = match_targets(plan.patterns, load_kernels(cache, progress).kernels, here)
    if not targets:
        raise InputError(" ".join(plan.patterns), None, "matches no target (shadowfuzz kernels list)")
    wanted = before.missing(targets, cases) if plan.missing else dict.fromkeys(targets, cases)
    work = [MatrixWork(target, some, plan.repeat, plan.deterministic) for target, some in wanted.items()]
    kept = _Kept(path, before, len(work), progress)
    if work:
        run(work, kept.take)
    return Matrix(plan, targets, cases, kept.results)


@dataclass
class _Kept:
    """Stores results after each target, and reports the progress; ``total`` targets are to be run."""

    path: Path
    results: MatrixResults
    total: int
    progress: Callable[[str], None]
    ended: int = 0
    start: float = field(default_factory=time.monotonic)

    def take(self, cells: Sequence[Cell]) -> None:
        """Store the cells of a target."""
        self.results = self.results.with_cells(cells)
        write_results(self.path, self.results)
        self.ended += 1
        bad = sum(cell.verdict == DIVERGES for cell in cells)
        cannot = next((cell.why for cell in cells if cell.verdict == CANNOT), "")
        self.progress(
            f"{self.ended} of {self.total} targets, {time.monotonic() - self.start:.0f} s: {cells[0].target}, "
            + (cannot or f"{len(cells)} scenarios, {bad} diverge")
        )


def _findings(cases: Sequence[Case]) -> tuple[Regression, ...]:
    """Return the kept findings with a scenario among the cases."""
    names = {case.name for case in cases}
    found = load_regressions(KEPT)
    return tuple(finding for finding in found if not names.isdisjoint(finding.scenarios))
