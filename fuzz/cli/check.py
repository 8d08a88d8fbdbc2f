# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz recording check``: compare recordings of whole programs with the model, offline."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from fuzz.cli.declare import PATH, Args, declare, flag, option
from fuzz.cli.options import json_flag, out_file
from fuzz.cli.output import print_json, style_of
from fuzz.cli.progress import progress_printer
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.model import LEVEL_NAMES

if TYPE_CHECKING:
    from harness.report.recording import Report

_say = progress_printer("check")

LEVELS = ("spec", "kernel")
"""Default levels: the specification, and the deployed code, which does not panic at a trapped system register."""

EPILOG = """\
examples:
  shadowfuzz recording record --linux --out boot.trace && shadowfuzz recording check boot.trace
      record and check the boot of a Linux guest
  shadowfuzz recording check boot.trace --excerpt found.trace
      also write the rounds with unexplained divergences as a small recording
  shadowfuzz recording check boot.trace --level kernel --json > checked.json
      compare with the level of the deployed code only; print one JSON object

compared are save and restore (the model), host (the state that KVM must produce, and its MMIO exits to userspace),
isolate (a vCPU while others run), and of switch only registers that no guest can change, because the guest's code is
not in the recording; comparisons that are not possible are counted, with the reason

exit status: 0 nothing unexplained, 1 an unexplained divergence (with --accept-kept only if it is new), 2 bad usage or
input, 3 records are missing
"""


@declare(
    "check",
    "Replay the host's actions after each recorded exit on the model, and compare.  No VM is needed.",
    EPILOG,
)
@click.argument(
    "traces", nargs=-1, required=True, type=PATH, metavar="TRACE...", help="files of `shadowfuzz recording record`"
)
@out_file("--excerpt", "write the first round of each unexplained cluster of the one TRACE")
@option("--level", type=click.Choice(LEVEL_NAMES), help=f"the model's level (default: {' and '.join(LEVELS)})")
@flag("--accept-kept", help="exit status 1 only for what is new: like no kept finding")
@json_flag
def command(args: Args) -> int:
    """Check and print; raise errors for the caller to show."""
    from fuzz.triage.check_recording import check_file, write_excerpt
    from harness.report.recording import as_json as recording_json
    from harness.report.recording import text

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
        print_json("recording check", {"recordings": [recording_json(report) for report in reports]})
    if any(report.new if args.accept_kept else report.clusters for report in reports):
        return ExitStatus.DIVERGENCE
    return ExitStatus.FAILED if any(report.end.dropped for report in reports) else ExitStatus.OK
