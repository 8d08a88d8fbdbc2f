# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz matrix``: scenarios by targets, one verdict a cell."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fuzz.cli.options import Subparsers, add_deterministic, add_number, add_paths
from fuzz.cli.progress import progress_printer
from fuzz.corpus.files import find_scenarios
from fuzz.paths import CORPUS, KEPT
from fuzz.triage.emulator_matrix import EmulatorTable, read_explained
from fuzz.triage.emulator_matrix import markdown as markdown_emulators
from fuzz.triage.matrix import (
    CANNOT,
    DIVERGES,
    LOST,
    Case,
    Cell,
    Results,
    Work,
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
from harness.vm.config import DEFAULT_TARGET
from harness.vm.kernels.fetch import load_kernels
from harness.vm.qemu_versions import present

_say = progress_printer("matrix")

DEFAULT, DETERMINISTIC = "matrix.json", "matrix-deterministic.json"
"""Where results are kept in the cache: the two modes do not fill each other's cells."""

EPILOG = """\
examples:
  shadowfuzz matrix corpus/regressions --targets 'kvm-nvhe@6.12.*' 'kvm-nvhe@7.*'
  shadowfuzz matrix corpus/seeds corpus/regressions --targets 'kvm-*@*' --missing --html matrix.html
  shadowfuzz matrix corpus/seeds corpus/regressions --targets 'kvm-*%qemu-*%*' --deterministic
      every version of QEMU that is here (`shadowfuzz setup --emulators`) with every CPU model

exit status: 0 no cell diverges, 1 one does, 2 bad usage or input, 3 a target was lost or cannot run
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``matrix``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "matrix",
        help="scenarios by targets, one verdict a cell",
        description="Run scenarios on many targets, one boot each, and show which kernel shows what.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser)
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="GLOB",
        default=[f"{DEFAULT_TARGET}@*"],
        help="CONFIG or CONFIG@VERSION, %%qemu-VERSION and %%CPU behind it; * and ? match "
        f"(default: {DEFAULT_TARGET}@*)",
    )
    parser.add_argument("--missing", action="store_true", help="run only what the results do not have yet")
    add_number(parser, "--repeat", 1, "runs a cell", most=100)
    add_deterministic(parser)
    parser.add_argument("--results", metavar="FILE", help="where results are kept (default: in the cache)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    form.add_argument("--html", type=Path, metavar="FILE", help="write one HTML file that needs nothing else")
    form.add_argument("--markdown", action="store_true", help="print a page for the documents and nothing else")
    parser.set_defaults(run=run_matrix)


def run_matrix(args: argparse.Namespace) -> int:
    """Run what is to be run, keep it, print the table."""
    cases = load_cases(find_scenarios(args.paths))
    twice = [case.name for case in cases if sum(case.name == other.name for other in cases) > 1]
    if twice:
        raise InputError(twice[0], None, "two scenarios of this name; their cells could not be told apart")
    cache = Cache(default_root(os.environ))
    here = present(cache) if any("%" in pattern for pattern in args.targets) else ()
    targets = match_targets(args.targets, load_kernels(cache, _say).kernels, here)
    if not targets:
        raise InputError(" ".join(args.targets), None, "matches no target (shadowfuzz kernels list)")
    path = Path(args.results) if args.results else cache.root / (DETERMINISTIC if args.deterministic else DEFAULT)
    before = read_results(path)
    wanted = before.missing(targets, cases) if args.missing else dict.fromkeys(targets, cases)
    work = [Work(t, c, args.repeat, args.deterministic) for t, c in wanted.items()]
    results = run_cells(work, before, path)
    names = [case.name for case in cases]
    moved, plain = ([t for t in targets if ("%" in t) is wanted] for wanted in (True, False))
    table = Table(results.cells, plain, names)
    emulators = EmulatorTable(results.cells, moved, names, read_explained(CORPUS / "emulators.toml"))
    cells = _chosen(results, targets, cases)
    if args.json:
        print(json.dumps({"targets": targets, "cells": [asdict(cell) for cell in cells]}, indent=1))
    elif args.html is not None:
        lines = list(emulators.lines()) if moved else []
        text = page(table, command_of(args, f"--html {args.html}"), _findings(cases), lines)
        _write(args.html, text)
        _say(f"{args.html}, {len(text.encode()) // 1024} KiB")
    elif args.markdown:
        command = command_of(args, "--markdown")
        print(markdown_emulators(emulators, command) if moved else markdown(table, command, _findings(cases)), end="")
    else:
        print("\n".join([*(table.lines() if plain else ()), *(emulators.lines() if moved else ())]))
    if any(cell.verdict in (LOST, CANNOT) for cell in cells):
        return 3
    return 1 if any(cell.verdict == DIVERGES for cell in cells) else 0


def command_of(args: argparse.Namespace, form: str) -> str:
    """Return the command that makes a page again, for the page to name."""
    globs = (f"'{glob}'" for glob in args.targets)
    mode = ["--missing", *(["--deterministic"] if args.deterministic else [])]
    return f"shadowfuzz matrix {' '.join([*map(str, args.paths), '--targets', *globs, *mode, form])}"


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(str(path), None, f"cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _findings(cases: Sequence[Case]) -> tuple[Regression, ...]:
    """Return the corpus' findings that have a scenario among the cases."""
    names = {case.name for case in cases}
    found = load_regressions(KEPT)
    return tuple(finding for finding in found if not names.isdisjoint(finding.scenarios))


def run_cells(work: Sequence[Work], before: Results, path: Path) -> Results:
    """Run, keep after each target, and say on stderr how far it is."""
    results, start, ended = before, time.monotonic(), 0

    def done(cells: Sequence[Cell]) -> None:
        nonlocal results, ended
        results = results.with_cells(cells)
        write_results(path, results)
        ended += 1
        bad = sum(cell.verdict == DIVERGES for cell in cells)
        cannot = next((cell.why for cell in cells if cell.verdict == CANNOT), "")
        _say(
            f"{ended} of {len(work)} targets, {time.monotonic() - start:.0f} s: {cells[0].target}, "
            + (cannot or f"{len(cells)} scenarios, {bad} diverge")
        )

    if work:
        run_all(work, done)
    return results


def _chosen(results: Results, targets: Sequence[str], cases: Sequence[Case]) -> list[Cell]:
    keys = [(target, case.name) for target in targets for case in cases]
    return [results.cells[key] for key in keys if key in results.cells]
