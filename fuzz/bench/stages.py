# SPDX-License-Identifier: Apache-2.0
"""Measure each part of a checked exit alone, over the same scenarios and their recorded traces.

The measure is CPU time of this process, the best of several rounds: other load on the machine can only slow a part
down.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fuzz.campaign.features import features
from fuzz.generate.mutator import custom_mutator, generate
from fuzz.targets.prepared_side import PreparedSide
from harness.model.memoised_replay import memoised_replay
from harness.model.prediction import Prediction
from harness.relations import save_restore
from harness.relations.evidence import predict_runs
from harness.relations.gic import GicMonitor
from harness.relations.host import compare_entry_state
from harness.scenario.agent_program import compile_scenario
from harness.scenario.code_layout import codes_of
from harness.scenario.requirements import uses_gic
from harness.scenario.scenario import Scenario, format_scenario, parse
from harness.trace.events import EXIT, Trace
from harness.trace.indexed import index_trace
from harness.trace.rounds import Round
from harness.vm.executor import Executor

SAMPLE = 60
"""Number of scenarios that are measured."""
ROUNDS = 3
LENGTHS: tuple[int, ...] = (5, 10, 25, 50, 100, 200)
EACH_LENGTH = 20


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """Scenarios of ``steps`` steps: exits per scenario; wall microseconds per exit of one worker, bare and checked."""

    steps: int
    exits: float
    raw_us: float
    checked_us: float


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A scenario, the bytes of its recording, and the decoded trace."""

    scenario: Scenario
    area: bytes
    trace: Trace


def _record(executor: Executor, scenarios: Iterable[Scenario]) -> list[_Recorded]:
    found: list[_Recorded] = []
    for scenario in scenarios:
        executor.run_bare(scenario, fresh_vm=False, record=True)
        area = executor.recorded()
        found.append(_Recorded(scenario, area, executor.decode(area)))
    return found


def _exits(recorded: Iterable[_Recorded]) -> int:
    return sum(event.kind == EXIT for one in recorded for event in one.trace.events)


def _us(work: Callable[[], object], exits: int) -> float:
    """Return the CPU microseconds per exit of doing ``work`` once."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return 1e6 * best / max(1, exits)


def measure_stages(side: PreparedSide, executor: Executor, scenarios: list[Scenario]) -> dict[str, float]:
    """Return CPU microseconds per exit of each part of the worker's own work, in the order of execution."""
    recorded = _record(executor, scenarios[:SAMPLE])
    exits, rng = _exits(recorded), random.Random(1)
    texts = [format_scenario(one.scenario).encode() for one in recorded]
    checked = [(one.trace, side.check(one.scenario, one.trace)) for one in recorded]
    rounds = [round_ for one in recorded for round_ in index_trace(one.trace).rounds]
    predict = memoised_replay(side.subject.level)

    def mutate() -> None:
        for text in texts:
            parse(custom_mutator(text, len(text) + 400, rng.getrandbits(32)))

    parts: dict[str, Callable[[], object]] = {
        "mutate": mutate,
        "compile": lambda: [compile_scenario(one.scenario, fresh_vm=False) for one in recorded],
        "decode": lambda: [executor.decode(one.area) for one in recorded],
        "model": lambda: [predict(round_) for round_ in rounds],
        "check": lambda: [side.check(one.scenario, one.trace) for one in recorded],
        "features": lambda: [features(trace, found) for trace, found in checked],
    }
    found = {name: _us(part, exits) for name, part in parts.items()}
    # The check includes the replay on the model.
    found["compare"] = max(0.0, found.pop("check") - found["model"])
    return {name: found[name] for name in ("mutate", "compile", "decode", "model", "compare", "features")}


def measure_relations(side: PreparedSide, executor: Executor, scenarios: list[Scenario]) -> dict[str, float]:
    """Return CPU microseconds per exit of decoding and comparing, with one more relation in each row."""
    recorded = _record(executor, scenarios[:SAMPLE])
    exits, predict = _exits(recorded), memoised_replay(side.subject.level)

    def decode() -> None:
        for one in recorded:
            executor.decode(one.area)

    def switch() -> None:
        for one in recorded:
            watch = GicMonitor(one.trace.lists) if uses_gic(one.scenario) else None
            for _ in predict_runs(index_trace(one.trace), codes_of(one.scenario), side.cpu, watch):
                pass

    def host() -> None:
        for one in recorded:
            for round_ in index_trace(one.trace).rounds:
                list(compare_entry_state(round_, {}))

    def model() -> None:
        for one in recorded:
            for round_ in index_trace(one.trace).rounds:
                _judge(side, round_, predict(round_))

    total, found = 0.0, {}
    for name, work in (("none", decode), ("+ switch", switch), ("+ host", host), ("+ save, restore", model)):
        total += _us(work, exits)
        found[name] = total
    return found


def _judge(side: PreparedSide, round_: Round, prediction: Prediction) -> None:
    divergences = list(save_restore.compare_round(round_, prediction))
    if divergences:
        explain = side.catalogue.explainer(round_, prediction, {})
        for divergence in divergences:
            explain(divergence)


def measure_lengths(side: PreparedSide, executor: Executor, seed: int, seconds: float) -> tuple[LengthPoint, ...]:
    """Measure scenarios of each length of :data:`LENGTHS`, bare and checked, for ``seconds`` each."""
    rng = random.Random(seed)
    steps = [step for _ in range(EACH_LENGTH * 4) for step in generate(rng).steps]
    registers = generate(rng).registers

    def checked(scenario: Scenario) -> None:
        side.check(scenario, executor.run(scenario, fresh_vm=False))

    points: list[LengthPoint] = []
    for length in LENGTHS:
        starts = [int(rng.random() * (len(steps) - length)) for _ in range(EACH_LENGTH)]
        cut = [Scenario("Made by the benchmark.", registers, tuple(steps[at : at + length])) for at in starts]
        raw = _wall_us(executor, cut, lambda s: executor.run_bare(s, fresh_vm=False, record=False), seconds)
        full = _wall_us(executor, cut, checked, seconds)
        points.append(LengthPoint(length, raw[1], raw[0], full[0]))
    return tuple(points)


def _wall_us(
    executor: Executor, scenarios: list[Scenario], step: Callable[[Scenario], None], seconds: float
) -> tuple[float, float]:
    """Return wall microseconds per exit, and exits per scenario."""
    exits, begin, count = executor.exits, time.monotonic(), 0
    while time.monotonic() - begin < seconds or count < len(scenarios):
        step(scenarios[count % len(scenarios)])
        count += 1
    done = max(1, executor.exits - exits)
    return 1e6 * (time.monotonic() - begin) / done, done / count
