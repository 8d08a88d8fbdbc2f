# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz coverage``: what a corpus reaches of KVM's own code and of the model, and what it never does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from fuzz.cli.options import Subparsers, add_number, add_paths, add_subject, subject_of
from fuzz.cli.progress import say
from fuzz.corpus.coverage_survey import Watched, open_watched, possible_decisions, survey
from fuzz.corpus.files import read_corpus
from fuzz.paths import SEEDS
from harness.coverage.kvm_code import decisions, files, functions, handlers, matrix
from harness.errors import InputError
from harness.report.kvm_coverage import ReachReport, page, text, to_json
from harness.vm.config import Mode, load_config
from harness.vm.kernels.dwarf import LineRow, read_lines
from harness.vm.kernels.kallsyms import LOAD_OFFSET

OK, FAILED = 0, 3

_HELP = """\
Run scenarios in a QEMU whose plugin notes every block of KVM's code (EL1 and EL2) that is executed, and show which
functions and exit handlers they reach, which decisions the model takes, and what never happens, each with its reason.

examples:
  shadowfuzz coverage                            the project's seeds and regressions on the default target
  shadowfuzz coverage out/campaign/corpus        what a campaign reached
  shadowfuzz coverage --functions a.scn          each function that one scenario reaches
  shadowfuzz coverage --html coverage.html       one page, with the matrix of decisions and functions

A kernel image has symbols but no debug information: what is shown are functions and instructions.  With --vmlinux and
the vmlinux of Debian's package linux-image-RELEASE-dbg (260 MB), also source files and lines.

exit status: 0 all scenarios ran, 2 bad usage or input, 3 a machine was lost, or something is missing here
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``coverage``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "coverage",
        help="what a corpus reaches of KVM's code and of the model",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser, optional=True)
    add_subject(parser)
    add_number(parser, "--repeat", 2, "run each N times; what all runs reach counts", most=100)
    parser.add_argument(
        "--vmlinux", type=Path, metavar="FILE", help="the kernel with debug information: show lines, too"
    )
    parser.add_argument("--functions", action="store_true", help="list every function that was reached")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and show; errors are raised for the caller to show."""
    report = measure(args, say)
    if args.html is not None:
        try:
            args.html.write_text(page(report))
        except OSError as error:
            raise InputError(str(args.html), None, f"cannot be written: {error.strerror}") from error
        say(f"wrote {args.html}")
    print(json.dumps(to_json(report), indent=1) if args.json else text(report, every_function=args.functions))
    return FAILED if report.lost else OK


def measure(args: argparse.Namespace, progress: Callable[[str], None]) -> ReachReport:
    """Return what the scenarios of the arguments reach."""
    corpus = read_corpus(args.paths or SEEDS)
    watched = open_watched(args.target, args.level, args.kernel, progress)
    progress(f"{len(corpus.scenarios)} scenarios on {watched.targets.subject.target}, {args.repeat} times each")
    with watched.targets:
        named = [(str(path), scenario) for path, scenario in corpus.scenarios]
        found = survey(watched, named, repeat=args.repeat, progress=progress)
    covered, text_of_kvm = found.covered, watched.coverage.text
    rows = _lines(args.vmlinux, watched, progress)
    return ReachReport(
        subject=subject_of(watched),
        scenarios=len(covered),
        lost=found.lost,
        invalid=len(corpus.invalid),
        edges=len(frozenset().union(*(one.edges for one in covered))),
        functions=functions(text_of_kvm, covered, found.sizes),
        handlers=handlers(text_of_kvm, covered, vhe=load_config(args.target).mode is Mode.VHE),
        decisions=decisions(possible_decisions(args.level), covered),
        matrix=matrix(text_of_kvm, covered),
        files=files(rows, covered, found.sizes),
    )


def _lines(vmlinux: Path | None, watched: Watched, progress: Callable[[str], None]) -> tuple[LineRow, ...]:
    if vmlinux is None:
        return ()
    progress(f"reading line numbers from {vmlinux}")
    ranges = [(begin - LOAD_OFFSET, end - LOAD_OFFSET) for begin, end in watched.coverage.text.ranges]
    return read_lines(vmlinux, watched.kernel, ranges)
