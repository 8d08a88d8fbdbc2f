# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings``: what campaigns found, as a list, one by one, or for machines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from fuzz.cli.options import Subparsers, add_campaign
from fuzz.cli.output import announce_page, style_of
from fuzz.cli.progress import progress_printer
from fuzz.paths import out_words
from fuzz.store.database import Database
from fuzz.store.kept_findings import Contents, contents, find, kept_rows, open_database
from fuzz.store.marks import MAX_NOTE, STATUSES, Mark, Marks
from fuzz.store.unreadable_text import unreadable_lines
from fuzz.triage.findings_text import for_machines, overview, show
from fuzz.triage.problems_text import errata_text, problems_text
from fuzz.triage.report_page import write_report
from harness.errors import InputError
from harness.report.problem_data import errata_of, problems_of
from harness.report.terminal import Style, printable

_say = progress_printer("findings")

EPILOG = """\
examples:
  shadowfuzz findings
      list the problems of out/campaign (what is new, grouped by its probable cause), and the errata that came back
  shadowfuzz findings --new
      list only the problems
  shadowfuzz findings show d47d8f
      show one finding in full: its scenario, what differs side by side, the verdict and its evidence
  shadowfuzz findings set d47d8f --status reported --assignee ada --note "lore.kernel.org/..."
      store what you know of it; the list shows it, and --status reported lists those
  shadowfuzz findings --clusters
      list every cluster: relation, register, exit class, helper, cause
  shadowfuzz findings list --out out/vhe --format sarif > findings.sarif
      write a format for machines: json, junit or sarif
  shadowfuzz findings open
      show everything as a page in the browser (`shadowfuzz report` only writes the file)

An id may be shortened, with or without its kind.  A problem is new: no erratum of the target predicts what was observed
(docs/errata.md), and no kept finding without a rule shows its signature there.  An erratum came back: its rule predicts
what was observed, bit for bit; or (~) a kept finding shows the same relation, register class, exit class and helper.

exit status: 0 no findings (list), shown, set or opened, 1 there are confirmed findings (list; with --new: new ones), 2
bad usage or input
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``findings``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "findings",
        help="list the findings of a campaign, or show one",
        description="List the problems and errata of a campaign's directory or database, or show one finding.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "show", "set", "open"), default="list", help="what to do (default: list)"
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="id of the finding to show or set (may be shortened)")
    add_campaign(parser)
    parser.add_argument("--format", choices=("text", "json", "junit", "sarif"), default="text", help="(default: text)")
    parser.add_argument("--new", action="store_true", help="list only what no erratum of the target explains")
    parser.add_argument("--clusters", action="store_true", help="list every cluster by itself")
    parser.add_argument("--status", choices=STATUSES, help="with set: its status; with list: only problems with it")
    parser.add_argument("--assignee", metavar="NAME", help="with set: who looks at it; with list: only theirs")
    parser.add_argument("--note", metavar="TEXT", help="with set: a note")
    parser.add_argument("--trace", action="store_true", help="with show: print each recorded event, too")
    parser.set_defaults(run=run_findings)


def run_findings(args: argparse.Namespace) -> int:
    """List, show or set; errors are raised for the caller to show."""
    if (args.action in ("show", "set")) != (args.id is not None):
        raise InputError("findings", None, "`show` and `set` need an id; `list` and `open` accept none")
    if args.action != "list" and (args.new or args.clusters):
        raise InputError("--new" if args.new else "--clusters", None, "only `list` accepts it")
    database = open_database(args.out, args.store)
    if args.action == "open":
        out = args.out / "report.html"
        announce_page(out, write_report(database, args.out, out), show=True)
        return 0
    if args.action == "set":
        return _set(args, database)
    style = style_of(sys.stdout, os.environ)
    if args.action == "show":
        story = find(database, args.id)
        if args.format != "text":
            print(for_machines((story,), args.format), end="")
        else:
            mark = Marks(database).all().get(story.id)
            print("\n".join((*show(story, style, str(args.out), trace=args.trace), *_said(mark))))
        return 0
    kept = contents(database)
    found = kept.stories
    for line in unreadable_lines(kept.unreadable):
        _say(line)
    if args.new:
        found = tuple(story for story in found if not story.like)
    if args.format != "text":
        print(for_machines(found, args.format, kept.unreadable), end="")
    elif args.clusters or not found:
        print("\n".join(overview(found, style, "new findings" if args.new else "findings")))
    else:
        print("\n".join(_list(args, replace(kept, stories=found), style)))
    if any(story.kept.confirmed for story in found):
        return 1
    return 2 if kept.unreadable else 0


def _list(args: argparse.Namespace, kept: Contents, style: Style) -> Iterator[str]:
    found, marks = kept.stories, kept.marks
    problems = [
        problem
        for problem in problems_of(found, kept.examples)
        if args.status in (None, marks.get(problem.id, Mark()).status)
        and args.assignee in (None, marks.get(problem.id, Mark()).assignee)
    ]
    yield from problems_text(problems, marks, style, out_words(args.out))
    words = {row.id: row.does for row in kept_rows()}
    yield from errata_text(errata_of(found), words, style)
    flaky = sum(not story.kept.confirmed for story in found)
    if flaky:
        yield f"{flaky} flaky: did not come back when run again (--clusters lists them)"


def _set(args: argparse.Namespace, database: Database) -> int:
    """Change what is said of a finding, and print it."""
    if args.status is None and args.assignee is None and args.note is None:
        raise InputError("findings set", None, "nothing to set: expected --status, --assignee or --note")
    if args.note is not None and len(args.note) > MAX_NOTE:
        raise InputError("--note", None, f"{len(args.note)} characters, expected at most {MAX_NOTE}")
    id_ = find(database, args.id).id
    now = datetime.now(UTC).isoformat(timespec="seconds")
    mark = Marks(database).set(id_, now, status=args.status, assignee=args.assignee, note=args.note)
    print("\n".join((id_, *_said(mark))))
    return 0


def _said(mark: Mark | None) -> Iterator[str]:
    if mark is not None:
        for name in ("status", "assignee", "note", "changed"):
            if said := getattr(mark, name):
                yield f"  {name:9} {printable(said)}"
