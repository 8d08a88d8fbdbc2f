# SPDX-License-Identifier: Apache-2.0
"""Run a corpus and mutants of it on targets, and count exercised steps and relations; two machines at a time."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fuzz.generate.mutator import mutate
from fuzz.targets.options import TargetOptions
from fuzz.targets.runner import MACHINES, MAX_LOSSES, run_to_end
from fuzz.targets.target_set import open_targets
from harness.coverage.exercised_rules import exercised_rules
from harness.coverage.exercised_steps import Exercise
from harness.errors import TargetError
from harness.findings.checked import Comparison
from harness.scenario.scenario import Scenario
from harness.trace.events import EXIT
from harness.trace.indexed import index_trace

ROUNDS = 3
"""Number of successive mutations of a mutant."""


@dataclass(frozen=True, slots=True)
class ExerciseWork:
    """The work of one machine: scenarios by their names, and ``mutants`` mutants of them, by a seed."""

    target: str
    level: str
    scenarios: tuple[tuple[str, Scenario], ...]
    mutants: int
    seed: int


def make_mutants(scenarios: Sequence[Scenario], count: int, seed: int) -> Iterator[Scenario]:
    """Yield ``count`` mutants of scenarios, the same ones for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        scenario = rng.choice(scenarios)
        for _ in range(ROUNDS):
            scenario = mutate(scenario, rng)
        yield scenario


def measure_exercise(work: ExerciseWork) -> dict[str, Any]:
    """Run all scenarios, each in a fresh KVM VM, and return the counts as plain data.

    SetupError, InputError: the target's name or the set-up is wrong.  TargetError: machines were lost repeatedly; a
    single loss is counted.
    """
    targets = open_targets(TargetOptions(work.target, work.level, cold=True))
    (side,) = targets.sides
    scenarios = [scenario for _, scenario in work.scenarios]
    made = [*work.scenarios, *(("", mutant) for mutant in make_mutants(scenarios, work.mutants, work.seed))]
    exercise, exits, lost, in_a_row = Exercise(), 0, 0, 0
    rules: dict[str, list[tuple[int, str]]] = {}
    waiting = list(reversed(made))
    with targets:
        while waiting:
            try:
                targets.start()
                name, scenario = waiting.pop()
                trace = run_to_end(targets, scenario)
            except TargetError:
                lost, in_a_row = lost + 1, in_a_row + 1
                if in_a_row >= MAX_LOSSES:
                    raise
                continue
            compared: list[Comparison] = []
            side.check(scenario, trace, compared.append)
            indexed = index_trace(trace)
            exercise.add(scenario, indexed, compared)
            for rule in exercised_rules(scenario, indexed, compared) if name else ():
                rules.setdefault(rule, []).append((len(scenario.steps), name))
            exits += sum(event.kind == EXIT for event in trace.events)
            in_a_row = 0
    return {
        "kernel_release": targets.subject.kernel_release,
        "level": work.level,
        "scenarios": len(made),
        "mutants": work.mutants,
        "seed": work.seed,
        "exits": exits,
        "lost": lost,
        "rules": {rule: {"scenarios": len(rules[rule]), "one": min(rules[rule])[1]} for rule in sorted(rules)},
        "places": exercise.to_json(),
    }


def measure_all(work: Sequence[ExerciseWork], done: Callable[[str, dict[str, Any]], None]) -> None:
    """Run machines in parallel, each in a process of its own; ``done`` gets the counts of each."""
    if len(work) == 1:
        done(work[0].target, measure_exercise(work[0]))
        return
    # Spawned: a fork of a process with threads (QMP's loop) may hang.
    with multiprocessing.get_context("spawn").Pool(min(MACHINES, len(work))) as pool:
        for one, counts in zip(work, pool.imap(measure_exercise, work), strict=True):
            done(one.target, counts)
