# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings``: what campaigns found, as a list, one by one, or for machines."""

from __future__ import annotations

import argparse
import os
import sys

from fuzz.cli.options import Subparsers, add_campaign
from fuzz.cli.output import announce_page, style_of
from fuzz.store.kept_findings import find, open_database, stories
from fuzz.triage.findings_text import for_machines, overview, show
from fuzz.triage.report_page import write_report
from harness.errors import InputError

EPILOG = """\
examples:
  shadowfuzz findings
      list the clusters of out/campaign: count, new or not, verdict, target, divergence
  shadowfuzz findings --new
      list only those that are like no kept regression (corpus/regressions/expected.toml) on their target
  shadowfuzz findings show d47d8f
      show one finding in full: its scenario, what differs side by side, the verdict and its evidence
  shadowfuzz findings list --out out/vhe --format sarif > findings.sarif
      write a format for machines: json, junit or sarif
  shadowfuzz findings open
      show everything as a page in the browser (`shadowfuzz report` only writes the file)

An id may be shortened, with or without its kind.  `like A`: the kept regression A shows the same relation, register
class, exit class and helper on this target.  `another cause`: the place is that of a kept regression, but no rule of
harness/relations/errata.py predicts the value.

exit status: 0 no findings (list), shown or opened, 1 there are confirmed findings (list; with --new: new ones), 2 bad
usage or input
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``findings``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "findings",
        help="list the findings of a campaign, or show one",
        description="List the findings of a campaign's directory or database, or show one of them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "show", "open"), default="list", help="what to do (default: list)"
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="id of the finding to show (may be shortened)")
    add_campaign(parser)
    parser.add_argument("--format", choices=("text", "json", "junit", "sarif"), default="text", help="(default: text)")
    parser.add_argument("--new", action="store_true", help="list only what is like no kept regression")
    parser.add_argument("--trace", action="store_true", help="with show: print each recorded event, too")
    parser.set_defaults(run=run_findings)


def run_findings(args: argparse.Namespace) -> int:
    """List or show; errors are raised for the caller to show."""
    if (args.action == "show") != (args.id is not None):
        raise InputError("findings", None, "`show` needs an id; `list` and `open` accept none")
    if args.new and args.action != "list":
        raise InputError("--new", None, "only `list` accepts it")
    database = open_database(args.out, args.store)
    if args.action == "open":
        out = args.out / "report.html"
        announce_page(out, write_report(database, args.out, out), show=True)
        return 0
    found = (find(database, args.id),) if args.id else stories(database)
    if args.new:
        found = tuple(story for story in found if not story.like)
    style = style_of(sys.stdout, os.environ)
    if args.format != "text":
        print(for_machines(found, args.format), end="")
    elif args.id:
        print("\n".join(show(found[0], style, str(args.out), trace=args.trace)))
    else:
        print("\n".join(overview(found, style, "new findings" if args.new else "findings")))
    return 0 if args.id or not any(story.kept.confirmed for story in found) else 1
