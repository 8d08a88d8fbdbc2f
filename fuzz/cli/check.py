# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz check``: compare recordings of whole programs with the model, offline."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from fuzz.cli.options import Subparsers
from fuzz.cli.output import style_of
from fuzz.cli.progress import progress_printer
from fuzz.triage.check_recording import check_file, write_excerpt
from harness.errors import InputError
from harness.model import LEVEL_NAMES
from harness.report.recording import Report, as_json, text

_say = progress_printer("check")

LEVELS = ("spec", "kernel")
"""The specification, and the deployed code, which does not panic at a trapped system register."""

EPILOG = """\
examples:
  shadowfuzz record --linux --out boot.trace && shadowfuzz check boot.trace
      record and check the boot of a Linux guest
  shadowfuzz check boot.trace --excerpt found.trace
      also write the unexplained part as a small recording
  shadowfuzz check boot.trace --level kernel --json > checked.json
      compare with the level of the deployed code only; print one JSON object

what is compared: save and restore (the model), host (what KVM must do, and what it reports to userspace of MMIO),
isolate (a vCPU while others run), and of switch only registers that no guest can change, because the guest's code is
not in the recording; what could not be compared is counted, with the reason

exit status: 0 nothing unexplained, 1 an unexplained divergence (with --accept-kept only if it is new), 2 bad usage or
input, 3 records are missing
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``check``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "check",
        help="compare recordings of whole programs with the model, offline",
        description="Replay on the model what the host did after each recorded exit, and compare.  No VM is needed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="files of `shadowfuzz record`")
    parser.add_argument(
        "--excerpt",
        type=Path,
        metavar="FILE",
        help="write the first round of each unexplained cluster of the one TRACE",
    )
    parser.add_argument("--level", choices=LEVEL_NAMES, help=f"the model's level (default: {' and '.join(LEVELS)})")
    parser.add_argument(
        "--accept-kept", action="store_true", help="exit status 1 only for what is new: like no kept finding"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Check and print; errors are raised for the caller to show."""
    if args.excerpt is not None and len(args.traces) != 1:
        raise InputError("--excerpt", None, "expected exactly one TRACE")
    style = style_of(sys.stdout, os.environ)
    reports: list[Report] = []
    for path in args.traces:
        reports.append(check_file(path, (args.level,) if args.level else LEVELS, _say))
        if not args.json:
            print(text(reports[-1], style), flush=True)
    if args.excerpt is not None:
        write_excerpt(reports[0], args.excerpt)
    if args.json:
        print(json.dumps({"recordings": [as_json(report) for report in reports]}, indent=1))
    if any(report.new if args.accept_kept else report.clusters for report in reports):
        return 1
    return 3 if any(report.end.dropped for report in reports) else 0
