# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz ci``: show the changes of KVM's observable behaviour by a patch."""

from __future__ import annotations

from pathlib import Path

from fuzz.campaign.limits import MAX_JOBS, default_jobs
from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import MAX_SEED, file, json_flag, number, out_directory, out_file, paths, seconds, target
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from fuzz.paths import SEEDS
from harness.model import LEVEL_NAMES
from harness.output_file import write_whole
from harness.vm.config import like_name, name_on_tree

_say = progress_printer("ci")

EPILOG = """\
examples:
  shadowfuzz ci --tree ~/linux
      every seed and kept regression, then a minute of fuzzing, on the kernel built there and on the project's target
      whose version is nearest
  shadowfuzz ci --tree ~/patched --base ~/stock --junit ci.xml
      compare with another build directory, such as that of the parent commit

"new problems" are divergences, alarms and crashes that the kernel shows and its base does not, "fixed" those that
only the base shows; "other changes" are differences between the two traces that no contract decides, "intended" those
that corpus/known/releases.toml has.  A difference must occur in two runs.  The campaign is kept in --out.

exit status: 0 no change, or only fixed problems and intended changes; 1 a new problem or another change; 2 bad usage or
input; 3 a kernel does not boot, or the result of a scenario is undetermined
"""


@declare(
    "ci",
    "Run all scenarios and a short campaign on a kernel and on its base, and show the differences.",
    EPILOG,
    exclusive=(("base", "against"),),
)
@paths(optional=True)
@target
@file("--base", "a kernel build directory to compare with", metavar="DIR")
@option("--against", metavar="NAME", help="a target to compare with (default: the one with the nearest version)")
@seconds("of the campaign")
@flag("--no-campaign", help="only the corpus")
@number("--jobs", None, f"workers of the campaign (here: {default_jobs()})", most=MAX_JOBS)
@number("--seed", None, "of the campaign's random numbers (default: random)", 0, MAX_SEED)
@out_directory("--out", "the campaign's directory (default: out/ci)", default=Path("out/ci"))
@json_flag
@out_file("--junit", "write JUnit XML, too")
def command(args: Args) -> int:
    """Check and print; raise errors for the caller to show."""
    from fuzz.targets.options import TargetOptions
    from fuzz.triage.tree_check import CheckPlan, check_tree
    from fuzz.triage.tree_report import report_json, report_junit, report_lines

    like = like_name(args.target)
    base = args.against or (like if args.base is None else name_on_tree(args.base, like))
    options = TargetOptions(args.target, LEVEL_NAMES[0], against=base, cold=True)
    limit = None if args.no_campaign else args.seconds
    plan = CheckPlan(options, limit, args.out, args.jobs, args.seed, tuple(args.paths or SEEDS))
    found = check_tree(plan, _Quiet(), _say)
    if args.junit is not None:
        write_whole(args.junit, report_junit(found))
    if args.json:
        print_json("ci", report_json(found))
    else:
        print("\n".join(report_lines(found)))
    return found.exit_status


class _Quiet:
    """A display that does not show the campaign's status."""

    def tick(self, line: str) -> None:
        """Ignore the line."""

    def clear(self) -> None:
        """Ignore the line."""
