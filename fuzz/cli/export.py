# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings export``: write one finding as files for people without shadowfuzz."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fuzz.cli.declare import PATH, Args, declare, flag, option
from fuzz.cli.options import campaign, campaign_beside_out, chain, json_flag, out_directory, vmlinux
from fuzz.cli.output import print_json
from harness.errors import InputError
from harness.exit_status import ExitStatus

if TYPE_CHECKING:
    from fuzz.triage.handover import Handover

EPILOG = """\
example:
  shadowfuzz findings export d47d8f --out handover
      handover/<id>.scn: a scenario that `shadowfuzz replay` reads, with expected and observed values,
      versions and hashes in comments; handover/<id>.c: a program in the style of KVM's selftests that shows the
      divergence without shadowfuzz (relations host.* and restore.*), compiled with
      aarch64-linux-gnu-gcc -static -O1 -o repro <id>.c
  shadowfuzz findings export crash-17eb6a --out handover
      for a crash: the scenario, the scenarios that must run before it (if any), and <id>.txt with the reason of the
      loss, all registers and the console; the memory dump is in the campaign's directory, in dumps/
  shadowfuzz findings export d47d8f --mail
      print a mail to KVM's maintainers: the bug, its cause, the affected releases, a minimal scenario, how to
      reproduce it
  shadowfuzz findings export mmio-load-loses-sign --selftest --out linux/tools/testing/selftests/kvm/aarch64
      write mmio_load_loses_sign.c, a KVM selftest that fails on a kernel with the bug and passes on one without

ID is that of a campaign's finding; with --mail and --selftest it may be the name of a kept finding (docs/findings.md),
for which no campaign is read.

exit status: 0 written, 2 bad usage, or nothing to write (the message names the step that no selftest can do)
"""


def _export(args: Args) -> int:
    """Write the requested files; raise errors for the caller to show."""
    if args.vmlinux is not None and not args.mail:
        raise InputError("--vmlinux", None, "goes with --mail: nothing else names KVM's function")
    if args.mail or args.selftest:
        return _hand_over(args)
    from fuzz.store.kept_findings import Explainer, find_finding, open_database, refuse_kept
    from fuzz.triage.export import export_finding
    from harness.report.export import why_no_program

    explainer = Explainer()
    refuse_kept(args.id, explainer.kept)
    story = find_finding(open_database(args.campaign, args.store), args.id, explainer)
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


def _hand_over(args: Args) -> int:
    """Write a mail or a program for the kernel's tree; print a mail if no directory is given."""
    from fuzz.triage.handover import kept_handover, mail, program

    found = kept_handover(args.id) or _of_campaign(args)
    if args.vmlinux is not None and found.story is None:
        raise InputError("--vmlinux", None, f"{found.name} is a kept finding: its sources name KVM's functions")
    name, text = program(found) if args.selftest else (f"{found.name}.mail.txt", mail(found, str(args.campaign)))
    if args.mail and args.out == Path() and not args.json:
        print(text, end="")
        return ExitStatus.OK
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / name
    path.write_text(text, encoding="utf-8")
    if args.json:
        print_json("findings export", {"id": found.name, "files": [str(path)], "no_program": None})
    else:
        print(path)
    return ExitStatus.OK


def _of_campaign(args: Args) -> Handover:
    from fuzz.store.kept_findings import find_finding, open_database
    from fuzz.triage.handover import story_handover
    from fuzz.triage.source_line import handler_in_words

    story = find_finding(open_database(args.campaign, args.store), args.id)
    return story_handover(story, handler_in_words(story, args.vmlinux))


_ABOUT = "Write a finding as a self-contained scenario and as a C program that does not need shadowfuzz."
_ID = click.argument("id", metavar="ID", help="id of the finding (may be shortened)")
_OPTIONS = chain(
    flag("--mail", help="print a mail to the maintainers of KVM/arm64 instead (with --out: write it)"),
    flag("--selftest", help="write a program in the form of the kernel's KVM selftests instead"),
    vmlinux,
    json_flag,
)
_EXCLUSIVE = (("mail", "selftest"),)
"""All options except the campaign and the output directory."""


@declare("export", _ABOUT, EPILOG, exclusive=_EXCLUSIVE)
@_ID
@out_directory("--out", "where to write (default: the current directory)", default=Path())
@campaign_beside_out
@_OPTIONS
def command(args: Args) -> int:
    """Run ``findings export``."""
    return _export(args)


@declare("export", _ABOUT, EPILOG, exclusive=_EXCLUSIVE)
@_ID
@option("--to", "out", type=PATH, metavar="DIR", default=Path(), help="where to write")
@campaign
@_OPTIONS
def old_command(args: Args) -> int:
    """Run ``export`` with the options of version 0.1, in which ``--out`` was the campaign."""
    return _export(args)
