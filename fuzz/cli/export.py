# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz export``: one finding as files to hand over."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz.cli.options import Subparsers, add_campaign
from fuzz.store.kept_findings import find, open_database
from fuzz.triage.export import export_finding
from harness.report.export import why_no_program

EPILOG = """\
example:
  shadowfuzz export d47d8f --to handover
      handover/<id>.scn: a scenario that `shadowfuzz replay` reads, with expected and observed values,
      versions and hashes in comments; handover/<id>.c: a program in the style of KVM's selftests that shows the
      divergence without shadowfuzz (relations host.* and restore.*), compiled with
      aarch64-linux-gnu-gcc -static -O1 -o repro <id>.c
  shadowfuzz export crash-17eb6a --to handover
      for a crash: the scenario, the scenarios that must run before it (if any), and <id>.txt with how the target was
      lost, all registers and the console; its memory is in the campaign's directory, in dumps/

exit status: 0 written, 2 bad usage, or nothing to write
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``export``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "export",
        help="write a finding as a scenario and a standalone C program",
        description="Write a finding as a self-contained scenario and as a C program that does not need shadowfuzz.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", help="id of the finding (may be shortened)")
    parser.add_argument(
        "--to", type=Path, default=Path(), metavar="DIR", help="where to write (default: the current directory)"
    )
    add_campaign(parser)
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Write the files; errors are raised for the caller to show."""
    story = find(open_database(args.out, args.store), args.id)
    paths = export_finding(story, args.to)
    print("\n".join(map(str, paths)))
    if not any(path.suffix == ".c" for path in paths):
        print(f"export: no C program: {why_no_program(story)}", file=sys.stderr)
    return 0
