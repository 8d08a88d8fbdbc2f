# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz coverage``: what a corpus reaches of KVM's own code and of the model, and what it never does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fuzz.cli.options import Subparsers, add_number, add_paths, add_subject, targets_of
from fuzz.cli.output import write_text
from fuzz.cli.progress import say
from fuzz.corpus.coverage_report import measure_coverage
from fuzz.paths import SEEDS
from harness.report.kvm_coverage import page, text, to_json

OK, FAILED = 0, 3

_HELP = """\
Run scenarios in a QEMU whose plugin records every block of KVM's code (EL1 and EL2) that is executed.  Show which
functions and exit handlers they reach, which decisions the model takes, and what is never reached, with the reason.

examples:
  shadowfuzz coverage                            run the project's seeds and regressions on the default target
  shadowfuzz coverage out/campaign/corpus        show what a campaign reached
  shadowfuzz coverage --functions a.scn          list each function that one scenario reaches
  shadowfuzz coverage --html coverage.html       write one page, with the matrix of decisions and functions

A kernel image has symbols but no debug information: functions and instructions are shown.  With --vmlinux and the
vmlinux of Debian's package linux-image-RELEASE-dbg (260 MB), source files and lines are shown, too.

exit status: 0 all scenarios ran, 2 bad usage or input, 3 a machine was lost, or something is missing here
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``coverage``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "coverage",
        help="show what a corpus reaches of KVM's code and of the model",
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
    report = measure_coverage(args.paths or SEEDS, targets_of(args), args.repeat, args.vmlinux, say)
    if args.html is not None:
        write_text(args.html, page(report))
        say(f"wrote {args.html}")
    print(json.dumps(to_json(report), indent=1) if args.json else text(report, every_function=args.functions))
    return FAILED if report.lost else OK
