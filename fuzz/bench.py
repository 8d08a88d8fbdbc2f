# SPDX-License-Identifier: Apache-2.0
"""The benchmark: the same scenarios bare, recorded and checked, one after the other in one run.

Each worker is a process with a machine of its own, as in a campaign.  All workers do one mode at a time and for the
same time, so that the ratios compare like with like, whatever the machine.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from fuzz.features import features
from fuzz.mutate import custom_mutator, generate
from harness.check import check
from harness.errors import ShadowfuzzError, TargetError
from harness.known import Catalogue
from harness.masks import cpu_model
from harness.scenario import Scenario, format_scenario, parse
from harness.vm.build import PreparedTarget
from harness.vm.config import MachineConfig
from harness.vm.executor import Executor
from harness.vm.target import boot

MODES: tuple[str, ...] = ("raw", "recorded", "checked")
SCENARIOS = 200
"""So many generated scenarios are run round and round."""
MAX_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: ``seconds`` for each mode and each worker."""

    config: MachineConfig
    prepared: PreparedTarget
    catalogue: Path
    level: str
    jobs: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What one worker did in one mode; CPU time is this process's, not QEMU's."""

    mode: str
    exits: int
    scenarios: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """All samples of a run; ``start_s`` is boot to ready, ``memory_mib`` the largest worker without QEMU."""

    samples: tuple[Sample, ...]
    start_s: float
    memory_mib: float

    def rate(self, mode: str) -> float:
        """Exits a second of all workers together in a mode."""
        return sum(s.exits / s.seconds for s in self.samples if s.mode == mode)

    def ratio(self, mode: str) -> float:
        """The rate of a mode over the raw rate."""
        raw = self.rate("raw")
        return self.rate(mode) / raw if raw else 0.0


def run_bench(plan: Plan) -> Result:
    """Measure.  TargetError: a machine did not boot or was lost."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(plan.jobs)
    pipes, workers = [], []
    for number in range(plan.jobs):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_worker, args=(plan, number, barrier, theirs), daemon=True)
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    results: list[Result] = []
    try:
        for pipe in pipes:
            try:
                answer = pipe.recv()
            except EOFError:
                raise TargetError("a benchmark worker died") from None
            if isinstance(answer, str):
                raise TargetError(answer)
            results.append(answer)
    finally:
        for worker in workers:
            worker.kill()  # its QEMU dies with it
            worker.join()
    return Result(
        tuple(sample for result in results for sample in result.samples),
        max(result.start_s for result in results),
        max(result.memory_mib for result in results),
    )


def _worker(plan: Plan, number: int, barrier: Barrier, pipe: Connection) -> None:
    try:
        pipe.send(_measure(plan, number, barrier))
    except ShadowfuzzError as error:
        barrier.abort()
        pipe.send(str(error))


def _measure(plan: Plan, number: int, barrier: Barrier) -> Result:
    rng = random.Random(plan.seed + number)
    scenarios = [generate(rng) for _ in range(SCENARIOS)]
    begin = time.monotonic()
    with boot(plan.config, plan.prepared) as executor:
        started = time.monotonic() - begin
        steps = _steps(plan, executor, rng)
        samples = []
        for mode in MODES:
            barrier.wait()
            samples.append(_sample(mode, steps[mode], scenarios, executor, plan.seconds))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Result(tuple(samples), started, memory)


def _steps(plan: Plan, executor: Executor, rng: random.Random) -> dict[str, Callable[[Scenario], None]]:
    """What each mode does with a scenario; ``checked`` is a campaign's whole path, its mutation included."""
    cpu, catalogue = cpu_model(plan.config.cpu), Catalogue.load(plan.catalogue, plan.level)

    def checked(scenario: Scenario) -> None:
        text = custom_mutator(format_scenario(scenario).encode(), MAX_BYTES, rng.getrandbits(32))
        mutant = parse(text)
        trace = executor.run(mutant, fresh_vm=False)
        features(trace, check(mutant, trace, plan.level, cpu, catalogue))

    return {
        "raw": lambda scenario: executor.run_bare(scenario, fresh_vm=False, record=False),
        "recorded": lambda scenario: executor.run_bare(scenario, fresh_vm=False, record=True),
        "checked": checked,
    }


def _sample(
    mode: str, step: Callable[[Scenario], None], scenarios: list[Scenario], executor: Executor, seconds: float
) -> Sample:
    exits, cpu, begin, count = executor.exits, time.process_time(), time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        step(scenarios[count % len(scenarios)])
        count += 1
    took = time.monotonic() - begin
    return Sample(mode, executor.exits - exits, count, took, time.process_time() - cpu)
