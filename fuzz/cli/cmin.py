# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz cmin``: a corpus distilled to the simplest scenarios that still reach all that it reaches."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fuzz.cli.options import Subparsers, add_number, add_subject, targets_of
from fuzz.cli.progress import say
from fuzz.corpus.minimise import minimise_directory

OK, FAILED = 0, 3

_HELP = """\
Run every scenario of a directory on the target, record which edges of KVM's own code and which decisions of the model
it reaches, and copy to OUT the simplest ones that reach all of it together.  What a scenario reaches in one run but not
in another is noise and is ignored.  The machine is deterministic: the same corpus gives the same OUT.

example:
  shadowfuzz cmin out/campaign/corpus out/small

exit status: 0 done, 2 bad usage or input, 3 a machine was lost (its scenarios are copied, too), or something is missing
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``cmin``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "cmin",
        help="minimise a corpus: fewer, simpler scenarios with the same coverage",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a corpus, such as a campaign's")
    parser.add_argument("out", type=Path, metavar="OUT", help="where to copy the result; new, or empty")
    add_subject(parser)
    add_number(parser, "--repeat", 2, "run each N times; what all runs reach counts", most=100)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, choose, copy; errors are raised for the caller to show."""
    found = minimise_directory(args.directory, args.out, targets_of(args), args.repeat, say)
    print(json.dumps(found.to_json(), indent=1) if args.json else found.text())
    return FAILED if found.lost else OK
