# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz triage``: every confirmed divergence of a campaign made simple, its rate measured, and put back."""

from __future__ import annotations

import argparse

from fuzz.cli.options import (
    Subparsers,
    add_against,
    add_campaign,
    add_cold,
    add_hyp_copy,
    add_number,
    add_subject,
    targets_of,
)
from fuzz.cli.progress import progress_printer
from fuzz.store.kept_findings import open_database
from fuzz.triage.triage import TriagePlan, triage_campaign

_say = progress_printer("triage")

EPILOG = """\
examples:
  shadowfuzz triage --out out/campaign
      process the findings of a campaign: about ten seconds a finding, then some seconds for each other -cpu model and
      version of QEMU (only if one is installed: `shadowfuzz setup --emulators`)
  shadowfuzz triage --new
      process only what is new: no erratum of the target explains it
  shadowfuzz triage --target kvm-nvhe --against kvm-nvhe@6.12.117 --out out/against
      process what a campaign found between two targets (without --against: what it found on each of them)

Findings of other targets, kernels or levels are skipped, and so are those that were processed before and that no
simpler scenario has replaced since.  What is like no kept regression is processed first.

exit status: 0 all done, 2 bad usage or input, 3 the target was lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``triage``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "triage",
        help="minimise and confirm all findings of a campaign",
        description="Minimise every confirmed divergence, measure its rate, and keep the result with the finding.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_campaign(parser)
    add_subject(parser)
    add_cold(parser)
    add_against(parser)
    add_hyp_copy(parser)
    add_number(parser, "--runs", 10, "runs in one VM, and in fresh ones", most=10_000)
    parser.add_argument("--new", action="store_true", help="leave what an erratum explains as it is")
    parser.set_defaults(run=run_triage)


def run_triage(args: argparse.Namespace) -> int:
    """Do all findings; errors are raised for the caller to show."""
    plan = TriagePlan(args.runs, args.new)
    triage_campaign(open_database(args.out, args.store), args.out, targets_of(args), plan, _say)
    return 0
