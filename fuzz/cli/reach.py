# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz reach``: which steps, exits and relations a corpus exercises on each target, and what it never does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fuzz.cli.options import MAX_SEED, Subparsers, add_number, add_paths, add_tree
from fuzz.cli.output import write_text
from fuzz.cli.progress import progress_printer
from fuzz.corpus.exercise_counts import ExercisePlan, counts_text, measure_targets, read_counts
from fuzz.paths import SEEDS
from harness.model import LEVEL_NAMES
from harness.report.contract_page import Exercised, contract_page, contract_text
from harness.report.step_coverage import Reach, page, text, unsaid
from harness.vm.config import DEFAULT_TARGET, list_configs

_say = progress_printer("reach")

OK, UNREACHED, FAILED = 0, 1, 3

_HELP = """\
Run scenarios and mutants of them.  Show for every step of a scenario which exits it had and which relations compared
the result (steps x exit classes x relations x targets).  The exits that a step can have are rows of
harness/coverage/reachable_exits.py.  An exit that never occurred is listed with its reason, and so is one that occurred
and was never fully compared.  The same runs are counted by rules of the host's contract
(harness/relations/contract_rules.py), of the given scenarios only, not of their mutants.

examples:
  shadowfuzz reach                          run seeds, regressions and 300 mutants on the default target
  shadowfuzz reach --mutants 0 a.scn        show what one scenario exercises
  shadowfuzz reach --all-targets --keep corpus/reach.json --page docs/reach.md --contract docs/contract.md
  shadowfuzz reach --show corpus/reach.json show an earlier measurement without running anything

`shadowfuzz coverage` shows what the same scenarios reach of KVM's own code.

exit status: 0 every exit that was not reached has a reason, 1 one has none, 2 bad usage or input, 3 a machine was lost,
or something is missing here
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``reach``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "reach",
        help="count what a corpus exercises: steps by exits by relations by targets",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser, optional=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--target", action="append", metavar="NAME", help=f"may be given several times (default: {DEFAULT_TARGET})"
    )
    which.add_argument("--all-targets", action="store_true", help=f"all of {', '.join(list_configs())}")
    which.add_argument("--show", type=Path, metavar="FILE", help="run nothing: show what --keep wrote")
    add_tree(parser)
    parser.add_argument("--level", default=LEVEL_NAMES[0], choices=LEVEL_NAMES, help="the model's level (%(default)s)")
    add_number(parser, "--mutants", 300, "mutants of the scenarios", 0, 999_999_999)
    add_number(parser, "--seed", 1, "of the mutants' random numbers", 0, MAX_SEED)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the counts, too, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables, too, as Markdown")
    parser.add_argument(
        "--contract", type=Path, metavar="FILE", help="write the contract's rules by targets, too, as Markdown"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and show; errors are raised for the caller to show."""
    document = read_counts(args.show) if args.show is not None else measure_targets(_plan(args), _say)
    reach = Reach.from_json(document)
    rules = Exercised.from_json(document)
    made_by = (args.keep, counts_text(document)), (args.page, page(reach)), (args.contract, contract_page(rules))
    for path, made in made_by:
        if path is not None:
            write_text(path, made)
            _say(f"wrote {path}")
    print(json.dumps(document, indent=1) if args.json else f"{text(reach)}\n\n{contract_text(rules)}")
    if any(one["lost"] for one in document["targets"].values()):
        return FAILED
    return UNREACHED if unsaid(reach) or any(rules.unsaid()) else OK


def _plan(args: argparse.Namespace) -> ExercisePlan:
    targets = list_configs() if args.all_targets else tuple(dict.fromkeys(args.target or [DEFAULT_TARGET]))
    return ExercisePlan(tuple(args.paths or SEEDS), targets, args.level, args.mutants, args.seed)
