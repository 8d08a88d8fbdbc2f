# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz replay``: run scenario files on real KVM and show every difference, side by side."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from fuzz.cli.options import Subparsers, add_deterministic, add_hyp_copy, add_number, add_paths, add_subject
from fuzz.cli.output import style_of
from fuzz.cli.progress import progress_printer
from fuzz.paths import KEPT
from fuzz.targets.options import TargetOptions
from fuzz.triage.bisect_verdict import CANNOT_TELL, check_signature, judge
from fuzz.triage.replay import ReplayListener, make_plan, replay
from harness.findings.regressions import load_regressions
from harness.report import terminal
from harness.report.replay_json import document
from harness.report.replay_result import Lost, Ran, exit_status
from harness.report.terminal import Style
from harness.report.trace_text import trace_lines
from harness.vm.build.prepare import PreparedTarget
from harness.vm.config import DEFAULT_TARGET, list_configs

LOST = 3

EPILOG = """\
examples:
  shadowfuzz replay corpus/seeds/mmio_load_signed_byte_x.scn
      one scenario on the default target
  shadowfuzz replay corpus/seeds --all-targets --json > replay.json
      every seed on every target, as one JSON object (keys: harness/report/replay_json.py)
  shadowfuzz replay finding.scn --repeat 20 --kernel ./Image
      run it twenty times, each in a fresh VM, on a kernel image of your own
  shadowfuzz replay corpus/seeds/protected_vm.scn --target kvm-7.3-protected
      also compare what pKVM loads and saves in memory that its host cannot read (--no-hyp-copy: do not)
  shadowfuzz replay finding.scn --deterministic --trace
      print the same trace in every run, interrupts included
  git bisect run sh -c 'make -s Image modules || exit 125; shadowfuzz replay FILE --tree . --signature TEXT --bisect'
      find the commit that introduced a finding; docs/your-kernel.md has the whole command

the table of a divergence: "before" is a register at the exit, "host" what KVM and userspace left there,
"predicted" what the model says the guest sees next, "observed" what the guest really sees; ^ marks digits that
differ.  Relation switch has "entry", "expected" and "observed": what went into the guest and what came out.

an alarm is a problem that the target's own kernel reported in its log while the scenario ran; a WARN_ONCE shows once
a boot

with --bisect and no --signature, bad is what no kept finding (corpus/regressions) of the target is like

exit status: 0 nothing unexplained, 1 an unexplained divergence or an alarm, 2 bad usage or input, 3 a target was lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``replay``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "replay",
        help="run scenario files on real KVM and show what differs",
        description="Run each scenario in a fresh VM on each target, and show every difference side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser)
    add_subject(parser, several=True)
    add_deterministic(parser)
    add_hyp_copy(parser)
    add_number(parser, "--repeat", 1, "run each scenario N times", most=999_999)
    parser.add_argument(
        "--signature", metavar="TEXT", help="status 1 only if a run shows this one, as the summary writes it; * is any"
    )
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="the statuses of `git bisect run`: 0 good, 1 bad, 125 not determined, 128 a mistake in the command",
    )
    parser.add_argument("--same-vm", action="store_true", help="one KVM VM for all, in their order, as in a campaign")
    parser.add_argument(
        "-v",
        "--known",
        action="store_true",
        help="show known divergences too, each with its reason, and what was not compared",
    )
    parser.add_argument("--trace", action="store_true", help="print each recorded event, with what changed")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Plan, run, print; errors are raised for the caller to show, a lost target becomes status 3."""
    names = list_configs() if args.all_targets else tuple(args.target or (DEFAULT_TARGET,))
    wanted = None if args.signature is None else check_signature(args.signature)
    how = {"deterministic": args.deterministic, "hyp_copy": args.hyp_copy}
    options = TargetOptions(names[0], args.level, args.kernel, cold=True, **how)
    plan = make_plan(args.paths, names, options, repeat=args.repeat, same_vm=args.same_vm)
    if args.json:
        results = replay(plan, ReplayListener(), progress_printer("setup"), keep_traces=args.trace)
        print(json.dumps(document(results, args.level, traces=args.trace), indent=1))
    else:
        output = _Text(sys.stdout, style_of(sys.stdout, os.environ), args)
        results = replay(plan, output, progress_printer("setup"))
        print("\n" + terminal.summary(results, args.level, output.style, known=args.known))
    if not args.bisect and wanted is None:
        return exit_status(results)
    found = judge(results, wanted, load_regressions(KEPT))
    if not args.json:
        print(found.text)
    return found.status if args.bisect or found.status != CANNOT_TELL else LOST


class _Text(ReplayListener):
    """Prints what happens as it happens."""

    def __init__(self, stream: TextIO, style: Style, args: argparse.Namespace) -> None:
        self.style = style
        self._stream = stream
        self._level: str = args.level
        self._known: bool = args.known
        self._trace: bool = args.trace

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def target_ready(self, name: str, prepared: PreparedTarget) -> None:
        """Print the target's head."""
        self._print(self.style.paint("bold", f"{name}: Linux {prepared.kernel_release}"))
        self._print(terminal.header_line(self.style))

    def job_done(self, target: str, item: Ran | Lost) -> None:
        """Print a run's line, and what differs below it."""
        if isinstance(item, Lost):
            self._print(terminal.lost_line(target, item, self.style))
            return
        self._print(terminal.status_line(item, self.style))
        for line in terminal.sites(item, self._level, self.style, known=self._known):
            self._print(line)
        for line in (*terminal.alarm_lines(item.alarms, self.style), *terminal.asserted_lines(item, self.style)):
            self._print(line)
        for line in (*terminal.failed_lines(item, self.style), *self._left_out(item)):
            self._print(line)
        if self._trace:
            self._print("\n".join(trace_lines(item.trace)))

    def _left_out(self, item: Ran) -> Iterator[str]:
        return terminal.left_out_lines(item, self.style) if self._known else iter(())
