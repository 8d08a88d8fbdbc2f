# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz minimise``: find the simplest scenario that shows the same divergence."""

from __future__ import annotations

import time

from fuzz.cli.declare import PATH, Args, declare, option
from fuzz.cli.options import finding, json_flag, targets_of
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.exit_status import ExitStatus
from harness.output_file import check_file, write_whole

_say = progress_printer("minimise")

EPILOG = """\
examples:
  shadowfuzz minimise found.scn > least.scn
      write the simplest scenario that still shows the first unexplained divergence of found.scn
  shadowfuzz minimise found.scn --signature host.pc/RESET -o least.scn
      keep another of its divergences; `shadowfuzz replay` prints the signatures

Every try runs on the real target in a fresh KVM VM; a success is run twice.  Simpler means, in this order: fewer steps,
fewer initial registers, simpler steps, simpler numbers, lower register names (harness/scenario/simplify.py).  The
result is a fixed point: no pass makes it simpler.  It is run once more in a fresh QEMU.

exit status: 0 done, 2 bad usage or nothing to minimise: the scenario shows no unexplained divergence and no alarm
(`shadowfuzz replay` has a status for that), 3 the target was lost, or the result was not reproduced in a fresh QEMU
"""


@declare("minimise", "Simplify a scenario while it shows the same divergence on the real target.", EPILOG)
@finding("the divergence to keep (default: the first of the trace)")
@option(
    "-o",
    "--out",
    type=PATH,
    check=check_file,
    metavar="FILE",
    help="file for the scenario (default: standard output)",
)
@json_flag
def command(args: Args) -> int:
    """Minimise and print; raise errors for the caller to show."""
    from fuzz.triage.minimise import minimise
    from harness.scenario.scenario import format_scenario

    start = time.monotonic()
    scenario, least = minimise(targets_of(args), args.file, args.signature, _say)
    text = format_scenario(least.scenario)
    if args.out is not None:
        write_whole(args.out, text)
    if args.json:
        print_json("minimise", {"scenario": text, "tries": least.tries, "confirmed": least.confirmed})
    elif args.out is None:
        print(text, end="")
    before, after = (f"{len(s.steps)} steps, {len(s.registers)} registers" for s in (scenario, least.scenario))
    seconds = time.monotonic() - start
    _say(f"{before} -> {after}; {least.tries} tries, {seconds:.1f} s")
    _say("reproduced in a fresh QEMU" if least.confirmed else "NOT reproduced in a fresh QEMU")
    return ExitStatus.OK if least.confirmed else ExitStatus.FAILED
