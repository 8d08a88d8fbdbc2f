# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings``: list findings of campaigns, show one, or print them in a machine-readable format."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import campaign, json_flag, vmlinux
from fuzz.cli.output import print_json, style_of, with_program_name
from fuzz.cli.progress import progress_printer
from fuzz.paths import out_words
from fuzz.store.mark_limits import STATUSES
from harness.errors import InputError
from harness.exit_status import ExitStatus

if TYPE_CHECKING:
    from fuzz.store.database import Unreadable
    from fuzz.store.kept_findings import StoredFindings
    from harness.report.campaign_data import Run
    from harness.report.finding_data import Story
    from harness.report.terminal import Style

LIST = """\
examples:
  shadowfuzz findings
      list the problems of out/campaign (new findings, grouped by probable cause), and the errata that occurred again
  shadowfuzz findings list --new
      list only the problems
  shadowfuzz findings list --clusters
      list every cluster: relation, register, exit class, helper, cause
  shadowfuzz findings list --campaign out/vhe --format sarif > findings.sarif
      print a machine-readable format: json, junit or sarif

A problem is new: no erratum of the target predicts the observed values (docs/errata.md), and no kept finding without a
rule shows its signature there.  An erratum occurred again: its rule predicts the observed values bit for bit; or (~) a
kept finding shows the same relation, register class, exit class and helper.

exit status: 0 no findings, 1 there are confirmed findings (with --new: new ones), 2 bad usage or input
"""
SHOW = """\
example:
  shadowfuzz findings show d47d8f
      show one finding in full: its scenario, the differences side by side, the verdict and its evidence

An id may be shortened: give its beginning, with or without the kind.  For a kernel with debug information in the
directory of --tree, the source line of KVM's function is shown.

exit status: 0 shown, 2 bad usage or input
"""
_ID = click.argument("id", metavar="ID", help="id of the finding (may be shortened)")
_FORMAT = option("--format", type=click.Choice(("text", "json", "junit", "sarif")), help="(default: text)")


@declare("list", "List the problems and errata of a campaign's directory or database.", LIST)
@campaign
@json_flag
@_FORMAT
@flag("--new", help="list only findings that no erratum of the target explains")
@flag("--clusters", help="list every cluster by itself")
@option("--status", type=click.Choice(STATUSES), help="only problems with this status")
@option("--assignee", type=str, metavar="NAME", help="only problems of this person")
@option(
    "--sort",
    type=click.Choice(("count", "first", "last")),
    default="count",
    help="lost machines and frequent problems first (default), or by when they were seen first or last",
)
def list_command(args: Args) -> int:
    """Print a list; raise errors for the caller to show."""
    from fuzz.store.kept_findings import open_database, read_findings
    from fuzz.store.runs import History
    from fuzz.store.unreadable_text import unreadable_lines
    from fuzz.triage.findings_text import overview

    database = open_database(args.campaign, args.store)
    style, kept = style_of(sys.stdout, os.environ), read_findings(database)
    found = kept.stories
    for line in unreadable_lines(kept.unreadable):
        progress_printer("findings")(line)
    if args.new:
        found = tuple(story for story in found if not story.like)
    if not _for_machines("findings list", args, found, kept.unreadable):
        if args.clusters or not found:
            print("\n".join(overview(found, style, "new findings" if args.new else "findings")))
        else:
            runs = History(database).runs()
            print(with_program_name("\n".join(_list(args, replace(kept, stories=found), runs, style))))
    if any(story.kept.confirmed for story in found):
        return ExitStatus.DIVERGENCE
    return ExitStatus.USAGE if kept.unreadable else ExitStatus.OK  # an unreadable row may be a finding


@declare("show", "Show one finding of a campaign in full.", SHOW)
@_ID
@campaign
@json_flag
@_FORMAT
@flag("--trace", help="print each recorded event, too")
@vmlinux
def show_command(args: Args) -> int:
    """Print one finding; raise errors for the caller to show."""
    from fuzz.store.kept_findings import Explainer, find_finding, open_database, refuse_kept
    from fuzz.store.marks import Marks
    from fuzz.triage.findings_text import Background, finding_text, mark_lines
    from fuzz.triage.source_line import handler_in_words

    explainer = Explainer()
    refuse_kept(args.id, explainer.kept)
    database = open_database(args.campaign, args.store)
    story = find_finding(database, args.id, explainer)
    if not _for_machines("findings show", args, (story,)):
        style, marks = style_of(sys.stdout, os.environ), Marks(database).all()
        errata = tuple(row for row in explainer.kept if row.id in story.like)
        about = Background(errata, handler_in_words(story, args.vmlinux))
        lines = finding_text(story, style, str(args.campaign), about, trace=args.trace)
        print(with_program_name("\n".join((*lines, *mark_lines(marks.get(story.id))))))
    return ExitStatus.OK


def _for_machines(name: str, args: Args, found: Sequence[Story], unreadable: Sequence[Unreadable] = ()) -> bool:
    """Print findings in the requested machine-readable format; return False if the format is text."""
    from fuzz.triage.findings_text import machine_format
    from harness.report.exchange_formats import findings_json

    if args.json and args.format not in (None, "json"):
        raise InputError("--json", None, f"cannot be combined with --format {args.format}")
    if args.json or args.format == "json":
        print_json(name, findings_json(found, [(row.where, row.why) for row in unreadable]))
        return True
    if args.format in ("junit", "sarif"):
        print(machine_format(found, args.format, unreadable), end="")
        return True
    return False


def _list(args: Args, kept: StoredFindings, runs: Sequence[Run], style: Style) -> Iterator[str]:
    from fuzz.store.marks import Mark
    from fuzz.triage.problems_text import errata_text, in_order, problems_text
    from harness.report.problem_data import errata_of, problems_of

    found, marks = kept.stories, kept.marks
    problems = [
        problem
        for problem in problems_of(found, kept.examples)
        if args.status in (None, marks.get(problem.id, Mark()).status)
        and args.assignee in (None, marks.get(problem.id, Mark()).assignee)
    ]
    yield from problems_text(in_order(problems, args.sort), marks, runs, style, out_words(args.campaign))
    words = {row.id: row.does for row in kept.rows}
    yield from errata_text(errata_of(found), words, runs, style)
    flaky = sum(not story.kept.confirmed for story in found)
    if flaky:
        yield f"{flaky} flaky: not reproduced when run again (--clusters lists them)"
