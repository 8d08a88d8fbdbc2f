# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz fuzz``: a campaign against real KVM."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from fuzz.campaign.guidance import MODES, choose
from fuzz.campaign.parent import Plan, Progress, campaign_directory, run_campaign, until_signal
from fuzz.campaign.status_line import NewClusterCounter, status_line
from fuzz.campaign.summary import CampaignOptions, summarise, text
from fuzz.campaign.worker_job import Launcher
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
from fuzz.cli.progress import progress_printer
from fuzz.paths import CRASHES, KEPT, SEEDS
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.store.runs import SAMPLE_SECONDS, History
from fuzz.targets.emulators import emulators_here
from fuzz.targets.target_set import open_targets
from fuzz.triage.kept_on_emulators import measure_kept
from fuzz.triage.other_emulators import EmulatorSweep
from harness.errors import InputError
from harness.findings.regressions import load_regressions
from harness.report.campaign_data import Sample
from harness.vm.target import has_protected_vms

_say = progress_printer("fuzz")

MAX_JOBS = 64
QUIET_SECONDS = 10
"""How often a status line is written to what is no terminal."""

EPILOG = """\
examples:
  shadowfuzz fuzz --seconds 60 --jobs 2
      a minute on the default target; each worker has a VM of its own and wants a core
  shadowfuzz fuzz --target kvm-vhe --out out/vhe --json > summary.json
      another target, the summary as one JSON object (its keys: fuzz/campaign/summary.py)
  shadowfuzz fuzz --deterministic --seed 1 --out out/new
      from an empty directory: the same scenarios and the same exits in the same order, whenever it is run
  shadowfuzz fuzz --kernel ./Image --level kernel
      a kernel image of your own, compared with the level that is deployed
  shadowfuzz fuzz --target kvm-nvhe --against kvm-nvhe@6.12.117 --out out/against
      release against release: every scenario on both, each compared with the model, and the two with each other;
      what was meant to change is rows of corpus/known/releases.toml, all else a divergence of relation against
  shadowfuzz fuzz --seconds 3600 --accept-kept --out out/nightly
      every night: status 0 as long as nothing is new

what is in --out afterwards (call again with the same directory to go on from there):
  corpus/                 scenarios that reached something new, readable
  findings.db             findings and runs, written before the campaign goes on; `shadowfuzz findings` reads it
  findings/<kind>-<id>/   written from it at the end: scenario.scn, finding.json, count, trace.json for each cluster;
                          kind is divergence, crash or internal
  flaky/                  likewise, divergences that did not come back when the scenario was run again
  dumps/<kind>-<id>/      memory of lost machines: the newest three of each crash, 1 GiB in all
  run/                    the workers' logs and counters of the last campaign

a divergence that the catalogue (corpus/known) does not explain is run again in the same VM and in a fresh one, and is
a finding if it comes back both times.  `shadowfuzz replay` shows it side by side; the summary has the command.  With
--emulators all new ones are tried on other -cpu models and versions of QEMU at the end, if another QEMU is here
(`shadowfuzz setup --emulators`); that takes some seconds a model.  `shadowfuzz triage` does it, too.
A cluster is called new, or like a kept regression (corpus/regressions/expected.toml): one that shows the same relation,
register class, exit class and helper on this target (corpus/crashes: ended it in this function).  The cause may be
another one; both are findings.
Ctrl-C ends a campaign early, in order and with its summary.  A machine that is lost is a finding of kind crash,
with its registers and memory; its last scenarios are tried in fresh machines, and the campaign goes on.  A worker gives
up (and the campaign ends) when machines are lost five times in a row and do not even run the plainest scenario.

exit status: 0 nothing unexplained, 1 an unexplained divergence (with --accept-kept only if it is new), 2 bad usage or
input, 3 the target was lost (even if it came back; with --accept-kept only in a new way), something is missing here, or
a finding could not be written
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
        "--seconds", type=seconds, default=60.0, metavar="N", help="fuzz so long once the first VM is up (60)"
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
        "--emulators", action="store_true", help="at the end, try what was found on other -cpu models and QEMUs"
    )
    parser.add_argument(
        "--accept-kept", action="store_true", help="exit status 1 only for what is new: like no kept regression"
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")
    parser.set_defaults(run=run_fuzz)


def default_jobs() -> int:
    """Return how many workers a campaign has if nobody says: one a core."""
    return min(MAX_JOBS, os.cpu_count() or 1)


def run_fuzz(args: argparse.Namespace) -> int:
    """Run a campaign and print its summary; errors are raised for the caller to show."""
    started = time.monotonic()
    jobs = args.jobs or (1 if args.deterministic else default_jobs())
    if args.deterministic and jobs > 1:
        raise InputError("--jobs", None, "a deterministic campaign has one worker: two find things in no set order")
    kept = load_regressions(KEPT, CRASHES)
    given = targets_of(args)
    targets = open_targets(given, _say)
    options = replace(given, kernel=None if args.kernel is None else args.kernel.resolve())
    out = args.out.absolute()
    seed = args.seed if args.seed is not None else secrets.randbits(32)
    url = args.store or default_url(out)
    guide = choose(args.coverage, targets.sides[0].prepared, _say)
    coverage = guide.mode
    asked = CampaignOptions(
        *(targets.subjects, options.names, options.kernel, seed, jobs, args.out, started, url),
        coverage,
        args.accept_kept,
        guide.kvm_off,
    )
    launch = Launcher(options, seed, out, url, coverage)

    show = _Status(sys.stderr)
    protected = all(has_protected_vms(side.config.mode, side.prepared.kernel_release) for side in targets.sides)
    with campaign_directory(out, SEEDS, protected=protected):
        database = Database(url)
        told = {**asdict(asked.subject), "against": args.against, "seed": seed, "jobs": asked.jobs, "guide": coverage}
        diary, news = _Diary(History(database), told), NewClusterCounter(Store(database, FINDINGS), kept)

        def tick(progress: Progress) -> None:
            show.tick(status_line(progress, news.count(progress.stats.group("unexplained"))))
            diary.tick(progress)

        with until_signal() as stopped:
            outcome = run_campaign(Plan(args.seconds, asked.jobs, out), launch, tick, stopped)
        show.clear()
        if args.emulators and not (outcome.interrupted or outcome.failure):
            sweep = EmulatorSweep(
                targets.sides[0].config, replace(options, deterministic=False, hyp_copy=targets.has_hyp_copy)
            )
            here = emulators_here()
            with suppress(InputError, OSError):  # a database that cannot be read or written: the summary says so
                measure_kept(database, asked.subject, sweep, here, _say)
        summary = summarise(asked, outcome, kept, _export(database, out))
        diary.end(summary.to_json())
    print(json.dumps(summary.to_json(), indent=2) if args.json else text(summary), flush=True)
    return summary.exit_status


def _export(database: Database, out: Path) -> dict[str, int]:
    """Write the directories; return why they could not be written, if so: the database has all that is in them."""
    failed: dict[str, int] = {}
    for shelf in (FINDINGS, FLAKY):
        try:
            Store(database, shelf).export(out / shelf)
        except OSError as error:
            failed[f"{out / shelf}: {error.strerror or error}"] = 1
    return failed


class _Diary:
    """The run in the database; that it cannot be written is no reason to stop."""

    def __init__(self, history: History, asked: dict[str, object]) -> None:
        self._history = history
        self._run = history.begin(datetime.now(UTC).isoformat(timespec="seconds"), asked)
        self._next = 0.0

    def tick(self, progress: Progress) -> None:
        """Note how the campaign stands, now and then."""
        if progress.seconds < self._next or not progress.seconds:
            return
        self._next = progress.seconds + SAMPLE_SECONDS
        stats = progress.stats
        scenarios, checked = stats.get("count", "scenarios"), stats.get("count", "checked_exits")
        sample = Sample(int(progress.seconds), scenarios, checked, stats.coverage, len(stats.group("unexplained")))
        with suppress(OSError):
            self._history.sample(self._run, sample)

    def end(self, summary: dict[str, object]) -> None:
        """Note how it ended."""
        with suppress(OSError):
            self._history.end(self._run, summary)


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
            self._terminal, self._ticks = False, -(1 << 62)  # nobody reads it: no reason to stop
