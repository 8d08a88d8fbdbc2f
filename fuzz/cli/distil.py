# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz distil``: scenarios of what a recorded program did, one for each kind of exit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fuzz.cli.options import Subparsers, add_target
from fuzz.cli.progress import progress_printer
from fuzz.corpus.extract_seeds import extract_seeds
from fuzz.corpus.recorded_seeds import Trials, check_room, seeds_json, seeds_text, try_seeds, write_seeds
from fuzz.corpus.recordings import read_with_progress
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.trace.recorded_rounds import excerpt
from harness.trace.recording import Reader, rewrite

_say = progress_printer("distil")

EPILOG = """\
examples:
  shadowfuzz distil boot.trace --out seeds
      write seeds/recorded_*.scn, without any VM
  shadowfuzz distil boot.trace --out seeds --verify --excerpt small.trace
      run each first and write only those that show the exit that they were made from; also write the first rounds of
      each kind of exit as a recording that `shadowfuzz check` reads

kinds of exits: class, syndrome, the model's decisions, exception level; what no step can reproduce is listed with its
count

exit status: 0 nothing unexplained, 1 --verify saw an unexplained divergence, 2 bad usage or input, 3 target lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``distil``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "distil",
        help="make scenarios from a recording",
        description="Write the smallest scenario for each kind of exit that a recording shows.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a file of `shadowfuzz record`")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="where to write; existing files are kept"
    )
    parser.add_argument("--verify", action="store_true", help="run each on the target, write those that show the exit")
    parser.add_argument("--excerpt", type=Path, metavar="FILE", help="write the first rounds of each kind, too")
    add_target(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_distil)


def run_distil(args: argparse.Namespace) -> int:
    """Extract, verify, write, print; errors are raised for the caller to show."""
    reader = Reader(args.trace)
    result = extract_seeds(read_with_progress(reader, _say), reader.head.program)
    check_room(result.seeds, args.out)
    tried: Trials = {}
    if args.verify:
        with open_targets(TargetOptions(args.target, "spec"), _say) as targets:
            tried = try_seeds(targets, result.seeds, _say)
    if args.excerpt is not None:
        again = Reader(args.trace)
        rewrite(args.excerpt, again, excerpt(again, result.spans))
    kept = write_seeds(result, tried, args.out)
    print(json.dumps(seeds_json(result, tried), indent=1) if args.json else seeds_text(result, tried, args.out, kept))
    return 1 if any(each.unexplained for each in tried.values()) else 0
