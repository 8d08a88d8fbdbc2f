# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz against``: run scenarios on two targets and show where what was recorded differs."""

from __future__ import annotations

import argparse
import json

from fuzz.cli.options import Subparsers, add_number, add_paths
from fuzz.cli.progress import progress_printer
from fuzz.corpus.files import find_scenarios
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from fuzz.triage.compare_releases import compare_all, comparison_json, comparison_lines
from harness.errors import InputError
from harness.model import LEVEL_NAMES
from harness.scenario.scenario import load

_say = progress_printer("against")

EPILOG = """\
examples:
  shadowfuzz against kvm-nvhe kvm-nvhe@6.12.117 found.scn
      run one scenario on both, each in a fresh VM; print every place where the two traces differ
  shadowfuzz against kvm-nvhe@6.12.117 kvm-nvhe@7.3 corpus/seeds --known
      run all seeds; print also the differences that the catalogue (corpus/known/releases.toml) lists as intended

No model is used.  `shadowfuzz fuzz --target ONE --against OTHER` searches for such scenarios.

exit status: 0 no difference, or only intended ones, 1 another difference, 2 bad usage or input, 3 a target was lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``against``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "against",
        help="compare two releases: where two targets' traces of a scenario differ",
        description="Run scenarios on two targets with the same CPU and mode, and compare what was recorded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs=2, metavar="TARGET", help="CONFIG, CONFIG@KERNEL or a .toml file")
    add_paths(parser)
    add_number(parser, "--repeat", 1, "runs of each", most=100)
    parser.add_argument("--known", action="store_true", help="print each intended difference, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_against)


def run_against(args: argparse.Namespace) -> int:
    """Compare and print; errors are raised for the caller to show."""
    scenarios = [(str(path), load(path)) for path in find_scenarios(args.paths)]
    one, other = args.targets
    targets = open_targets(TargetOptions(one, LEVEL_NAMES[0], against=other, cold=True), _say)
    if len({subject.target for subject in targets.subjects}) == 1:
        raise InputError(other, None, "the two targets are the same")
    with targets:
        found = tuple(compare_all(targets, scenarios, args.repeat))
    if args.json:
        print(json.dumps(comparison_json(targets.subjects, found), indent=1))
    else:
        print("\n".join(comparison_lines(targets.subjects, found, known=args.known)))
    return 1 if any(judged.known is None for each in found for judged in each.judged) else 0
