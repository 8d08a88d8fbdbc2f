# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz kernels against``: run scenarios on two targets and show where the two traces differ."""

from __future__ import annotations

import click

from fuzz.cli.declare import Args, declare, flag
from fuzz.cli.options import json_flag, number, paths
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.model import LEVEL_NAMES

_say = progress_printer("against")

EPILOG = """\
examples:
  shadowfuzz kernels against kvm-nvhe kvm-nvhe@6.12.117 found.scn
      run one scenario on both, each in a fresh VM; print every difference between the two traces
  shadowfuzz kernels against kvm-nvhe@6.12.117 kvm-nvhe@7.3 corpus/seeds --known
      run all seeds; print also the differences that the catalogue (corpus/known/releases.toml) lists as intended

No model is used.  `shadowfuzz fuzz --target ONE --against OTHER` searches for such scenarios.

exit status: 0 no difference, or only intended ones, 1 another difference, 2 bad usage or input, 3 a target was lost
"""


@declare("against", "Run scenarios on two targets with the same CPU and mode, and compare what was recorded.", EPILOG)
@click.argument("targets", nargs=2, metavar="TARGET TARGET", help="CONFIG, CONFIG@KERNEL or a .toml file")
@paths()
@number("--repeat", 1, "runs of each", most=100)
@flag("--known", help="print each intended difference, too")
@json_flag
def command(args: Args) -> int:
    """Compare and print; raise errors for the caller to show."""
    from fuzz.corpus.files import find_scenarios
    from fuzz.targets.options import TargetOptions
    from fuzz.targets.target_set import open_targets
    from fuzz.triage.compare_releases import compare_all, comparison_json, comparison_lines
    from harness.scenario.scenario import load

    scenarios = [(str(path), load(path)) for path in find_scenarios(args.paths)]
    one, other = args.targets
    targets = open_targets(TargetOptions(one, LEVEL_NAMES[0], against=other, cold=True), _say)
    if len({subject.target for subject in targets.subjects}) == 1:
        raise InputError(other, None, "the two targets are the same")
    with targets:
        found = tuple(compare_all(targets, scenarios, args.repeat))
    if args.json:
        print_json("kernels against", comparison_json(targets.subjects, found))
    else:
        print("\n".join(comparison_lines(targets.subjects, found, known=args.known)))
    new = any(judged.known is None for each in found for judged in each.judged)
    return ExitStatus.DIVERGENCE if new else ExitStatus.OK
