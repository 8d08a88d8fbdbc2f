# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz minimise``: the simplest scenario that shows the same divergence."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fuzz.cli.options import Subparsers, add_finding, targets_of
from fuzz.cli.progress import progress_printer
from fuzz.triage.minimise import minimise
from harness.scenario.scenario import format_scenario

_say = progress_printer("minimise")

DONE, NOT_CONFIRMED = 0, 1

EPILOG = """\
examples:
  shadowfuzz minimise found.scn > least.scn
      write the simplest scenario that still shows the first unexplained divergence of found.scn
  shadowfuzz minimise found.scn --signature host.pc/RESET -o least.scn
      keep another of its divergences; `shadowfuzz replay` prints the signatures

Every try runs on the real target in a fresh KVM VM, a success twice.  Simpler means, in this order: fewer steps, fewer
initial registers, simpler steps, simpler numbers, lower register names (harness/scenario/simplify.py).  The result is
a fixed point: no pass makes it simpler.  It is run once more in a fresh QEMU.

exit status: 0 done, 1 the result did not come back in a fresh QEMU, 2 bad usage or nothing to minimise, 3 the target
was lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``minimise``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "minimise",
        help="make the scenario of a finding as simple as possible",
        description="Simplify a scenario as long as it shows the same divergence on the real target.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_finding(parser, signature="what to keep (default: the first of the trace)")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="OUT", help="file for the scenario (default: standard output)"
    )
    parser.set_defaults(run=run_minimise)


def run_minimise(args: argparse.Namespace) -> int:
    """Minimise and print; errors are raised for the caller to show."""
    start = time.monotonic()
    scenario, least = minimise(targets_of(args), args.file, args.signature, _say)
    text = format_scenario(least.scenario)
    if args.out is None:
        print(text, end="")
    else:
        args.out.write_text(text, encoding="utf-8")
    before, after = (f"{len(s.steps)} steps, {len(s.registers)} registers" for s in (scenario, least.scenario))
    seconds = time.monotonic() - start
    _say(f"{before} -> {after}; {least.tries} tries, {seconds:.1f} s")
    _say("came back in a fresh QEMU" if least.confirmed else "did NOT come back in a fresh QEMU")
    return DONE if least.confirmed else NOT_CONFIRMED
