# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz confirm``: measure the rate of a divergence, compare with every level of the model, print a verdict."""

from __future__ import annotations

from fuzz.cli.declare import Args, declare, flag
from fuzz.cli.options import finding, json_flag, number, targets_of
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.exit_status import ExitStatus

_say = progress_printer("confirm")

EPILOG = """\
example:
  shadowfuzz confirm found.scn --runs 20 --boots 3
      for each unexplained divergence: 20 times in one KVM VM, 20 times in fresh ones, in 3 fresh QEMUs; then ten times
      on each other -cpu model that has the target's mode, and on each other installed version of QEMU

verdicts (docs/spec/differential.md section 4): kvm, model, emulator, flaky, unexplained; abstraction is what the
catalogue explains.  emulator: the divergence disappears or changes on another -cpu or another QEMU: it occurs in
less than half of the runs there, and less often than on the target, both with a confidence of 95 per cent.  `shadowfuzz
setup --emulators` fetches other versions of QEMU; if none is installed, the output says so.

exit status: 1 an unexplained divergence or an alarm was measured, 2 bad usage or nothing to confirm: the scenario
shows none (`shadowfuzz replay` has a status for that), 3 the target was lost
"""


@declare("confirm", "Measure the rate of each unexplained divergence of a scenario, and classify it.", EPILOG)
@finding("only this one (default: all)")
@number("--runs", 10, "runs in one VM, and in fresh ones")
@number("--boots", 1, "fresh QEMUs")
@flag("--here", help="do not re-run on other -cpu models or QEMU versions")
@json_flag
def command(args: Args) -> int:
    """Confirm and print; raise errors for the caller to show."""
    from fuzz.triage.confirm import ConfirmPlan, confirm
    from fuzz.triage.confirm import as_json as finding_json
    from harness.findings.finding import signature_text
    from harness.findings.verdict import verdict_lines

    plan = ConfirmPlan(args.runs, args.boots, emulators=not args.here)
    found = confirm(targets_of(args), args.file, args.signature, plan, _say)
    if args.json:
        print_json("confirm", {"file": str(args.file), "findings": [finding_json(each) for each in found]})
    else:
        for each in found:
            print("\n    ".join((signature_text(each.signature), *verdict_lines(each.verdict, each.evidence))))
    return ExitStatus.DIVERGENCE
