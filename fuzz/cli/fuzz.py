# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz fuzz``: a campaign against real KVM."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import TextIO

from fuzz.campaign.guidance import MODES
from fuzz.campaign.live_campaign import MAX_JOBS, LivePlan, default_jobs, run_live_campaign
from fuzz.campaign.summary_text import SUMMARY, all_counts, screen
from fuzz.cli.options import (
    MAX_SEED,
    Subparsers,
    add_against,
    add_campaign,
    add_cold,
    add_deterministic,
    add_hyp_copy,
    add_number,
    add_subject,
    seconds,
    targets_of,
)
from fuzz.cli.output import program, write_whole
from fuzz.cli.progress import progress_printer
from fuzz.triage.kept_on_emulators import on_emulators
from harness.errors import InputError

_say = progress_printer("fuzz")

QUIET_SECONDS = 10
"""How often a status line is written to what is no terminal."""

EPILOG = """\
examples:
  shadowfuzz fuzz --seconds 60 --jobs 2
      a minute on the default target; each worker has a VM of its own and needs a core
  shadowfuzz fuzz --target kvm-vhe --out out/vhe --json > summary.json
      another target, the summary as one JSON object (its keys: fuzz/campaign/summary.py)
  shadowfuzz fuzz --deterministic --seed 1 --out out/new
      from an empty directory: the same scenarios and the same exits in the same order, in every run
  shadowfuzz fuzz --kernel ./Image --level kernel
      a kernel image of your own, compared with the level that is deployed
  shadowfuzz fuzz --target kvm-nvhe --against kvm-nvhe@6.12.117 --out out/against
      release against release: every scenario on both, each compared with the model, and the two with each other;
      intended changes are rows of corpus/known/releases.toml, all else is a divergence of relation against
  shadowfuzz fuzz --seconds 3600 --accept-kept --out out/nightly
      for a nightly run: status 0 as long as nothing is new

what is in --out afterwards (call again with the same directory to go on from there):
  corpus/                 scenarios that reached something new, readable
  findings.db             findings and runs, written before the campaign goes on; `shadowfuzz findings` reads it
  findings/<kind>-<id>/   written from it at the end: scenario.scn, finding.json, count, trace.json for each cluster;
                          kind is divergence, crash, alarm or internal
  flaky/                  likewise, divergences and alarms that did not come back when the scenario was run again
  dumps/<kind>-<id>/      memory of lost machines: the newest three of each crash, 1 GiB in all
  run/                    the workers' logs and counters of the last campaign

a divergence that the catalogue (corpus/known) does not explain is run again in the same VM and in a fresh one, and is
a finding if it comes back both times.  `shadowfuzz replay` shows it side by side; the summary has the command.  With
--emulators all new ones are tried on other -cpu models and versions of QEMU at the end, if another QEMU is here
(`shadowfuzz setup --emulators`); that takes some seconds a model.  `shadowfuzz triage` does it, too.
An alarm is a problem that the target's own kernel reported (a WARN, its lock checker, a stall, a taint).  It is a
finding if fresh machines show it again, after the scenario alone or after those that ran before it, else it is flaky.
A cluster is called new, or like a kept regression (corpus/regressions/expected.toml): one that shows the same relation,
register class, exit class and helper on this target (corpus/crashes: ended it in this function).  Where the kept one
has a rule (harness/relations/errata.py), what the rule does not predict bit for bit is a cluster of its own, "another
cause", and new; elsewhere the cause may still be another one.  All are findings.
Ctrl-C ends a campaign early, with its summary.  A machine that is lost is a finding of kind crash,
with its registers and memory; its last scenarios are tried in fresh machines, and the campaign goes on.  A worker gives
up (and the campaign ends) when machines are lost five times in a row and do not run the simplest scenario either.

exit status: 0 nothing unexplained, 1 an alarm, or an unexplained divergence (with --accept-kept only if it is new), 2
bad usage or input, 3 the target was lost (even if it came back; with --accept-kept only in a new way), something is
missing here, or a finding could not be written
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``fuzz``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "fuzz",
        help="search for scenarios in which real KVM and the model differ",
        description="Run mutated scenarios on real KVM and compare every world switch with the model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=60.0,
        metavar="N",
        help="how long to fuzz after the first VM is up (default: 60)",
    )
    add_number(parser, "--jobs", None, f"workers, a VM each (here: {default_jobs()})", most=MAX_JOBS)
    add_subject(parser)
    add_cold(parser)
    add_deterministic(parser)
    add_hyp_copy(parser)
    add_against(parser)
    parser.add_argument(
        "--coverage",
        choices=MODES,
        help="what guides the search: decisions of the model, edges of KVM's own code, or both (both, if gcc compiles)",
    )
    add_number(parser, "--seed", None, "of the random numbers (any; the summary names it)", 0, MAX_SEED)
    add_campaign(parser)
    parser.add_argument(
        "--emulators", action="store_true", help="at the end, run findings on other -cpu models and QEMU versions"
    )
    parser.add_argument(
        "--accept-kept", action="store_true", help="exit status 1 only for what is new: like no kept regression"
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")
    parser.add_argument("-v", "--verbose", action="store_true", help="every count and every cluster, not one screen")
    parser.set_defaults(run=run_fuzz)


def run_fuzz(args: argparse.Namespace) -> int:
    """Run a campaign and print its summary; errors are raised for the caller to show."""
    plan = LivePlan(
        *(targets_of(args), args.seconds, args.out, args.jobs, args.seed, args.store, args.coverage, args.accept_kept),
        program=program(),
    )
    afterwards = on_emulators(plan.targets, _say) if args.emulators else None
    summary = run_live_campaign(plan, _Status(sys.stderr), _say, afterwards)
    document = json.dumps(summary.to_json(), indent=2)
    try:
        write_whole(args.out / SUMMARY, f"{document}\n")
    except InputError as error:
        _say(str(error))  # what was found is in the database, and is shown
    if args.json:
        print(document, flush=True)
    else:
        print(all_counts(summary) if args.verbose else screen(summary), flush=True)
    return summary.exit_status


class _Status:
    """The live line: rewritten in place on a terminal, a new line now and then elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._ticks = 0

    def tick(self, line: str) -> None:
        """Show how the campaign stands; called about once a second."""
        if self._terminal:
            width = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[K{line[: width - 1]}")
        elif self._ticks % QUIET_SECONDS == 0 and self._ticks:
            self._write(f"{line}\n")
        self._ticks += 1

    def clear(self) -> None:
        """Leave the terminal's line empty for what follows."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _write(self, what: str) -> None:
        try:
            self._stream.write(what)
            self._stream.flush()
        except OSError:
            self._terminal, self._ticks = False, -(1 << 62)  # not read any more: no reason to stop
