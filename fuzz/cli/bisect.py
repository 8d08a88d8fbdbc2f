# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz kernels bisect``: find the neighbouring kernels between which a finding appears or disappears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from fuzz.cli.declare import PATH, Args, declare, option
from fuzz.cli.options import campaign, deterministic, json_flag, number
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.vm.config import DEFAULT_TARGET

if TYPE_CHECKING:
    from fuzz.triage.bisect_run import Bisection, BisectPlan
    from fuzz.triage.matrix import Case

_say = progress_printer("bisect")

EPILOG = """\
examples:
  shadowfuzz kernels bisect corpus/regressions/mmio_load_signed_word.scn
      try the first and last kernel of every series, then bisect where the outcome changes
  shadowfuzz kernels bisect finding.scn --good kvm-vhe@7.3 --bad kvm-vhe@6.12.117+deb12
      bisect between these two only
  shadowfuzz kernels bisect --finding d47d8f --campaign out/campaign
      bisect a campaign's finding; its release history is stored with it and shown on its page
  shadowfuzz kernels bisect --finding d47d8f --store postgresql://fuzz@10.0.0.1/fuzz --cluster 10.0.0.1:6379
      try kernels on all nodes of a cluster at once

exit status: 0 no change between kernels, 1 a change was found, 2 bad usage or input, 3 no
kernel could run the scenario
"""


@declare(
    "bisect",
    "Run a scenario on as few kernels of the archive as possible, and find where its result changes.",
    EPILOG,
)
@click.argument("file", required=False, type=PATH, metavar="[FILE]", help="a scenario")
@option("--finding", metavar="ID", help="instead of FILE: a campaign's finding, or its beginning")
@campaign
@option("--good", metavar="TARGET", help="a target CONFIG@VERSION at one end")
@option("--bad", metavar="TARGET", help="a target CONFIG@VERSION at the other end")
@option("--target", metavar="CONFIG", help=f"the configuration, without ends ({DEFAULT_TARGET})")
@number("--repeat", 5, "runs per kernel", most=100)
@deterministic
@option("--cluster", metavar="ADDRESS", help="try kernels on the nodes of a Ray cluster, as `shadowfuzz fuzz` names it")
@json_flag
def command(args: Args) -> int:
    """Search, then print each change with the lines of the changelog."""
    from fuzz.store.kept_findings import open_database
    from fuzz.triage.bisect_run import BisectPlan, bisect, case_of_file, find_story, keep_history

    if (args.file is None) == (args.finding is None):
        raise InputError("bisect", None, "expected either a FILE or --finding")
    plan = BisectPlan(args.target, args.good, args.bad, args.repeat, args.deterministic)
    search = partial(_on_cluster, args.cluster) if args.cluster is not None else bisect
    if args.finding is None:
        found = search(case_of_file(args.file), plan, _say)
    else:
        database = open_database(args.campaign, args.store)
        case, story = find_story(database, args.finding)
        own = None if args.good else story.kept.finding.subject.target.partition("@")[0]
        found = search(case, replace(plan, config=args.target or own), _say)
        keep_history(database, story, found)
    if args.json:
        print_json("kernels bisect", found.to_json())
    else:
        print("\n".join(found.lines()))
    return ExitStatus.DIVERGENCE if found.found.changes else ExitStatus.OK


def _on_cluster(address: str, case: Case, plan: BisectPlan, say: Callable[[str], None]) -> Bisection:
    from fuzz.cluster.address import read_address
    from fuzz.cluster.cells import cells_on_cluster
    from fuzz.triage.bisect_run import bisect

    with cells_on_cluster(read_address(address), say) as run:
        return bisect(case, plan, say, run)
