# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz bisect``: find the neighbouring kernels between which a finding appears or disappears."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from fuzz.cli.options import Subparsers, add_campaign, add_deterministic, add_number
from fuzz.cli.progress import progress_printer
from fuzz.store.kept_findings import open_database
from fuzz.triage.bisect_run import BisectPlan, bisect, case_of_file, find_story, keep_history
from harness.errors import InputError
from harness.vm.config import DEFAULT_TARGET

_say = progress_printer("bisect")

EPILOG = """\
examples:
  shadowfuzz bisect corpus/regressions/mmio_load_signed_word.scn
      try the first and last kernel of every series, then bisect where the outcome changes
  shadowfuzz bisect finding.scn --good kvm-vhe@7.3 --bad kvm-vhe@6.12.117+deb12
      bisect between these two only
  shadowfuzz bisect --finding d47d8f --out out/campaign
      bisect a campaign's finding; its release history is stored with it and shown on its page

exit status: 0 no change between kernels, 1 a change was found, 2 bad usage or input, 3 no
kernel could run the scenario
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``bisect``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "bisect",
        help="find the neighbouring kernels between which a finding appears or disappears",
        description="Run a scenario on as few kernels of the archive as possible, and find where its result changes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="a scenario")
    parser.add_argument("--finding", metavar="ID", help="instead of FILE: a campaign's finding, or its beginning")
    add_campaign(parser)
    parser.add_argument("--good", metavar="TARGET", help="a target CONFIG@VERSION at one end")
    parser.add_argument("--bad", metavar="TARGET", help="a target CONFIG@VERSION at the other end")
    parser.add_argument("--target", metavar="CONFIG", help=f"the configuration, without ends ({DEFAULT_TARGET})")
    add_number(parser, "--repeat", 5, "runs a kernel", most=100)
    add_deterministic(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_bisect)


def run_bisect(args: argparse.Namespace) -> int:
    """Search, then print each change with its changelog."""
    if (args.file is None) == (args.finding is None):
        raise InputError("bisect", None, "expected either a FILE or --finding")
    plan = BisectPlan(args.target, args.good, args.bad, args.repeat, args.deterministic)
    if args.finding is None:
        found = bisect(case_of_file(Path(args.file)), plan, _say)
    else:
        database = open_database(args.out, args.store)
        case, story = find_story(database, args.finding)
        own = None if args.good else story.kept.finding.subject.target.partition("@")[0]
        found = bisect(case, replace(plan, config=args.target or own), _say)
        keep_history(database, story, found)
    print(json.dumps(found.to_json(), indent=1) if args.json else "\n".join(found.lines()))
    return 1 if found.found.changes else 0
