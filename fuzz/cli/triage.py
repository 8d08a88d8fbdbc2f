# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz triage``: minimise the confirmed findings of a campaign, measure their rates, store the results."""

from __future__ import annotations

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import against, campaign, cold, hyp_copy, json_flag, number, subject, targets_of
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.errors import InputError
from harness.exit_status import ExitStatus

_say = progress_printer("triage")

EPILOG = """\
examples:
  shadowfuzz triage --campaign out/campaign
      process the findings of a campaign: some seconds and at most 300 tries each (progress is shown), then some
      seconds for each other -cpu model and version of QEMU (only if one is installed: `shadowfuzz setup
      --emulators`)
  shadowfuzz triage --new
      process only new findings, which no erratum of the target explains
  shadowfuzz triage --target kvm-nvhe --against kvm-nvhe@6.12.117 --campaign out/against
      process the differences that a campaign found between two targets (without --against: the findings on each)
  shadowfuzz triage --cluster 10.0.0.1:6379 --store postgresql://fuzz@10.0.0.1/fuzz --targets 'kvm-*'
      process what a campaign on many machines found, on all of them

Findings of other targets, kernels or levels are skipped, and so are those that were processed before, unless a simpler
scenario has replaced theirs since.  Findings that are like no kept regression are processed first.

exit status: 0 all done, 2 bad usage or input, 3 the target was lost
"""


@declare(
    "triage", "Minimise every confirmed divergence, measure its rate, and keep the result with the finding.", EPILOG
)
@campaign
@subject
@cold
@against
@hyp_copy
@number("--runs", 10, "runs in one VM, and in fresh ones", most=10_000)
@flag("--new", help="skip findings that an erratum explains")
@option(
    "--cluster", metavar="ADDRESS", help="process them on the nodes of a Ray cluster, as `shadowfuzz fuzz` names it"
)
@option("--targets", metavar="GLOB", help="with --cluster: those found on targets that match (default: *)")
@json_flag
def command(args: Args) -> int:
    """Process all findings; raise errors for the caller to show."""
    from fuzz.store.kept_findings import open_database
    from fuzz.triage.triage import TriagePlan, triage_campaign

    plan = TriagePlan(args.runs, args.new)
    if args.cluster is not None:
        done = _on_cluster(args)
    elif args.targets is not None:
        raise InputError("--targets", None, "without --cluster; on this machine, --target names one")
    else:
        done = triage_campaign(open_database(args.campaign, args.store), args.campaign, targets_of(args), plan, _say)
    if args.json:
        print_json("triage", {"processed": done})
    return ExitStatus.OK


def _on_cluster(args: Args) -> int:
    from fuzz.cluster.address import check_store, read_address
    from fuzz.cluster.triage import triage_on_cluster
    from fuzz.cluster.triage_job import TriageJob
    from fuzz.store.kept_findings import open_database

    address = read_address(args.cluster)
    check_store(address, args.store)
    database = open_database(args.campaign, args.store)
    return triage_on_cluster(database, address, TriageJob(database.url, args.runs, args.new), args.targets or "*", _say)
