# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz coverage-trial``: does coverage of KVM's own code find more than that of the model?  Page and plot."""

from __future__ import annotations

import argparse
import json
import secrets
from pathlib import Path

from fuzz.bench.guidance_trial import TrialPlan, measure_trial
from fuzz.cli.options import MAX_SEED, Subparsers, add_number, add_subject
from fuzz.cli.output import write_text
from fuzz.cli.progress import say
from harness.errors import InputError
from harness.jsonfile import reading
from harness.report.guidance_trial import markdown, svg

OK = 0
NAME = "coverage"

_HELP = """\
Run campaigns from an empty corpus, guided by the model, by KVM's own code, and by both in turn, and write how many
edges and decisions each reached over time: coverage.{json,svg,md} in --out.  Findings are discarded.

examples:
  shadowfuzz coverage-trial --runs 5 --seconds 60 --out docs      a quarter of an hour on an idle machine
  shadowfuzz coverage-trial --page docs                           plot and page again, from docs/coverage.json

exit status: 0 done, 2 bad usage or input, 3 a campaign ended early, or something is missing here
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``coverage-trial``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "coverage-trial",
        help="compare the guides of a campaign over several runs; write a page and a plot",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_subject(parser)
    add_number(parser, "--seconds", 60, "of each campaign")
    add_number(parser, "--runs", 5, "campaigns of each mode")
    add_number(parser, "--jobs", 2, "workers of each campaign")
    add_number(parser, "--seed", None, "of the campaigns' seeds (any; the page names it)", 0, MAX_SEED)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)")
    parser.add_argument("--json", action="store_true", help="print the measurement as JSON, too")
    parser.add_argument(
        "--page", type=Path, metavar="DIR", help="do not measure: make plot and page from its coverage.json"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, or read what was measured, and write; errors are raised for the caller to show."""
    if args.page is not None:
        out = args.page
        with reading(out / f"{NAME}.json", "what `shadowfuzz coverage-trial` measures") as data:
            plot, page = svg(data), markdown(data)
    else:
        out, data = args.out, measure_trial(_plan(args), say)
        _write(out / f"{NAME}.json", json.dumps(data, indent=1) + "\n")
        plot, page = svg(data), markdown(data)
    _write(out / f"{NAME}.svg", plot)
    _write(out / f"{NAME}.md", page)
    if args.json:
        print(json.dumps(data, indent=1))
    return OK


def _plan(args: argparse.Namespace) -> TrialPlan:
    if args.kernel is not None:
        raise InputError("--kernel", None, "a trial uses the target's own kernel")
    seed = args.seed if args.seed is not None else secrets.randbits(32)
    return TrialPlan(args.target, args.level, args.seconds, args.runs, args.jobs, seed)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(path), None, f"cannot be written: {error.strerror}") from error
    write_text(path, text)
    say(f"wrote {path}")
