# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings set`` and ``findings open``: store a finding's status and note; show all in the browser."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import click

from fuzz.cli.declare import Args, declare, option
from fuzz.cli.options import campaign, json_flag
from fuzz.cli.output import announce_page, page_with_program_name, print_json
from fuzz.store.mark_limits import MAX_NOTE, STATUSES
from harness.errors import InputError
from harness.exit_status import ExitStatus

SET = """\
example:
  shadowfuzz findings set d47d8f --status reported --assignee ada --note "lore.kernel.org/..."
      store a status, an assignee and a note; the list shows them, and --status reported lists such findings

exit status: 0 stored, 2 bad usage or input
"""
OPEN = """\
example:
  shadowfuzz findings open
      write report.html into the campaign's directory and show it (`shadowfuzz report` only writes a file)

exit status: 0 written, 2 bad usage or input, 3 it could not be written
"""


@declare("set", "Store your notes on a finding: a status, an assignee, a text.", SET)
@click.argument("id", metavar="ID", help="id of the finding (may be shortened)")
@campaign
@option("--status", type=click.Choice(STATUSES), help="its status")
@option("--assignee", type=str, metavar="NAME", help="the person who works on it")
@option("--note", type=str, metavar="TEXT", help="a note")
@json_flag
def set_command(args: Args) -> int:
    """Change the mark of a finding, and print it; raise errors for the caller to show."""
    from fuzz.store.kept_findings import find_finding, open_database
    from fuzz.store.marks import Marks
    from fuzz.triage.findings_text import mark_lines

    if args.status is None and args.assignee is None and args.note is None:
        raise InputError("findings set", None, "nothing to set: expected --status, --assignee or --note")
    if args.note is not None and len(args.note) > MAX_NOTE:
        raise InputError("--note", None, f"{len(args.note)} characters, expected at most {MAX_NOTE}")
    database = open_database(args.campaign, args.store)
    id_ = find_finding(database, args.id).id
    now = datetime.now(UTC).isoformat(timespec="seconds")
    mark = Marks(database).set(id_, now, status=args.status, assignee=args.assignee, note=args.note)
    if args.json:
        print_json("findings set", {"id": id_, **asdict(mark)})
    else:
        print("\n".join((id_, *mark_lines(mark))))
    return ExitStatus.OK


@declare("open", "Show the findings of a campaign as a page in the browser.", OPEN)
@campaign
def open_command(args: Args) -> int:
    """Write the page and show it; raise errors for the caller to show."""
    from fuzz.store.kept_findings import open_database
    from fuzz.triage.report_page import write_report

    out = args.campaign / "report.html"
    size = write_report(open_database(args.campaign, args.store), args.campaign, out, page_with_program_name)
    announce_page(out, size, show=True)
    return ExitStatus.OK
