# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz check``: compare recordings of whole programs with the model, offline."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fuzz.cli.options import Subparsers
from fuzz.cli.output import style_of
from fuzz.cli.progress import progress_printer
from fuzz.paths import KNOWN_DIR
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError
from harness.findings.check_recording import Tally, check_records
from harness.findings.known_divergences import Catalogue
from harness.model import LEVEL_NAMES
from harness.report.recording import Report, as_json, text
from harness.trace.recorded_rounds import excerpt
from harness.trace.recording import Reader, Recorded, rewrite

_say = progress_printer("check")

PROGRESS_SECONDS = 2.0

EPILOG = """\
examples:
  shadowfuzz record --linux --out boot.trace && shadowfuzz check boot.trace
      a Linux guest's boot, recorded and checked
  shadowfuzz check boot.trace --excerpt found.trace
      and keep what shows the unexplained, as a small recording to hand over
  shadowfuzz check boot.trace --level kernel --json > checked.json
      against the deployed code's level, as one JSON object

what is compared: save and restore (the model), host (what KVM owes, what it tells userspace of MMIO), isolate (a vCPU
while others run), and of switch only registers that no guest can change, for the guest's code is not in the recording;
what could not be compared is counted, with the reason

exit status: 0 nothing unexplained, 1 an unexplained divergence, 2 bad usage or input, 3 records are missing
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``check``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "check",
        help="compare recordings of whole programs with the model, offline",
        description="Replay every turn of the host in a recording on the model, and compare.  No VM is needed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="files of `shadowfuzz record`")
    parser.add_argument(
        "--excerpt", type=Path, metavar="FILE", help="write the first turn of each unexplained cluster of the one TRACE"
    )
    parser.add_argument("--level", default=LEVEL_NAMES[0], choices=LEVEL_NAMES, help="the model's level (spec)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Check and print; errors are raised for the caller to show."""
    if args.excerpt is not None and len(args.traces) != 1:
        raise InputError("--excerpt", None, "expected one TRACE with it")
    catalogue = Catalogue.load(KNOWN_DIR, args.level)
    style = style_of(sys.stdout, os.environ)
    reports: list[Report] = []
    for path in args.traces:
        reports.append(check_file(path, args.level, catalogue))
        if not args.json:
            print(text(reports[-1], style), flush=True)
    if args.excerpt is not None:
        reader, clusters = Reader(args.traces[0]), reports[0].tally.clusters.values()
        rewrite(args.excerpt, reader, excerpt(reader, [cluster.example.span for cluster in clusters]))
    if args.json:
        print(json.dumps({"recordings": [as_json(report) for report in reports]}, indent=1))
    if any(report.tally.unexplained for report in reports):
        return 1
    return 3 if any(report.end.dropped for report in reports) else 0


def check_file(path: Path, level: str, catalogue: Catalogue) -> Report:
    """Check one recording, with progress on stderr.  InputError: it is none; SetupError: of an unknown CPU model."""
    start = time.monotonic()
    reader, tally = Reader(path), Tally()
    records = _watched(reader, tally, path)
    cpu, vhe = cpu_model(reader.head.cpu), reader.head.vhe
    check_records(records, level, cpu, catalogue, vhe=vhe, tally=tally, absent=reader.absent)
    assert reader.end is not None  # or Reader had raised
    return Report(str(path), path.stat().st_size, reader.head, reader.end, level, tally, time.monotonic() - start)


def _watched(reader: Reader, tally: Tally, path: Path) -> Iterator[Recorded]:
    shown = time.monotonic()
    for number, recorded in enumerate(reader, 1):
        yield recorded
        if not number % 1024 and time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            _say(f"{path}: {number} records, {tally.exits.total()} exits, {tally.unexplained} unexplained")
