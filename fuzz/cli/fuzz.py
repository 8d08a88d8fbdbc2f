# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz fuzz``: run a campaign against real KVM."""

from __future__ import annotations

import sys

import click

from fuzz.campaign.limits import MAX_JOBS, MODES, default_jobs
from fuzz.cli.declare import PATH, TEXT, Args, declare, flag, option
from fuzz.cli.options import (
    MAX_SEED,
    against,
    cold,
    deterministic,
    fast_qemu,
    hyp_copy,
    json_flag,
    number,
    out_directory,
    seconds,
    store,
    subject,
    targets_of,
)
from fuzz.cli.output import json_text, print_json, program
from fuzz.cli.progress import StatusLine, progress_printer
from fuzz.paths import DEFAULT_OUT, SEEDS
from harness.errors import InputError
from harness.output_file import write_whole
from harness.vm.config import list_configs

_say = progress_printer("fuzz")

EPILOG = """\
examples:
  shadowfuzz fuzz --seconds 60 --jobs 2
      a minute on the default target; each worker has a VM of its own and needs a core
  shadowfuzz fuzz --target kvm-vhe --out out/vhe --json > summary.json
      another target, the summary as one JSON object (its keys: fuzz/campaign/summary.py)
  shadowfuzz fuzz --deterministic --seed 1 --out out/new
      from an empty directory: the same scenarios and the same exits in the same order, in every run
  shadowfuzz fuzz --corpus mine --out out/mine
      begin with the scenarios of your own directory (which may be empty) instead of the project's
  shadowfuzz fuzz --kernel ./Image --level kernel
      a kernel image of your own, compared with the level that is deployed
  shadowfuzz fuzz --target kvm-nvhe --against kvm-nvhe@6.12.117 --out out/against
      two releases: run every scenario on both, compare each with the model, and the two with each other; intended
      changes are rows of corpus/known/releases.toml, any other difference is a divergence of relation against
  shadowfuzz fuzz --seconds 3600 --accept-kept --out out/nightly
      for a nightly run: status 0 unless a finding is new
  shadowfuzz fuzz --cluster 10.0.0.1:6379 --store postgresql://fuzz@10.0.0.1/fuzz --targets 'kvm-*'
      on all nodes of a Ray cluster, which join and leave, spread over six targets; one database has what they find

contents of --out after the run (call again with the same directory to continue from it):
  corpus/                 scenarios that reached something new, readable
  findings.db             findings and runs, written during the campaign; `shadowfuzz findings` reads it
  findings/<kind>-<id>/   scenario.scn, finding.json, count, trace.json for each cluster, written from findings.db: for
                          new ones at once, for all at the end; kind is divergence, crash, alarm or internal
  flaky/                  the same for divergences and alarms that were not reproduced when the scenario was run again
  dumps/<kind>-<id>/      memory of lost machines: the newest three of each crash, 1 GiB in all
  run/                    the workers' logs and counters of the last campaign

a divergence that the catalogue (corpus/known) does not explain is run again in the same VM and in a fresh one, and is
a finding if it occurs both times.  `shadowfuzz replay` shows it side by side; the summary has the command.  With
--emulators all new ones are run on other -cpu models and versions of QEMU at the end, if another QEMU is installed
(`shadowfuzz setup --emulators`); that takes some seconds per model.  `shadowfuzz triage` does it, too.
An alarm is a problem that the target's own kernel reported (a WARN, its lock checker, a stall, a taint).  It is a
finding if fresh machines show it again, with the scenario alone or with earlier scenarios before it, else it is flaky.
A cluster is either new, or like a kept regression (corpus/regressions/expected.toml) with the same relation, register
class, exit class and helper on this target (corpus/crashes: a loss in the same function).  If the kept one has a rule
(harness/relations/errata.py), a divergence that the rule does not predict bit for bit is in a separate, new cluster,
"another cause"; without a rule the cause may be a different one.  All clusters are findings.
Ctrl-C ends a campaign early, with its summary.  A lost machine is a finding of kind crash, with its registers and
memory; its last scenarios are run again in fresh machines, and the campaign continues.  A worker gives up (and the
campaign ends) if machines are lost five times in a row and do not run the simplest scenario either.

exit status: 0 nothing unexplained, 1 an alarm, or an unexplained divergence (with --accept-kept only if it is new), 2
bad usage or input, 3 the target was lost (also if it booted again; with --accept-kept only in a new way), something is
missing here, or a finding could not be written
"""


@declare(
    "fuzz",
    "Run mutated scenarios on real KVM and compare every world switch with the model.",
    EPILOG,
    verbose="every count and every cluster, not one screen",
)
@seconds("how long to fuzz after the first VM is up")
@number("--jobs", None, f"workers, a VM each (here: {default_jobs()})", most=MAX_JOBS)
@subject
@cold
@deterministic
@hyp_copy
@fast_qemu
@against
@option(
    "--corpus",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="begin with the scenarios of this directory, which may be empty; may be given several times (default: the "
    "project's seeds and regressions)",
)
@option(
    "--coverage",
    type=click.Choice(MODES),
    help="what guides the search: decisions of the model, edges of KVM's own code, or both (both, if gcc compiles)",
)
@number("--seed", None, "of the random numbers (default: random; the summary shows it)", 0, MAX_SEED)
@out_directory("--out", "the campaign's directory (default: out/campaign)", default=DEFAULT_OUT)
@store
@option(
    "--cluster",
    type=TEXT,
    metavar="ADDRESS",
    help="run on the nodes of a Ray cluster: HOST:PORT or ray://HOST:PORT; auto, the one of this machine; or local, "
    "one that is started here (extra cluster; docs/cluster.md)",
)
@option(
    "--targets",
    metavar="GLOB,...",
    help="with --cluster: spread the nodes over the targets that match, by what each can boot and where coverage grows",
)
@option(
    "--files",
    type=TEXT,
    metavar="URL",
    help="with --cluster: a directory or object store (s3://BUCKET/PATH) that all nodes reach, for the memory of lost "
    "machines, and for kernels that other nodes have built",
)
@flag("--emulators", help="at the end, run findings on other -cpu models and QEMU versions")
@flag("--accept-kept", help="exit status 1 only for new findings: those like no kept regression")
@json_flag
def command(args: Args) -> int:
    """Run a campaign and print its summary; raise errors for the caller to show."""
    from fuzz.campaign.live_campaign import LivePlan, run_live_campaign
    from fuzz.campaign.summary_text import SUMMARY, all_counts, screen
    from fuzz.triage.kept_on_emulators import on_emulators

    plan = LivePlan(
        *(targets_of(args), args.seconds, args.out, args.jobs, args.seed, args.store, args.coverage, args.accept_kept),
        program=program(),
        corpus=args.corpus or SEEDS,
    )
    status = StatusLine(sys.stderr, quiet=args.quiet)
    if args.cluster is None:
        if args.targets is not None:
            raise InputError("--targets", None, "without --cluster; one campaign on this machine has one --target")
        if args.files is not None:
            raise InputError(
                "--files", None, "without --cluster; one campaign on this machine has its directory, --out"
            )
        afterwards = on_emulators(plan.targets, _say) if args.emulators else None
        summary = run_live_campaign(plan, status, _say, afterwards)
    else:
        from fuzz.cluster.address import read_address
        from fuzz.cluster.campaign import ClusterPlan, run_cluster_campaign
        from fuzz.cluster.files import read_files
        from fuzz.cluster.spread import matching

        if args.emulators:
            raise InputError("--emulators", None, "not with --cluster: `shadowfuzz triage` tries them afterwards")
        targets = () if args.targets is None else matching(args.targets, list_configs())
        files = None if args.files is None else read_files(args.files)
        summary = run_cluster_campaign(ClusterPlan(plan, read_address(args.cluster), targets, files), status, _say)
    try:
        write_whole(args.out / SUMMARY, json_text("fuzz", summary.to_json()))
    except InputError as error:
        _say(str(error))  # the findings are in the database and are shown
    if args.json:
        print_json("fuzz", summary.to_json())
    else:
        print(all_counts(summary) if args.verbose else screen(summary), flush=True)
    return summary.exit_status
