# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz matrix``: run scenarios on many targets, one verdict per cell."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from fuzz.cli.options import Subparsers, add_deterministic, add_number, add_paths, add_tree
from fuzz.cli.output import write_whole
from fuzz.cli.progress import progress_printer
from fuzz.triage.matrix import CANNOT, DIVERGES, LOST
from fuzz.triage.matrix_run import MatrixPlan, run_matrix
from harness.vm.config import DEFAULT_TARGET

_say = progress_printer("matrix")

EPILOG = """\
examples:
  shadowfuzz matrix corpus/regressions --targets 'kvm-nvhe@6.12.*' 'kvm-nvhe@7.*'
  shadowfuzz matrix corpus/seeds corpus/regressions --targets 'kvm-*@*' --missing --html matrix.html
  shadowfuzz matrix corpus/seeds corpus/regressions --targets 'kvm-*%qemu-*%*' --deterministic
      every installed version of QEMU (`shadowfuzz setup --emulators`) with every CPU model
  shadowfuzz matrix corpus/regressions --targets 'kvm-nvhe@6.12.*' --tree ~/linux
      a kernel of your own next to those of the archive

exit status: 0 no cell diverges, 1 one does, 2 bad usage or input, 3 a target was lost or cannot run
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``matrix``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "matrix",
        help="run scenarios on many targets, one verdict per cell",
        description="Run scenarios on many targets, one boot each, and print a table of verdicts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser)
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="GLOB",
        help="CONFIG or CONFIG@VERSION, %%qemu-VERSION and %%CPU after it; * and ? match; or a kernel build directory,"
        f" or CONFIG@DIR (default: {DEFAULT_TARGET}@*)",
    )
    add_tree(parser)
    parser.add_argument("--missing", action="store_true", help="run only cells that have no result yet")
    add_number(parser, "--repeat", 1, "runs a cell", most=100)
    add_deterministic(parser)
    parser.add_argument("--results", metavar="FILE", help="where results are kept (default: in the cache)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    form.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained HTML file")
    form.add_argument("--markdown", action="store_true", help="print a Markdown page and nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run what is to be run, keep it, print the table."""
    found = run_matrix(plan_of(args), _say)
    if args.json:
        cells = [asdict(cell) for cell in found.cells]
        print(json.dumps({"targets": found.targets, "cells": cells}, indent=1))
    elif args.html is not None:
        text = found.html(args.html)
        write_whole(args.html, text)
        _say(f"{args.html}, {len(text.encode()) // 1024} KiB")
    elif args.markdown:
        print(found.markdown(), end="")
    else:
        print(found.text())
    if any(cell.verdict in (LOST, CANNOT) for cell in found.cells):
        return 3
    return 1 if any(cell.verdict == DIVERGES for cell in found.cells) else 0


def plan_of(args: argparse.Namespace) -> MatrixPlan:
    """Return what the options say is to be run."""
    results = Path(args.results) if args.results else None
    trees = tuple(args.target) if args.tree else ()  # of --tree
    patterns = (*(args.targets or ([] if trees else [f"{DEFAULT_TARGET}@*"])), *trees)
    return MatrixPlan(*(tuple(args.paths), patterns, args.repeat, args.missing, args.deterministic, results))
