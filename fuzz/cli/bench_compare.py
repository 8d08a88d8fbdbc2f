# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz bench compare``: how much faster one variant of this program is than another, with a control."""

from __future__ import annotations

import os
import secrets

import click

from fuzz.cli.declare import TEXT, Args, declare
from fuzz.cli.options import MAX_SEED, json_flag, level, number, out_file, target
from fuzz.cli.output import print_json
from fuzz.cli.progress import say
from harness.exit_status import ExitStatus
from harness.output_file import write_whole

DESCRIPTION = """\
Compare variants of this program: how many exits a second each checks as a campaign does, and where the time goes.
A variant is `pure` (the checker as Python), `compiled` (shadowfuzz setup), or the directory of another
checkout of this project; with `+fast-qemu` at its end, on the fast QEMU (shadowfuzz setup --fast-qemu).  The first one
is the base.

All machines are booted at once.  Each round runs the same scenarios on every variant, in random order; what is shown
are medians over the rounds.  The base runs twice: where it differs from itself by more than 3 %, doubt the ratios.
"""
EPILOG = """\
examples:
  shadowfuzz bench compare                            pure against compiled
  shadowfuzz bench compare ../before pure compiled    another checkout against both
  shadowfuzz bench compare pure compiled+fast-qemu    both the checker and QEMU
  shadowfuzz bench compare --rounds 60 --plot bench.svg --json

JSON keys: version, target, kernel_release, level, seed, load[], rounds, control, trusted, variants[] (name, exits,
our_us, qemu_us, wall_us, by_cpu, by_wall, budget_us{}).

exit status: 0 done, 2 bad usage or input, 3 a machine was lost, or something is missing here
"""


@declare("compare", DESCRIPTION, EPILOG)
@click.argument("variants", nargs=-1, type=TEXT, metavar="VARIANT...", help="the first is the base")
@target
@level
@number("--rounds", 30, "that count, after three that do not")
@number("--scenarios", 25, "in a round, for each variant")
@number("--seed", None, "of the scenarios (default: random, printed)", 0, MAX_SEED)
@out_file("--plot", "write where the time goes as an SVG picture, too")
@json_flag
def command(args: Args) -> int:
    """Measure and print; errors are raised for the caller to show."""
    from fuzz.bench.compare import ComparisonPlan, compare, parse_variant
    from fuzz.bench.comparison_tables import comparison_facts, comparison_panels, comparison_text
    from fuzz.targets.options import TargetOptions
    from fuzz.targets.target_set import open_targets
    from harness.report.plots import render

    words = dict.fromkeys(args.variants or ("pure", "compiled"))
    variants = [parse_variant(word, os.environ) for word in words]
    seed = args.seed if args.seed is not None else secrets.randbits(32)
    (side,) = open_targets(TargetOptions(args.target, args.level, cold=True), say).sides
    named = {
        "target": side.config.name,
        "kernel_release": side.prepared.kernel_release,
        "level": args.level,
        "seed": seed,
    }
    plan = ComparisonPlan(args.target, args.level, args.rounds, args.scenarios, seed)
    compared = compare(variants, plan, say)
    if args.plot is not None:
        title = "shadowfuzz bench compare: {target}, Linux {kernel_release}, seed {seed}".format(**named)
        write_whole(args.plot, render(title, comparison_panels(compared)))
    if args.json:
        print_json("bench compare", named | comparison_facts(compared))
    else:
        print(comparison_text(named, compared))
    return ExitStatus.OK
