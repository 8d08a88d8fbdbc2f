# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings export``: one finding as files to hand over."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fuzz.cli.declare import PATH, Args, declare, option
from fuzz.cli.options import campaign, campaign_beside_out, chain, json_flag, out_directory
from fuzz.cli.output import print_json
from harness.exit_status import ExitStatus

EPILOG = """\
example:
  shadowfuzz findings export d47d8f --out handover
      handover/<id>.scn: a scenario that `shadowfuzz replay` reads, with expected and observed values,
      versions and hashes in comments; handover/<id>.c: a program in the style of KVM's selftests that shows the
      divergence without shadowfuzz (relations host.* and restore.*), compiled with
      aarch64-linux-gnu-gcc -static -O1 -o repro <id>.c
  shadowfuzz findings export crash-17eb6a --out handover
      for a crash: the scenario, the scenarios that must run before it (if any), and <id>.txt with how the target was
      lost, all registers and the console; its memory is in the campaign's directory, in dumps/

exit status: 0 written, 2 bad usage, or nothing to write
"""


def _export(args: Args) -> int:
    """Write the files; errors are raised for the caller to show."""
    from fuzz.store.kept_findings import find, open_database
    from fuzz.triage.export import export_finding
    from harness.report.export import why_no_program

    story = find(open_database(args.campaign, args.store), args.id)
    paths = export_finding(story, args.out)
    has_program = any(path.suffix == ".c" for path in paths)
    why = None if has_program else why_no_program(story)
    if args.json:
        print_json("findings export", {"id": story.id, "files": list(map(str, paths)), "no_program": why})
    else:
        print("\n".join(map(str, paths)))
        if why is not None:
            print(f"export: no C program: {why}", file=sys.stderr)
    return ExitStatus.OK


_ABOUT = "Write a finding as a self-contained scenario and as a C program that does not need shadowfuzz."
_ID = click.argument("id", metavar="ID", help="id of the finding (may be shortened)")
_OPTIONS = chain(json_flag)
"""All options but the campaign and where to write."""


@declare("export", _ABOUT, EPILOG)
@_ID
@out_directory("--out", "where to write (default: the current directory)", default=Path())
@campaign_beside_out
@_OPTIONS
def command(args: Args) -> int:
    """Export, as ``findings export``."""
    return _export(args)


@declare("export", _ABOUT, EPILOG)
@_ID
@option("--to", "out", type=PATH, metavar="DIR", default=Path(), help="where to write")
@campaign
@_OPTIONS
def old_command(args: Args) -> int:
    """Export, with the options of version 0.1: ``--out`` was the campaign."""
    return _export(args)
