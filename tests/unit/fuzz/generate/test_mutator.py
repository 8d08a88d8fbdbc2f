# SPDX-License-Identifier: Apache-2.0
"""The mutator: always valid, always the same for the same seed, and able to reach every kind of step."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.generate import idioms, stage1_tables, values
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
from harness.arch.cpu_models import cpu_model
from harness.arch.exits import SMCCC_FUNCTIONS
from harness.arch.registers import MASK64, NAMES
from harness.guest.memory import Memory
from harness.guest.stage1 import Mapped, Outside, Refused, Use, translate
from harness.layout import CODE, DATA, HOLE, MMIO, REGIONS, VECTORS
from harness.scenario.scenario import Scenario, Step, format_scenario, parse
from harness.scenario.steps import INITIAL_NAMES, KINDS, SET_NAMES, Actor

SEEDS = st.integers(0, 2**32)
SHORT = Scenario("One trap.", (), (Step("wfi"),))


def check(scenario: Scenario) -> None:
    assert parse(format_scenario(scenario)) == scenario
    assert MIN_STEPS <= len(scenario.steps) <= MAX_LENGTH
    assert KINDS[scenario.steps[0].kind].side is Actor.GUEST


def lineage(seed: int, length: int) -> Iterator[Scenario]:
    """A generated scenario, and mutants of mutants of it."""
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
def test_short_and_empty_parents_are_fine(seed: int) -> None:
    empty = Scenario("Nothing.", (), ())
    for parent in (SHORT, empty):
        check(mutate(parent, Random(seed)))
        check(crossover(parent, empty, Random(seed)))
        check(crossover(empty, parent, Random(seed)))


@pytest.mark.parametrize("move", MOVES.items, ids=lambda m: m.__name__)
def test_every_move_changes_something_and_breaks_nothing(move: object) -> None:
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


def test_every_move_survives_one_step() -> None:
    for move in MOVES.items:
        for seed in range(50):
            move(Random(seed), [Step("wfi")], {})


@pytest.mark.parametrize("idiom", idioms.IDIOMS.items, ids=lambda i: i.__name__)
def test_idioms_are_reached_and_valid(idiom: idioms.Idiom) -> None:
    rng = Random(1)
    assert idiom in {idioms.IDIOMS.pick(rng) for _ in range(1000)}
    for seed in range(300):
        steps = idiom(Random(seed), [])
        assert steps
        scenario = Scenario("An idiom.", (), tuple(steps))
        assert parse(format_scenario(scenario)) == scenario


def test_a_forged_exit_is_of_any_class_but_two() -> None:
    steps = [step for seed in range(3000) for step in idioms.forged_exit(Random(seed), [])]
    forged = [step.args[1] for step in steps if step.kind == "forge" and step.args[0] == "esr"]
    assert {int(value) >> 26 for value in forged} == set(range(64)) - {0x04, 0x25}, (
        "which end the host (corpus/crashes)"
    )


def test_everything_that_a_scenario_can_hold_is_reached() -> None:
    scenarios = [s for seed in range(400) for s in lineage(seed, 3)]
    steps = [step for s in scenarios for step in s.steps]
    assert {step.kind for step in steps} == set(KINDS)
    assert {step.args[0] for step in steps if step.kind == "set"} == set(SET_NAMES)
    assert {name for s in scenarios for name, _ in s.registers} == set(INITIAL_NAMES)
    used = {(step.kind, step.args[0]) for step in steps if KINDS[step.kind].forms}
    assert {(f.mnemonic, target) for f in ACCESS_FORMS for target in (f.targets[31],)} <= used
    written = {step.args[1] for step in steps if step.kind == "set"}
    assert {f.fid for f in SMCCC_FUNCTIONS} <= written


def test_what_makes_a_scenario_worth_running() -> None:
    kinds = Counter(step.kind for seed in range(300) for step in generate(Random(seed)).steps)
    guest = sum(n for kind, n in kinds.items() if KINDS[kind].side is Actor.GUEST)
    assert guest * 2 > kinds.total()  # each guest step is an exit; a host step is none


def test_first_touch_takes_a_page_that_nothing_points_to() -> None:
    pages = range(DATA.base, DATA.end, idioms.PAGE)
    before = [Step("set", ("x1", page + 8)) for page in pages if page != pages[5]]
    for seed in range(50):
        pointer, step = idioms.first_touch(Random(seed), before)
        address = int(pointer.args[1]) + (int(step.args[2]) if len(step.args) == 3 else 0)
        assert address & MASK64 & -idioms.PAGE == pages[5]
    everything = [Step("set", ("x1", page)) for page in pages]
    assert idioms.first_touch(Random(0), everything)


def test_values() -> None:
    rng = Random(7)
    addresses = [values.address(rng) for _ in range(5000)]
    for region in REGIONS:
        assert any(a in region for a in addresses), region.name
    for region in (MMIO, HOLE, DATA):
        inside = [a for a in addresses if a in region]
        assert {region.base, region.end - 8} <= set(inside)
        assert 0.8 < sum(a % 8 == 0 for a in inside) / len(inside) < 1
    assert not any(values.fetch_address(rng) in r for r in (CODE, VECTORS, DATA) for _ in range(500))
    assert not any(values.pc(rng) in CODE for _ in range(2000))
    assert {values.pstate(rng) & 0xF for _ in range(500)} == {0, 4, 5}
    assert sum(values.sctlr(rng) & 1 for _ in range(2000)) < 100
    vbars = [values.vbar(rng) for _ in range(1000)]
    assert all(v in VECTORS and v % 0x800 == 0 for v in vbars)
    assert vbars.count(VECTORS.base) > 900
    for name in SET_NAMES:
        assert all(0 <= values.register_value(rng, name) <= MASK64 for _ in range(100))


@given(st.binary(max_size=200), SEEDS)
def test_bytes_that_are_no_scenario_give_one(data: bytes, seed: int) -> None:
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


def test_deterministic_in_this_process_and_in_others() -> None:
    program = "from tests.unit.fuzz.generate.test_mutator import _digest; print(_digest())"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == _digest()


def test_tables_of_both_granules_lead_somewhere() -> None:
    """What the idiom writes is a walk that ends: on pages of 4 KiB and of 64 KiB, neither one only at faults."""
    ends: dict[bool, set[type]] = {False: set(), True: set()}
    for seed in range(400):
        rng = Random(seed)
        steps = stage1_tables.turn_on(rng)
        entries, virtual = stage1_tables.shape(rng, steps)
        memory = Memory()
        registers = dict.fromkeys(NAMES, 0) | {"pstate": 0x3C5}
        for step in (*steps, *entries):
            if step.kind == "write":
                memory.write(*cast(tuple[int, int], step.args))
            else:
                registers[str(step.args[0])] = int(step.args[1])
        state = tuple(registers[name] for name in NAMES)
        ends[stage1_tables.is_large(steps)].add(
            type(translate(state, memory, virtual, Use.READ, cpu_model("cortex-a72")))
        )
    assert all({Mapped, Refused, Outside} <= found for found in ends.values()), ends


@pytest.mark.parametrize("lost", ["ttbr0_el1", "tcr_el1"])
def test_translation_mostly_stays_off_where_half_of_its_set_up_is_gone(lost: str) -> None:
    whole = stage1_tables.turn_on(Random(1))
    assert _left_on(whole) == 100
    assert 0 < _left_on([step for step in whole if step.args[0] != lost]) < 30
    assert 0 < _left_on([*whole, Step("reset", ()), whole[-1]]) < 30


def test_what_translation_needs_mostly_stays_while_it_is_on() -> None:
    kept = 0
    for seed in range(100):
        steps = [*stage1_tables.turn_on(Random(1)), Step("set", ("tcr_el1", 0x880))]
        stage1_tables.tame(Random(seed), steps)
        kept += steps[-1].args[1] == 0x880
    assert 0 < kept < 30


def _left_on(steps: list[Step]) -> int:
    """In how many of 100 tries the last write of SCTLR_EL1 turns translation on."""
    count = 0
    for seed in range(100):
        tamed = list(steps)
        stage1_tables.tame(Random(seed), tamed)
        (*_, last) = (step.args[1] for step in tamed if step.args[:1] == ("sctlr_el1",))
        count += int(last) & 1
    return count
