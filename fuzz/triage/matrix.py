# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on many targets, with one verdict per cell, one boot per target, and results in a file."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fuzz.targets.observation import Observation
from fuzz.targets.options import TargetOptions
from fuzz.targets.runner import MACHINES
from fuzz.targets.target_set import Side, TargetSet, open_targets
from harness.arch.cpu_models import CPUS
from harness.errors import InputError, ShadowfuzzError, TargetError, VmLost
from harness.findings.checked import signature
from harness.jsonfile import reading
from harness.scenario.scenario import Scenario, format_scenario, load
from harness.vm.config import MachineConfig, Mode, emulated, list_configs, load_config
from harness.vm.debian.kernel_archive import Kernel
from harness.vm.qemu_versions import Emulator

CLEAN, DIVERGES, LOST, CANNOT = "clean", "diverges", "lost", "cannot"
VERDICTS = (CLEAN, DIVERGES, LOST, CANNOT)
"""Verdicts of a cell: nothing unexplained, an unexplained divergence, the machine was lost, the target cannot run."""

FORMAT = 1
LEVEL = "spec"
"""The level of the model with which every cell is compared."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One scenario on one target.

    ``key`` is a hash of the scenario's text; ``findings`` are names of unexplained divergences, with general-purpose
    registers as xN, and of alarms (kind, function); ``seen`` of ``runs`` runs had a finding; ``why`` explains a verdict
    that is neither clean nor diverges; ``unchecked`` counts comparisons that were not possible, by reason.
    """

    target: str
    scenario: str
    key: str
    verdict: str
    findings: tuple[str, ...] = ()
    seen: int = 0
    runs: int = 0
    why: str = ""
    unchecked: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario with its name (its file's stem) and the hash of its text."""

    name: str
    key: str
    scenario: Scenario


def load_cases(paths: Iterable[Path]) -> tuple[Case, ...]:
    """Return the scenarios of files.  InputError: a file is no scenario."""
    return tuple(make_case(path.stem, load(path)) for path in paths)


def make_case(name: str, scenario: Scenario) -> Case:
    """Return a scenario as a case."""
    return Case(name, hashlib.sha256(format_scenario(scenario).encode()).hexdigest()[:16], scenario)


def crossed_configs() -> tuple[MachineConfig, ...]:
    """Return the configurations that are crossed with kernels: those that differ in more than the kernel.

    If several differ only in the kernel, the one without a fixed kernel of the archive is chosen, else the first.
    """
    found: dict[tuple[object, ...], MachineConfig] = {}
    for config in sorted(map(load_config, list_configs()), key=lambda config: bool(config.kernel_version)):
        found.setdefault((config.mode, config.cpu, config.machine), config)
    return tuple(found.values())


def match_targets(patterns: Sequence[str], kernels: Iterable[Kernel], here: Sequence[Emulator] = ()) -> tuple[str, ...]:
    """Return the names ``CONFIG@VERSION`` and ``CONFIG`` that a pattern matches, by configuration and version.

    A pattern with a ``%`` crosses the matches of its beginning with the emulators ``here`` and the CPU models.  A name
    with a slash is no pattern but the path of a target: a kernel build directory, ``CONFIG@DIRECTORY``, a file.
    """
    paths = tuple(
        load_config(pattern).name if "@" in pattern or Path(pattern).is_dir() else pattern
        for pattern in patterns
        if "/" in pattern
    )
    patterns = [pattern for pattern in patterns if "/" not in pattern]
    versions = [kernel.version for kernel in kernels]
    names = [*list_configs(), *(f"{config.name}@{version}" for config in crossed_configs() for version in versions)]
    for base in dict.fromkeys(pattern.partition("%")[0] for pattern in patterns if "%" in pattern):
        names += [moved for name in names if fnmatchcase(name, base) for moved in emulations(load_config(name), here)]
    matched = (name for name in names if any(_matches(name, pattern) for pattern in patterns))
    return tuple(dict.fromkeys((*matched, *paths)))


def check_patterns(patterns: Sequence[str]) -> None:
    """Check that each pattern can match a target with some kernel.  InputError: one cannot."""
    for pattern in patterns:
        base = pattern.partition("%")[0].partition("@")[0]
        if "/" not in pattern and not any(fnmatchcase(name, base) for name in list_configs()):
            raise InputError(repr(pattern), None, f"matches no target; there are {', '.join(list_configs())}")


def _matches(name: str, pattern: str) -> bool:
    # A * does not match a %: other emulators must be requested explicitly.
    parts, wanted = name.split("%"), pattern.split("%")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def emulations(config: MachineConfig, here: Sequence[Emulator]) -> Iterator[str]:
    """Yield the names of a machine on each QEMU, on each CPU model that has its mode, and on each pair of both."""
    cpus = [name for name, model in CPUS.items() if model.vhe or config.mode is not Mode.VHE]
    qemus = [emulator.name for emulator in here]
    for words in (*([q] for q in qemus), *([c] for c in cpus), *([q, c] for q in qemus for c in cpus)):
        yield emulated(config, words, config.name).name


def findings(found: Observation) -> tuple[str, ...]:
    """Return the names of unexplained divergences, as ``relation.register``, and of alarms, as ``kind.function``."""
    folded = {signature(divergence)[:2] for divergence in found.checked.unexplained}
    folded |= {alarm.signature for alarm in found.alarms}
    return tuple(sorted(".".join(filter(None, names)) for names in folded))


@dataclass(frozen=True, slots=True)
class MatrixWork:
    """The work of one machine: a target, its cases, and the number of runs of each."""

    target: str
    cases: tuple[Case, ...]
    repeat: int
    deterministic: bool = False


def run_work(work: MatrixWork) -> tuple[Cell, ...]:
    """Prepare and boot a target, run its cases, return their cells; the verdict is ``cannot`` if it cannot run."""
    options = TargetOptions(work.target, LEVEL, cold=True, deterministic=work.deterministic)
    try:
        targets = open_targets(options)
    except ShadowfuzzError as error:
        return tuple(Cell(work.target, c.name, c.key, CANNOT, why=str(error)) for c in work.cases)
    with targets:
        return tuple(run_cases(work, targets))


def run_cases(work: MatrixWork, targets: TargetSet[Side]) -> Iterator[Cell]:
    """Yield the cell of each case; boot again only after a loss.  A target that never boots gets verdict ``cannot``."""
    booted = False
    for number, case in enumerate(work.cases):
        try:
            targets.start()
        except TargetError as error:
            verdict, why = LOST if booted else CANNOT, f"does not boot: {_why(error)}"
            yield from (Cell(work.target, rest.name, rest.key, verdict, why=why) for rest in work.cases[number:])
            return
        booted = True
        try:
            results = _runs(work, targets, case)
        except TargetError as error:
            yield Cell(work.target, case.name, case.key, LOST, why=_why(error))
        else:
            yield _cell(work, case, results)


def _runs(work: MatrixWork, targets: TargetSet[Side], case: Case) -> list[Observation]:
    """Run a case.  After an alarm, each run uses a fresh machine, because many alarms occur only once per boot."""
    results = [targets.run_and_check(case.scenario) for _ in range(work.repeat)]
    if not any(each.alarms for each in results):
        return results
    results.clear()
    for _ in range(work.repeat):
        targets.stop()
        results.append(targets.run_and_check(case.scenario))
    targets.stop()  # the next case must be able to show the same alarm
    return results


def _why(error: TargetError) -> str:
    return error.reason if isinstance(error, VmLost) else str(error)


def _cell(work: MatrixWork, case: Case, results: Sequence[Observation]) -> Cell:
    found = [findings(each) for each in results]
    bad = next((each.checked for each in results if each.checked.status != "ok"), None)
    if bad is not None:
        return Cell(work.target, case.name, case.key, LOST, why=f"the run ended with status {bad.status}")
    unchecked: dict[str, int] = {}
    for checked in (each.checked for each in results[:1]):
        unchecked |= {**checked.unchecked, **{f"model undefined: {why}": n for why, n in checked.undefined.items()}}
    names = tuple(sorted({name for one in found for name in one}))
    seen = sum(bool(one) for one in found)
    verdict = DIVERGES if names else CLEAN
    return Cell(work.target, case.name, case.key, verdict, names, seen, len(results), unchecked=unchecked)


RunAll = Callable[[Sequence[MatrixWork], Callable[[Sequence[Cell]], None]], None]
"""Runs the work of machines; the second argument gets the cells of each."""


def run_all(work: Sequence[MatrixWork], done: Callable[[Sequence[Cell]], None]) -> None:
    """Run machines in parallel, each in a process of its own; ``done`` gets the cells of each."""
    if len(work) == 1:
        done(run_work(work[0]))
        return
    # Spawned: a fork of a process with threads (QMP's loop) may hang.
    with multiprocessing.get_context("spawn").Pool(min(MACHINES, max(1, len(work)))) as pool:
        for cells in pool.imap_unordered(run_work, work):
            done(cells)


@dataclass(frozen=True, slots=True)
class MatrixResults:
    """Cells by target and scenario, as stored in the file."""

    cells: Mapping[tuple[str, str], Cell]

    def missing(self, targets: Iterable[str], cases: Sequence[Case]) -> Mapping[str, tuple[Case, ...]]:
        """Return the cases without a result, with one of an older text, or with verdict ``cannot``, by target.

        For a target that is named by a path, these are all cases.
        """
        wanted: dict[str, tuple[Case, ...]] = {}
        for target in targets:
            new = tuple(case for case in cases if self._key(target, case.name) != case.key)
            if new:
                wanted[target] = new
        return wanted

    def _key(self, target: str, scenario: str) -> str:
        cell = self.cells.get((target, scenario))
        # A build directory may have another kernel now.
        return "" if cell is None or cell.verdict == CANNOT or "/" in target else cell.key

    def with_cells(self, cells: Iterable[Cell]) -> MatrixResults:
        """Return the results with cells added or replaced."""
        return replace(self, cells={**self.cells, **{(cell.target, cell.scenario): cell for cell in cells}})


def read_results(path: Path) -> MatrixResults:
    """Read a file of results; return none if it does not exist or has another format version.

    InputError: it is another kind of file, which must not be overwritten.
    """
    with suppress(OSError, ValueError):
        if not path.exists():
            return MatrixResults({})
    with reading(path, "results of `shadowfuzz kernels matrix`") as document:
        rows = document["cells"] if document["format"] == FORMAT else []
        return MatrixResults({}).with_cells(Cell(**{**row, "findings": tuple(row["findings"])}) for row in rows)


def write_results(path: Path, results: MatrixResults) -> None:
    """Write all cells, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".new")
    rows = [asdict(cell) for cell in results.cells.values()]
    partial.write_text(json.dumps({"format": FORMAT, "cells": rows}, indent=0))
    partial.replace(path)
