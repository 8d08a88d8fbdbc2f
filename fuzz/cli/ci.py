# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz ci``: what a patch changes in KVM's observable behaviour."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fuzz.campaign.live_campaign import MAX_JOBS, default_jobs
from fuzz.cli.options import MAX_SEED, Subparsers, add_number, add_paths, add_target, seconds
from fuzz.cli.output import write_whole
from fuzz.cli.progress import progress_printer
from fuzz.paths import SEEDS
from fuzz.targets.options import TargetOptions
from fuzz.triage.tree_check import CheckPlan, check_tree
from fuzz.triage.tree_report import report_json, report_junit, report_lines
from harness.model import LEVEL_NAMES
from harness.vm.config import like_name, name_on_tree

_say = progress_printer("ci")

EPILOG = """\
examples:
  shadowfuzz ci --tree ~/linux
      every seed and kept regression, then a minute of fuzzing, on the kernel built there and on the project's target
      whose version is nearest
  shadowfuzz ci --tree ~/patched --base ~/stock --junit ci.xml
      against another build directory, such as that of the commit before

"new problems" are divergences, alarms and crashes that the kernel shows and its base does not, "fixed" those that the
base alone shows; "other changes" are differences between the two traces that no contract decides, "intended" those that
corpus/known/releases.toml has.  What differs has to come twice.  The campaign is kept in --out.

exit status: 0 no change, or only fixed problems and intended changes; 1 a new problem or another change; 2 bad usage or
input; 3 a kernel does not boot, or of some scenarios nothing can be said
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``ci``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "ci",
        help="what a kernel changes in behaviour: corpus and a short campaign, compared with a base",
        description="Run all scenarios and a short campaign on a kernel and on its base, and show what differs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser, optional=True)
    add_target(parser)
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--base", type=Path, metavar="DIR", help="a kernel build directory to compare with")
    base.add_argument("--against", metavar="NAME", help="a target to compare with (default: the one that it is like)")
    parser.add_argument("--seconds", type=seconds, default=60.0, metavar="N", help="of the campaign (60)")
    parser.add_argument("--no-campaign", action="store_true", help="only the corpus")
    add_number(parser, "--jobs", None, f"workers of the campaign (here: {default_jobs()})", most=MAX_JOBS)
    add_number(parser, "--seed", None, "of the campaign's random numbers (any)", 0, MAX_SEED)
    parser.add_argument(
        "--out", type=Path, default=Path("out/ci"), metavar="DIR", help="the campaign's directory (out/ci)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; errors are raised for the caller to show."""
    like = like_name(args.target)
    base = args.against or (like if args.base is None else name_on_tree(args.base, like))
    options = TargetOptions(args.target, LEVEL_NAMES[0], against=base, cold=True)
    limit = None if args.no_campaign else args.seconds
    plan = CheckPlan(options, limit, args.out, args.jobs, args.seed, tuple(args.paths or SEEDS))
    found = check_tree(plan, _Quiet(), _say)
    if args.junit is not None:
        write_whole(args.junit, report_junit(found))
    print(json.dumps(report_json(found), indent=1) if args.json else "\n".join(report_lines(found)))
    return found.exit_status


class _Quiet:
    """Shows nothing of how the campaign stands."""

    def tick(self, line: str) -> None:
        """Show nothing."""

    def clear(self) -> None:
        """Show nothing."""
