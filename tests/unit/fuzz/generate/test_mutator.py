# SPDX-License-Identifier: Apache-2.0
"""The mutator: its results are valid, deterministic for a seed, and have every kind of step."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.generate.mutator import (
    MAX_LENGTH,
    MIN_STEPS,
    MOVES,
    crossover,
    custom_crossover,
    custom_mutator,
    generate,
    mutate,
)
from harness.arch.a64 import ACCESS_FORMS
from harness.arch.exits import SMCCC_FUNCTIONS
from harness.scenario.scenario import Scenario, Step, format_scenario, parse
from harness.scenario.steps import INITIAL_NAMES, KINDS, SET_NAMES, Actor

SEEDS = st.integers(0, 2**32)
SHORT = Scenario("One trap.", (), (Step("wfi"),))


def check(scenario: Scenario) -> None:
    assert parse(format_scenario(scenario)) == scenario
    assert MIN_STEPS <= len(scenario.steps) <= MAX_LENGTH
    assert KINDS[scenario.steps[0].kind].side is Actor.GUEST


def lineage(seed: int, length: int) -> Iterator[Scenario]:
    """Yield a generated scenario, then repeated mutants of it."""
    rng = Random(seed)
    scenario = generate(rng)
    for _ in range(length):
        yield scenario
        scenario = mutate(scenario, rng)


@given(SEEDS)
def test_generated_scenarios_are_valid(seed: int) -> None:
    check(generate(Random(seed)))


@settings(max_examples=30)
@given(SEEDS)
def test_mutants_are_valid(seed: int) -> None:
    for scenario in lineage(seed, 100):
        check(scenario)


@given(SEEDS, SEEDS, SEEDS)
def test_crosses_are_valid(a: int, b: int, seed: int) -> None:
    check(crossover(generate(Random(a)), generate(Random(b)), Random(seed)))


@given(SEEDS)
def test_short_and_empty_parents_are_valid(seed: int) -> None:
    empty = Scenario("Nothing.", (), ())
    for parent in (SHORT, empty):
        check(mutate(parent, Random(seed)))
        check(crossover(parent, empty, Random(seed)))
        check(crossover(empty, parent, Random(seed)))


@pytest.mark.parametrize("move", MOVES.items, ids=lambda m: m.__name__)
def test_every_move_changes_the_scenario_and_keeps_it_valid(move: object) -> None:
    assert callable(move)
    changed = 0
    for seed in range(300):
        scenario = generate(Random(seed))
        steps, registers = list(scenario.steps), dict(scenario.registers)
        move(Random(seed), steps, registers)
        after = Scenario(scenario.about, tuple(registers.items()), tuple(steps))
        assert parse(format_scenario(after)) == after
        changed += after != scenario
    assert changed > 150


def test_every_move_works_on_one_step() -> None:
    for move in MOVES.items:
        for seed in range(50):
            move(Random(seed), [Step("wfi")], {})


def test_every_part_of_a_scenario_is_generated() -> None:
    scenarios = [s for seed in range(400) for s in lineage(seed, 3)]
    steps = [step for s in scenarios for step in s.steps]
    assert {step.kind for step in steps} == set(KINDS)
    assert {step.args[0] for step in steps if step.kind == "set"} == set(SET_NAMES)
    assert {name for s in scenarios for name, _ in s.registers} == set(INITIAL_NAMES)
    used = {(step.kind, step.args[0]) for step in steps if KINDS[step.kind].forms}
    assert {(f.mnemonic, target) for f in ACCESS_FORMS for target in (f.targets[31],)} <= used
    written = {step.args[1] for step in steps if step.kind == "set"}
    assert {f.fid for f in SMCCC_FUNCTIONS} <= written


def test_proportions_of_steps() -> None:
    kinds = Counter(step.kind for seed in range(300) for step in generate(Random(seed)).steps)
    guest = sum(n for kind, n in kinds.items() if KINDS[kind].side is Actor.GUEST)
    assert guest * 2 > kinds.total()  # each guest step causes an exit; a host step does not


@given(st.binary(max_size=200), SEEDS)
def test_invalid_input_gives_a_generated_scenario(data: bytes, seed: int) -> None:
    check(parse(custom_mutator(data, 1 << 16, seed)))
    check(parse(custom_crossover(data, data[::-1], 1 << 16, seed)))


@given(SEEDS, st.integers(0, 4000))
def test_size_limit(seed: int, size: int) -> None:
    data = format_scenario(generate(Random(seed))).encode()
    for out in (custom_mutator(data, size, seed), custom_crossover(data, data, size, seed)):
        assert len(out) <= size
        if size >= 100:
            parse(out)


def _digest() -> str:
    digest = hashlib.sha256()
    for seed in range(60):
        data = custom_mutator(b"", 1 << 16, seed)
        digest.update(custom_crossover(custom_mutator(data, 4000, seed), data, 4000, seed))
    return digest.hexdigest()


def test_deterministic_across_processes() -> None:
    program = "from tests.unit.fuzz.generate.test_mutator import _digest; print(_digest())"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == _digest()
