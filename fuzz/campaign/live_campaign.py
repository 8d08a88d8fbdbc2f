# SPDX-License-Identifier: Apache-2.0
"""Run a campaign against real KVM: prepare the target, run the workers, store the progress, summarise."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from fuzz.campaign.campaign_results import CampaignOptions
from fuzz.campaign.engine import require_engine
from fuzz.campaign.guidance import choose_guide
from fuzz.campaign.limits import default_jobs
from fuzz.campaign.parent import Plan, Progress, campaign_directory, run_campaign, until_signal
from fuzz.campaign.status_line import NewClusterCounter, status_line
from fuzz.campaign.summary import Summary, summarise
from fuzz.campaign.worker_job import Launcher
from fuzz.paths import SEEDS
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.store.kept_findings import kept_rows
from fuzz.store.runs import SAMPLE_SECONDS, History
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from harness.errors import InputError
from harness.report.campaign_data import Sample
from harness.vm.qemu_versions import installed
from harness.vm.target import has_protected_vms


@dataclass(frozen=True, slots=True)
class LivePlan:
    """The options of a campaign; None: the best value that this machine supports, or a default.

    ``seconds`` count from the first worker that is ready.  ``out`` is the campaign's directory and ``store`` the URL of
    its database (None: in that directory).  ``coverage`` guides it (:data:`fuzz.campaign.limits.MODES`).  ``program``
    is the name by which this program was called.  ``corpus`` are the directories of the initial scenarios, which may be
    empty.
    """

    targets: TargetOptions
    seconds: float
    out: Path
    jobs: int | None = None
    seed: int | None = None
    store: str | None = None
    coverage: str | None = None
    accept_kept: bool = False
    program: str = "shadowfuzz"
    corpus: tuple[Path, ...] = SEEDS

    @property
    def given_corpus(self) -> bool:
        """Whether it is to start from other scenarios than the project's."""
        return self.corpus != SEEDS

    @property
    def workers(self) -> int:
        """Return the number of workers.  InputError: several, for a deterministic campaign."""
        jobs = self.jobs or (1 if self.targets.deterministic else default_jobs())
        if self.targets.deterministic and jobs > 1:
            raise InputError("--jobs", None, "a deterministic campaign has one worker: two find things in no set order")
        return jobs


class Display(Protocol):
    """Shows the status of a running campaign."""

    def tick(self, line: str) -> None:
        """Show a line; called about once a second."""
        ...

    def clear(self) -> None:
        """Remove the line."""
        ...


Afterwards = Callable[[Database, PreparedTargets], None]
"""Processes the findings at the end, before the summary."""


def run_live_campaign(
    plan: LivePlan, display: Display, progress: Callable[[str], None], afterwards: Afterwards | None = None
) -> Summary:
    """Run a campaign.  InputError, SetupError: a name or the set-up is wrong; no worker was started.

    ``afterwards`` is called unless the campaign was interrupted or failed; its write errors do not make the campaign
    fail.
    """
    require_engine()
    started, jobs = time.monotonic(), plan.workers
    for directory in plan.corpus:
        if not directory.is_dir():
            raise InputError(str(directory), None, "no directory: expected one of scenarios, which may be empty")
    kept = kept_rows()
    targets = open_targets(plan.targets, progress)
    kernel = plan.targets.kernel
    options = replace(plan.targets, kernel=None if kernel is None else kernel.resolve())
    out = plan.out.absolute()
    seed = plan.seed if plan.seed is not None else secrets.randbits(32)
    url = plan.store or default_url(out)
    guide = choose_guide(plan.coverage, targets.sides[0].prepared, progress)
    campaign_options = CampaignOptions(
        *(targets.subjects, options.names, options.kernel, seed, jobs, plan.out, started, url),
        *(guide.mode, plan.accept_kept, guide.kvm_off, plan.program),
        own_qemu=installed().version if targets.is_fast else "",
    )
    launch = Launcher(options, seed, out, url, guide.mode)
    protected = all(has_protected_vms(side.config.mode, side.prepared.kernel_release) for side in targets.sides)
    with campaign_directory(out, plan.corpus, protected=protected):
        database = Database(url)
        known = {"against": options.against, "seed": seed, "jobs": jobs, "guide": guide.mode}
        diary = RunRecorder(History(database), {**asdict(campaign_options.subject), **known})
        new = NewClusterCounter(Store(database, FINDINGS), kept)

        def tick(now: Progress) -> None:
            display.tick(status_line(now, export_new(new, database, out, now)))
            diary.tick(now)

        with until_signal() as stopped:
            outcome = run_campaign(Plan(plan.seconds, jobs, out), launch, tick, stopped)
        display.clear()
        if afterwards is not None and not (outcome.interrupted or outcome.failure):
            with suppress(InputError, OSError):  # the summary reports a database that cannot be read or written
                afterwards(database, targets)
        summary = summarise(campaign_options, outcome, kept, export_found(database, out))
        diary.end(summary.to_json())
    return summary


def export_found(database: Database, out: Path) -> dict[str, int]:
    """Write the directories of all findings; return a count by error.

    The database has their contents, too.
    """
    failed: dict[str, int] = {}
    for shelf in (FINDINGS, FLAKY):
        try:
            Store(database, shelf).export(out / shelf)
        except OSError as error:
            failed[f"{out / shelf}: {error.strerror or error}"] = 1
        except InputError as error:
            failed[str(error)] = 1
    return failed


def export_new(counter: NewClusterCounter, database: Database, out: Path, now: Progress) -> int:
    """Write the directories of clusters that became new, and return how many are new in all.

    So the commands that readers print work while the campaign runs; what cannot be written now is written at its end.
    """
    clusters = now.stats.group("unexplained")
    if fresh := counter.add(clusters):
        with suppress(OSError):
            Store(database, FINDINGS).export(out / FINDINGS, fresh)
    return counter.count(clusters)


class RunRecorder:
    """Stores the run in the database, as ``id``; an error of the database does not stop the campaign."""

    def __init__(self, history: History, options: dict[str, object]) -> None:
        self._history = history
        self.id = history.begin(datetime.now(UTC).isoformat(timespec="seconds"), options)
        self._next = 0.0

    def tick(self, progress: Progress) -> None:
        """Store the campaign's progress from time to time."""
        if progress.seconds < self._next or not progress.seconds:
            return
        self._next = progress.seconds + SAMPLE_SECONDS
        stats = progress.stats
        scenarios, checked = stats.get("count", "scenarios"), stats.get("count", "checked_exits")
        sample = Sample(int(progress.seconds), scenarios, checked, stats.coverage, len(stats.group("unexplained")))
        with suppress(OSError):
            self._history.sample(self.id, sample)

    def end(self, summary: dict[str, object]) -> None:
        """Store the campaign's summary."""
        with suppress(OSError):
            self._history.end(self.id, summary)
