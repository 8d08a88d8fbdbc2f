# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus coverage``: measure the coverage of KVM's own code and of the model by a corpus."""

from __future__ import annotations

from fuzz.cli.declare import Args, declare, flag
from fuzz.cli.options import file, json_flag, number, out_file, paths, subject, targets_of
from fuzz.cli.output import print_json
from fuzz.cli.progress import say
from fuzz.paths import SEEDS
from harness.exit_status import ExitStatus
from harness.input_file import check_file
from harness.output_file import write_whole

DESCRIPTION = """\
Run scenarios in a QEMU whose plugin records every block of KVM's code (EL1 and EL2) that is executed.  Show the
functions and exit handlers that they reach, the decisions that the model takes, and those never reached, with reasons.
"""
EPILOG = """\
examples:
  shadowfuzz corpus coverage                            run the project's seeds and regressions on the default target
  shadowfuzz corpus coverage out/campaign/corpus        show what a campaign reached
  shadowfuzz corpus coverage --functions a.scn          list each function that one scenario reaches
  shadowfuzz corpus coverage --html coverage.html       write one page, with the matrix of decisions and functions

A kernel image has symbols but no debug information: functions and instructions are shown.  With --vmlinux and the
vmlinux of Debian's package linux-image-RELEASE-dbg (260 MB), source files and lines are shown, too.

exit status: 0 all scenarios ran, 2 bad usage or input, 3 a machine was lost, or something is missing here
"""


@declare("coverage", DESCRIPTION, EPILOG)
@paths(optional=True)
@subject
@number("--repeat", 2, "run each N times; what all runs reach counts", most=100)
@file("--vmlinux", "the kernel with debug information: show lines, too", check=check_file)
@flag("--functions", help="list every function that was reached")
@json_flag
@out_file("--html", "write a page, too")
def command(args: Args) -> int:
    """Measure and show; raise errors for the caller to show."""
    from fuzz.corpus.coverage_report import measure_coverage
    from harness.report.kvm_coverage import page, text, to_json

    report = measure_coverage(args.paths or SEEDS, targets_of(args), args.repeat, args.vmlinux, say)
    if args.html is not None:
        write_whole(args.html, page(report))
        say(f"wrote {args.html}")
    if args.json:
        print_json("corpus coverage", to_json(report))
    else:
        print(text(report, every_function=args.functions))
    return ExitStatus.FAILED if report.lost else ExitStatus.OK
