# SPDX-License-Identifier: Apache-2.0
"""Measure the same scenarios bare, recorded and checked, one mode after the other in one run.

Each worker is a process with a machine of its own, as in a campaign.  All workers run the same phase at the same time
and for the same duration, so that the ratios are comparable on any machine.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from fuzz.bench.checked_campaign import CheckedCampaign, cpu_seconds
from fuzz.bench.machines import measure_machines
from fuzz.bench.stages import LengthPoint, measure_lengths, measure_relations, measure_stages
from fuzz.campaign.gc_tuning import reduce_gc
from fuzz.generate.mutator import generate
from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import PreparedSide
from fuzz.targets.target_set import open_targets
from harness.errors import ShadowfuzzError, TargetError
from harness.scenario.scenario import Scenario
from harness.vm.executor import Executor

MODES: tuple[str, ...] = ("raw", "recorded", "checked")
SCENARIOS = 200
"""Number of generated scenarios, which are run in a loop."""
WARM_UP = 0.3
"""Warm-up before the first mode, as a share of a mode's seconds: findings of every campaign are confirmed in it."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure: ``seconds`` for each mode and number of workers; ``quick`` measures the modes only."""

    target: str
    level: str
    jobs: int
    seconds: float
    seed: int
    quick: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """What one worker did in one mode while ``workers`` workers ran that mode.

    ``exits`` are world switches; in mode ``checked``, exits whose round was compared.  ``cpu_seconds`` is the CPU time
    of this process, ``qemu_seconds`` that of its QEMU.
    """

    mode: str
    exits: int
    scenarios: int
    seconds: float
    cpu_seconds: float
    qemu_seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class BenchResult:
    """All samples of a run; of a value that each worker measures, the worst.

    ``start_s`` is the time from boot to ready; ``first_exit_s`` that from the start of the process to its first checked
    exit; memory is the resident MiB of a worker and of its QEMU.  ``stages`` and ``relations`` are microseconds per
    exit, by name; ``lengths`` has a point for each number of steps; ``machines`` is the result of
    :func:`fuzz.bench.machines.measure_machines`.
    """

    samples: tuple[Sample, ...]
    start_s: float
    first_exit_s: float
    memory_mib: float
    qemu_memory_mib: float
    stages: dict[str, float]
    relations: dict[str, float]
    lengths: tuple[LengthPoint, ...]
    machines: Mapping[str, float] = field(default_factory=dict)

    def of(self, mode: str, workers: int = 0) -> list[Sample]:
        """Return the samples of a mode with this number of workers at once, by default all of them."""
        workers = workers or max((s.workers for s in self.samples), default=0)
        return [s for s in self.samples if s.mode == mode and s.workers == workers]

    def rate(self, mode: str, workers: int = 0) -> float:
        """Return the exits per second of all workers together in a mode."""
        return sum(s.exits / s.seconds for s in self.of(mode, workers))

    def ratio(self, mode: str, workers: int = 0) -> float:
        """Return the rate of a mode divided by the raw rate."""
        raw = self.rate("raw", workers)
        return self.rate(mode, workers) / raw if raw else 0.0

    def us(self, mode: str) -> tuple[float, float]:
        """Return microseconds of CPU time per exit: of the worker, and of its QEMU."""
        exits = max(1, sum(s.exits for s in self.of(mode)))
        ours, qemu = (sum(getattr(s, name) for s in self.of(mode)) for name in ("cpu_seconds", "qemu_seconds"))
        return 1e6 * ours / exits, 1e6 * qemu / exits


def run_bench(plan: BenchPlan) -> BenchResult:
    """Run the benchmark once.  TargetError: a machine did not boot or was lost."""
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-bench-") as place:  # a worker is killed before it can clean up
        return _run(plan, Path(place))


def run_benches(
    plan: BenchPlan, runs: int, progress: Callable[[str], None]
) -> tuple[dict[str, object], list[BenchResult]]:
    """Run the benchmark ``runs`` times, each with other scenarios; all but the first are quick.

    InputError, SetupError: a name or the set-up is wrong.  TargetError: a machine did not boot or was lost.
    """
    (side,) = open_targets(TargetOptions(plan.target, plan.level, cold=True), progress).sides
    phases = len(MODES) * ((1 if plan.quick else plan.jobs) + runs - 1)
    progress(f"{phases} phases of {plan.seconds} s, {plan.jobs} workers on {side.config.name}")
    plans = [replace(plan, seed=plan.seed + run * plan.jobs, quick=plan.quick or run > 0) for run in range(runs)]
    named: dict[str, object] = {
        "target": side.config.name,
        "kernel_release": side.prepared.kernel_release,
        "level": plan.level,
        "jobs": plan.jobs,
        "seed": plan.seed,
    }
    return named, [run_bench(each) for each in plans]


def _run(plan: BenchPlan, place: Path) -> BenchResult:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(plan.jobs)
    pipes, workers = [], []
    for number in range(plan.jobs):
        ours, theirs = context.Pipe(duplex=False)
        own = place / str(number)
        own.mkdir()
        arguments = (plan, number, barrier, theirs, time.monotonic(), own)
        worker = context.Process(target=_worker, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    results: list[BenchResult] = []
    errors: list[str] = []
    try:
        for pipe in pipes:
            try:
                answer = pipe.recv()
            except EOFError:
                raise TargetError("a benchmark worker died") from None
            if isinstance(answer, str):
                errors.append(answer)
            else:
                results.append(answer)
    finally:
        for worker in workers:
            worker.kill()  # its QEMU dies with it
            worker.join()
    if errors:
        raise TargetError(next(filter(None, errors), "a benchmark worker gave up"))
    first = results[0]
    return BenchResult(
        tuple(sample for result in results for sample in result.samples),
        max(result.start_s for result in results),
        max(result.first_exit_s for result in results),
        max(result.memory_mib for result in results),
        max(result.qemu_memory_mib for result in results),
        first.stages,
        first.relations,
        first.lengths,
        first.machines,
    )


def _worker(plan: BenchPlan, number: int, barrier: Barrier, pipe: Connection, born: float, place: Path) -> None:
    try:
        pipe.send(_measure(plan, number, barrier, born, place))
    except ShadowfuzzError as error:
        barrier.abort()
        pipe.send(str(error))
    except BrokenBarrierError:
        pipe.send("")  # another worker reports the reason


def _measure(plan: BenchPlan, number: int, barrier: Barrier, born: float, place: Path) -> BenchResult:
    rng = random.Random(plan.seed + number)
    (side,) = open_targets(TargetOptions(plan.target, plan.level, cold=True)).sides
    begin = time.monotonic()
    with side.boot() as executor:
        started = time.monotonic()
        campaign = CheckedCampaign(side, executor, place, rng)
        while not campaign.first_exit_s:
            campaign.step(generate(rng))
        first = campaign.first_exit_s
        scenarios = campaign.scenarios = [generate(rng) for _ in range(SCENARIOS)]
        reduce_gc()
        warm = time.monotonic() + WARM_UP * plan.seconds
        while time.monotonic() < warm:
            campaign.step(rng.choice(scenarios))
        barrier.wait()
        samples = [
            sample
            for mode, workers in _phases(plan)
            for sample in _phase(mode, workers, number, campaign, barrier, plan.seconds)
        ]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        qemu_memory = _resident_mib(executor.pid)
        parts = _parts(plan, number, side, executor, scenarios)
        barrier.wait()  # until then the other machines must be idle, but running
    return BenchResult(tuple(samples), started - begin, first - born, memory, qemu_memory, *parts)


def _phases(plan: BenchPlan) -> list[tuple[str, int]]:
    """Return the phases: each mode with all workers; then with fewer, to measure how the rate scales."""
    fewer = [] if plan.quick else range(1, plan.jobs)
    return [(mode, workers) for workers in (plan.jobs, *fewer) for mode in MODES]


def _parts(
    plan: BenchPlan, number: int, side: PreparedSide, executor: Executor, scenarios: list[Scenario]
) -> tuple[dict[str, float], dict[str, float], tuple[LengthPoint, ...], Mapping[str, float]]:
    if number:
        return {}, {}, (), {}
    found = measure_stages(side, executor, scenarios)
    if plan.quick:
        return found, {}, (), {}
    points = measure_lengths(side, executor, plan.seed, plan.seconds / 10)
    return found, measure_relations(side, executor, scenarios), points, measure_machines(side, scenarios, plan.seconds)


def _phase(
    mode: str, workers: int, number: int, campaign: CheckedCampaign, barrier: Barrier, seconds: float
) -> list[Sample]:
    barrier.wait()
    found = [_sample(mode, workers, campaign, seconds)] if number < workers else []
    barrier.wait()
    return found


def _sample(mode: str, workers: int, campaign: CheckedCampaign, seconds: float) -> Sample:
    executor = campaign.executor
    steps: dict[str, Callable[[Scenario], None]] = {
        "raw": lambda scenario: executor.run_bare(scenario, fresh_vm=False, record=False),
        "recorded": lambda scenario: executor.run_bare(scenario, fresh_vm=False, record=True),
        "checked": campaign.step,
    }
    step, scenarios = steps[mode], campaign.scenarios
    executor.alarms()  # discard alarms of the previous phase: this phase must not try scenarios for them
    exits, count = _exits(mode, campaign), 0
    qemu, cpu, begin = cpu_seconds(executor.pid), time.process_time(), time.monotonic()
    while time.monotonic() - begin < seconds:
        step(scenarios[count % len(scenarios)])
        count += 1
    took = time.monotonic() - begin
    return Sample(
        mode,
        _exits(mode, campaign) - exits,
        count,
        took,
        time.process_time() - cpu,
        cpu_seconds(executor.pid) - qemu,
        workers,
    )


def _exits(mode: str, campaign: CheckedCampaign) -> int:
    return campaign.checked_exits if mode == "checked" else campaign.executor.exits


def _resident_mib(pid: int) -> float:
    """Return the resident memory of a process, shared pages included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
