# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz minimise``: the simplest scenario that shows the same divergence."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.cli.options import Subparsers, add_finding
from fuzz.cli.progress import saying
from fuzz.targets.session import WELL, Lab, open_lab, signatures
from harness.errors import InputError
from harness.findings.finding import Signature, signature_text
from harness.minimiser import Minimiser
from harness.scenario.scenario import Scenario, format_scenario, load
from harness.scenario.simplify import PASSES, order

_say = saying("minimise")

MAX_TRIES = 20_000
DONE, NOT_CONFIRMED = 0, 1

EPILOG = """\
examples:
  shadowfuzz minimise found.scn > least.scn
      the simplest scenario that still shows the first unexplained divergence of found.scn
  shadowfuzz minimise found.scn --signature host.pc/RESET -o least.scn
      another of its divergences; signatures are written as `shadowfuzz replay` sums them up

Every try runs on the real target in a fresh KVM VM, a success twice; simpler means: fewer steps, fewer initial
registers, simpler steps, lighter numbers, lower register names, in this order (harness/scenario/simplify.py).  The
result is a fixed point: no pass makes it any simpler.  It is run once more in a fresh QEMU.

exit status: 0 done, 1 the result did not come back in a fresh QEMU, 2 bad usage or nothing to minimise, 3 the target
was lost
"""


@dataclass(frozen=True, slots=True)
class Least:
    """The end of a minimisation; ``confirmed``: it came back in a fresh QEMU."""

    scenario: Scenario
    signature: Signature
    tries: int
    confirmed: bool


def add_parser(subparsers: Subparsers) -> None:
    """Add ``minimise``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "minimise",
        help="make the scenario of a finding as simple as it gets",
        description="Make a scenario simpler for as long as it shows the same divergence on the real target.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_finding(parser, signature="what to keep (default: the first of the trace)")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="write the scenario there, not to stdout")
    parser.set_defaults(run=run_minimise)


def run_minimise(args: argparse.Namespace) -> int:
    """Minimise and print; errors are raised for the caller to show."""
    scenario = load(args.file)
    start = time.monotonic()
    how = {"cold": args.cold, "deterministic": args.deterministic, "hyp_copy": args.hyp_copy}
    with open_lab(args.target, args.level, args.kernel, _say, args.against, **how) as lab:
        _, checked = lab.observe(scenario)
        wanted = choose(signatures(checked), args.signature, str(args.file))
        _say(f"keeping {signature_text(wanted)}")
        least = minimise_on(lab, scenario, wanted)
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


def choose(found: Sequence[Signature], asked: str | None, where: str) -> Signature:
    """Return the signature to keep.  InputError: there is none, or not that one."""
    if not found:
        raise InputError(where, None, "nothing to minimise: all that it shows is explained")
    names = {signature_text(signature): signature for signature in found}
    if asked is None:
        return found[0]
    if asked not in names:
        raise InputError(where, None, f"does not show {asked!r}; it shows {', '.join(names)}")
    return names[asked]


def minimise_on(lab: Lab, scenario: Scenario, wanted: Signature, tries: int = MAX_TRIES) -> Least:
    """Return the simplest scenario that the passes reach and that shows ``wanted`` on the lab's target.

    InputError: the start does not show it twice in a row.
    """

    # A guest that exits for ever is what some findings are; from any other, nothing that runs away is a simpler one.
    _, first = lab.observe(scenario)
    ends = WELL | {first.status}

    def holds(candidate: Scenario) -> bool:
        # A success is rare and everything after it builds on it: it has to come twice.
        return lab.shows(candidate, wanted, ends=ends) and lab.shows(candidate, wanted, ends=ends)

    try:
        minimiser = Minimiser(scenario, holds, order, tries)
    except ValueError:
        raise InputError("scenario", None, f"shows {signature_text(wanted)} only now and then") from None
    # What the sentence said of the start need not be true of what is left.
    least = replace(minimiser.run(PASSES), about=f"The least that shows {signature_text(wanted)}.")
    lab.restart()
    return Least(least, wanted, minimiser.tries, lab.shows(least, wanted, ends=ends))
