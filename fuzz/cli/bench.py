# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz bench``: measure the rates of checked, recorded and raw exits in one run, and their ratios."""

from __future__ import annotations

import secrets

from fuzz.campaign.limits import MAX_JOBS
from fuzz.cli.declare import Args, declare, flag
from fuzz.cli.options import MAX_SEED, json_flag, level, number, out_file, target
from fuzz.cli.output import print_json
from fuzz.cli.progress import say
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.output_file import write_whole

QUICK_SECONDS, SECONDS = 2, 10

DESCRIPTION = """\
Run the same scenarios three times in one run: bare (raw), with every world switch recorded, and checked as in a
campaign (mutated, recorded, replayed on the model, compared, counted).  Then show how the time of an
exit is spent, and how it depends on the number of workers, the length of a scenario and the relations compared.

In the mode checked, an exit counts if the host's actions after it were compared, as in a campaign.  Ratios are valid
on any machine, rates only on an idle one.
"""
EPILOG = """\
examples:
  shadowfuzz bench                          two workers on the default target, ten seconds per mode
  shadowfuzz bench --quick                  the modes only, two seconds each
  shadowfuzz bench --runs 3                 the median, minimum and maximum of three runs
  shadowfuzz bench --plot bench.svg --json  print one JSON object, and write a plot

JSON keys: version, target, kernel_release, level, jobs, seed, raw_exits_per_s, recorded_exits_per_s,
checked_exits_per_s, recorded_over_raw, checked_over_raw, start_s, first_checked_exit_s, memory_mib, qemu_memory_mib,
breakdown_us, by_relations_us, by_length[], by_workers[], samples[] (mode, workers, exits, scenarios, seconds,
cpu_seconds, qemu_seconds): of the first run; runs[]: the rates of each; median, least, most: of each rate.

exit status: 0 done, 2 bad usage or input, 3 a machine was lost, or something is missing here
"""


@declare("exits", DESCRIPTION, EPILOG)
@target
@level
@number("--jobs", 2, "workers", most=MAX_JOBS)
@number("--seconds", None, f"for each mode (default: {SECONDS}, quick {QUICK_SECONDS})")
@flag("--quick", help="only the three modes and the parts of an exit")
@number("--runs", 1, "times, each with other scenarios, all but the first quick; show the median")
@number("--seed", None, "of the scenarios (default: random, printed)", 0, MAX_SEED)
@out_file("--plot", "write the figures as an SVG plot, too")
@json_flag
def command(args: Args) -> int:
    """Measure and print; raise errors for the caller to show."""
    from fuzz.bench.benchmark import BenchPlan, run_benches
    from fuzz.bench.tables import result_json, result_panels, result_text
    from harness.report.plots import render

    seed = args.seed if args.seed is not None else secrets.randbits(32)
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    if args.plot is not None and args.quick:
        raise InputError("--plot", None, "--quick does not measure enough for a plot")
    plan = BenchPlan(args.target, args.level, args.jobs, seconds, seed, args.quick)
    named, results = run_benches(plan, args.runs, say)
    if args.plot is not None:
        title = "shadowfuzz bench: {target}, Linux {kernel_release}, {jobs} workers, seed {seed}".format(**named)
        write_whole(args.plot, render(title, result_panels(results[0])))
    if args.json:
        print_json("bench exits", named | result_json(results))
    else:
        print(result_text(named, results))
    return ExitStatus.OK
