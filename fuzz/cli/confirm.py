# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz confirm``: measure the rate of a divergence, compare with every level of the model, print a verdict."""

from __future__ import annotations

import argparse
import json

from fuzz.cli.options import Subparsers, add_finding, add_number, targets_of
from fuzz.cli.progress import progress_printer
from fuzz.triage.confirm import ConfirmPlan, as_json, confirm
from harness.findings.finding import signature_text
from harness.findings.verdict import verdict_lines

_say = progress_printer("confirm")

EPILOG = """\
example:
  shadowfuzz confirm found.scn --runs 20 --boots 3
      for each unexplained divergence: 20 times in one KVM VM, 20 times in fresh ones, in 3 fresh QEMUs; then ten times
      on each other -cpu model that has the target's mode, and on each other installed version of QEMU

verdicts (docs/spec/differential.md section 4): kvm, model, emulator, flaky, unexplained; abstraction is what the
catalogue explains.  emulator: the divergence disappears or changes on another -cpu or another QEMU: there it shows in
less than half of the runs, and less often than on the target, both with a confidence of 95 per cent.  `shadowfuzz
setup --emulators` fetches other versions of QEMU; if none is installed, the output says so.

exit status: 0 nothing unexplained, 1 an unexplained divergence, 2 bad usage or input, 3 the target was lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``confirm``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "confirm",
        help="measure the reproduction rate, compare with every model level, print a verdict",
        description="Measure how often each unexplained divergence of a scenario comes back, and classify it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_finding(parser, signature="only this one (default: all)")
    add_number(parser, "--runs", 10, "runs in one VM, and in fresh ones")
    add_number(parser, "--boots", 1, "fresh QEMUs")
    parser.add_argument("--here", action="store_true", help="do not re-run on other -cpu models or QEMU versions")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_confirm)


def run_confirm(args: argparse.Namespace) -> int:
    """Confirm and print; errors are raised for the caller to show."""
    plan = ConfirmPlan(args.runs, args.boots, emulators=not args.here)
    found = confirm(targets_of(args), args.file, args.signature, plan, _say)
    if args.json:
        print(json.dumps({"file": str(args.file), "findings": [as_json(each) for each in found]}, indent=1))
    else:
        for each in found:
            print("\n    ".join((signature_text(each.signature), *verdict_lines(each.verdict, each.evidence))))
        if not found:
            print("nothing unexplained")
    return 1 if found else 0
