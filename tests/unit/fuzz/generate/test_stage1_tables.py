# SPDX-License-Identifier: Apache-2.0
"""Stage-1 tables that the mutator makes: most lead somewhere, and stay whole while they are used."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest

from fuzz.generate import stage1_tables
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import NAMES
from harness.guest.memory import Memory
from harness.guest.stage1 import Mapped, Outside, Refused, Use, translate
from harness.scenario.scenario import Step


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
