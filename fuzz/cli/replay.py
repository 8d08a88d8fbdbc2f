# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz replay``: run scenario files on real KVM and show every difference, side by side."""

from __future__ import annotations

import os
import sys

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import SEVERAL, deterministic, hyp_copy, json_flag, number, paths, subjects
from fuzz.cli.output import print_json, style_of
from fuzz.cli.progress import bar, progress_printer
from fuzz.paths import KEPT
from fuzz.targets.options import TargetOptions
from harness.exit_status import ExitStatus
from harness.vm.config import DEFAULT_TARGET, list_configs

EPILOG = """\
examples:
  shadowfuzz replay corpus/seeds/mmio_load_signed_byte_x.scn
      one scenario on the default target
  shadowfuzz replay corpus/seeds --all-targets --json > replay.json
      every seed on every target, as one JSON object (keys: harness/report/replay_json.py)
  shadowfuzz replay finding.scn --repeat 20 --kernel ./Image
      run it twenty times, each in a fresh VM, on a kernel image of your own
  shadowfuzz replay corpus/seeds/protected_vm.scn --target kvm-7.3-protected
      also compare pKVM's own copy of the vCPU, which its host cannot read (--no-hyp-copy: do not)
  shadowfuzz replay finding.scn --deterministic --trace
      print the same trace in every run, interrupts included
  git bisect run sh -c 'make -s Image modules || exit 125; shadowfuzz replay FILE --tree . --signature TEXT --bisect'
      find the commit that introduced a finding; docs/your-kernel.md has the whole command

the table of a divergence: "before" is a register at the exit, "host" its value after KVM and userspace acted,
"predicted" the model's value for the guest, "observed" the guest's real value; ^ marks digits that differ.  Relation
switch has "entry", "expected" and "observed": the value at the entry, and the expected and real values at the exit.

a value that the scenario expects (`expect x3 0x1`) and that was not seen counts as a divergence

an alarm is a problem that the target's own kernel reported in its log while the scenario ran; a WARN_ONCE is reported
once per boot

with --bisect and no --signature, a divergence or alarm that is like no kept finding (corpus/regressions) of the target
makes a commit bad

exit status: 0 nothing unexplained, 1 an unexplained divergence, an expected value that was not seen or an alarm, 2 bad
usage or input, 3 a target was lost
"""


@declare(
    "replay",
    "Run each scenario in a fresh VM on each target, and show every difference side by side.",
    EPILOG,
    exclusive=SEVERAL,
)
@paths()
@subjects
@deterministic
@hyp_copy
@number("--repeat", 1, "run each scenario N times", most=999_999)
@option("--signature", metavar="TEXT", help="status 1 only if a run shows this one, as in the summary; * is any")
@flag(
    "--bisect", help="the statuses of `git bisect run`: 0 good, 1 bad, 125 not determined, 128 a mistake in the command"
)
@flag("--same-vm", help="one KVM VM for all, in their order, as in a campaign")
@flag(
    "-v",
    "--verbose",
    aliases=("--known",),
    help="also show known divergences, each with its reason, and what was not compared",
)
@flag("--trace", help="print each recorded event, with what changed")
@json_flag
def command(args: Args) -> int:
    """Plan, run, print; raise errors for the caller to show; return 3 for a lost target."""
    from fuzz.cli.replay_output import ReplayCount, ReplayText
    from fuzz.triage.bisect_verdict import UNDETERMINED, check_signature, commit_verdict
    from fuzz.triage.replay import make_plan, replay
    from harness.findings.regressions import load_regressions
    from harness.report import terminal
    from harness.report.replay_json import document
    from harness.report.replay_result import exit_status

    names = list_configs() if args.all_targets else tuple(args.target or (DEFAULT_TARGET,))
    wanted = None if args.signature is None else check_signature(args.signature)
    how = {"deterministic": args.deterministic, "hyp_copy": args.hyp_copy}
    options = TargetOptions(names[0], args.level, args.kernel, cold=True, **how)
    plan = make_plan(args.paths, names, options, repeat=args.repeat, same_vm=args.same_vm)
    jobs = len(plan.jobs) * len(plan.configs)
    with bar("replay", jobs, shown=args.json or not sys.stdout.isatty()) as done:
        if args.json:
            results = replay(plan, ReplayCount(done), progress_printer("setup"), keep_traces=args.trace)
        else:
            output = ReplayText(sys.stdout, style_of(sys.stdout, os.environ), args, done)
            results = replay(plan, output, progress_printer("setup"))
    if args.json:
        print_json("replay", document(results, args.level, traces=args.trace))
    else:
        print("\n" + terminal.summary(results, args.level, output.style, known=args.verbose))
    if not args.bisect and wanted is None:
        return exit_status(results)
    found = commit_verdict(results, wanted, load_regressions(KEPT))
    if not args.json:
        print(found.text)
    return found.status if args.bisect or found.status != UNDETERMINED else ExitStatus.FAILED
