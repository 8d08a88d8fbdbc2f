# SPDX-License-Identifier: Apache-2.0
"""Run a worker process of the live campaign, in which atheris calls :mod:`fuzz.campaign.worker`.

``Fuzz()`` never returns, and a signal may end the process at any time: all results are in mapped files
(:mod:`fuzz.campaign.counters_file`) or on disk, and QEMU dies with this process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

import atheris

from fuzz.campaign.counters_file import COVERAGE_SIZE, StatsWriter
from fuzz.campaign.gc_tuning import reduce_gc
from fuzz.campaign.libfuzzer_counters import Counters
from fuzz.campaign.limits import BOTH, KVM, MODEL, RELOAD_SECONDS
from fuzz.campaign.offers import NewEdges, Offers
from fuzz.campaign.worker import GiveUp, Worker, WorkerContext
from fuzz.campaign.worker_job import WorkerJob
from fuzz.generate.mutator import custom_crossover, custom_mutator
from fuzz.store.database import Database
from fuzz.store.dumps import DUMPS, Dumps
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.store.shared_corpus import MAX_BYTES
from fuzz.targets.target_set import open_targets
from harness.errors import InputError, SetupError, ShadowfuzzError
from harness.vm.plugins.edges import EDGES
from harness.vm.plugins.kvm_coverage import prepare_coverage

EXIT_USAGE, EXIT_GAVE_UP = 2, 3
"""The worker failed and another one would fail in the same way; its statistics (group ``error``) have the reason."""


@dataclass(frozen=True, slots=True)
class Guides:
    """The counters that libFuzzer reads; None: it does not read these."""

    model: Counters | None
    kvm: Counters | None


def attach(coverage: str) -> Guides:
    """Register the counters of a mode with libFuzzer."""
    model = Counters(COVERAGE_SIZE) if coverage in (MODEL, BOTH) else None
    kvm = Counters(EDGES) if coverage in (KVM, BOTH) else None
    for counters in (model, kvm):
        if counters is not None:
            counters.attach()
    return Guides(model, kvm)


def context_of(job: WorkerJob, stats: StatsWriter, guides: Guides) -> WorkerContext:
    """Return the context of a worker on real targets.  InputError, SetupError: the job or the set-up is wrong."""
    dumps = Dumps(job.out / DUMPS)
    targets = open_targets(job.targets, _log)
    plugin = None if job.edges is None else prepare_coverage(targets.sides[0].prepared).plugin(job.edges)
    if guides.kvm is not None and plugin is None:
        raise SetupError("the hypervisor's edges guide the campaign, but the job names no file to count them in")

    def count_coverage(index: int) -> None:
        if guides.model is not None:
            guides.model.hit(index)

    def on_run() -> None:
        if guides.kvm is not None and plugin is not None:
            guides.kvm.fill(plugin.map.counters())

    database = Database(job.store)
    offers = {}
    if job.offers is not None:
        offers["offer"] = Offers(job.offers, frozenset if plugin is None else NewEdges(plugin.map))
    return WorkerContext(
        targets=targets.examined(dumps.new_path).watched_by(plugin),
        count_coverage=count_coverage,
        on_run=on_run,
        stats=stats,
        findings=Store(database, FINDINGS),
        flaky=Store(database, FLAKY),
        dumps=dumps,
        now=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        ticks=time.monotonic_ns,
        described=targets.described(),
        own_qemu=targets.on_own_qemu() if targets.is_fast else None,
        **offers,
    )


def _log(line: str) -> None:
    """Write a line to the worker's log, its standard output."""
    print(line, flush=True)


def libfuzzer_arguments(job: WorkerJob) -> list[str]:
    """Return the argv for libFuzzer."""
    return [
        # libFuzzer's modes with child processes pass this through a shell.
        job.command,
        f"-seed={job.seed % (1 << 32) or 1}",  # 0 would mean a random seed
        f"-max_len={MAX_BYTES}",
        "-len_control=0",  # the mutator knows how long a scenario should be
        "-reduce_inputs=0",  # a long scenario takes less time per exit than a short one
        # The findings of other workers are no function of the seed.
        f"-reload={0 if job.targets.deterministic else RELOAD_SECONDS}",
        "-timeout=120",
        "-rss_limit_mb=0",
        "-print_funcs=0",
        "-print_final_stats=0",
        # The campaign handles Ctrl-C; this process handles SIGTERM (see stop below).
        *("-handle_int=0", "-handle_term=0"),
        f"-artifact_prefix={job.stats.parent}/",
        str(job.out / "corpus"),
    ]


def load_custom_hooks() -> None:
    """Load atheris' mutator and crossover hooks, so that libFuzzer finds them.

    It searches them when its own library is loaded; :meth:`Counters.attach` does that before ``Setup``.
    """
    for name in ("atheris.custom_mutator", "atheris.custom_crossover"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SetupError(f"{name} is missing: this is not atheris 3; `make setup` installs it")
        ctypes.CDLL(spec.origin, ctypes.RTLD_GLOBAL)


class Target:
    """The function that libFuzzer calls, and the functions that end the process."""

    def __init__(self, worker: Worker, stats: StatsWriter) -> None:
        self._worker, self._stats = worker, stats
        self._stopping = False
        self._busy = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """End the process: at once between two inputs, else after the current input has been counted."""
        self._stopping = self._worker.ending = True
        if not self._busy:
            self.leave(0)

    def leave(self, status: int, error: str = "") -> None:
        """End the process and its machine, without the exit handlers of atheris and Python."""
        if error:
            self._stats.add("error", error)
        self._worker.close()
        os._exit(status)

    def __call__(self, data: bytes) -> None:
        """Run one input."""
        self._busy = True
        try:
            self._worker.run_input(data)
        except (GiveUp, ShadowfuzzError) as error:
            self.leave(EXIT_GAVE_UP, str(error))
        self._busy = False
        if self._stopping:
            self.leave(0)


def main(argv: list[str]) -> int:
    """Run the job that the one argument describes until a signal; returns only if it could not start."""
    try:
        if len(argv) != 1:
            raise InputError("worker", None, f"{len(argv)} arguments, expected one, a job as JSON")
        job = WorkerJob.from_json(argv[0])
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    if os.getppid() != job.parent:
        return EXIT_GAVE_UP  # the parent died before PR_SET_PDEATHSIG was set
    stats = StatsWriter(job.stats)
    load_custom_hooks()
    guides = attach(job.coverage)
    try:
        worker = Worker(context_of(job, stats, guides))
        worker.begin()
    except ShadowfuzzError as error:
        stats.add("error", str(error))
        return EXIT_GAVE_UP
    target = Target(worker, stats)
    reduce_gc()
    signal.signal(signal.SIGTERM, target.stop)  # until here SIGTERM ends the process, and with it QEMU
    atheris.Setup(
        libfuzzer_arguments(job),
        target,
        custom_mutator=custom_mutator,
        custom_crossover=custom_crossover,
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
