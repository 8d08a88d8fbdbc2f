# SPDX-License-Identifier: Apache-2.0
"""Stage-1 tables of the mutator: most entries translate, and the tables stay valid while stage 1 is enabled."""

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


def test_tables_of_both_granules_translate() -> None:
    """Walks of both granules end at a translation in some scenarios, not only at faults."""
    ends: dict[bool, set[type]] = {False: set(), True: set()}
    for seed in range(400):
        rng = Random(seed)
        steps = stage1_tables.enable_stage1(rng)
        entries, virtual = stage1_tables.write_entry(rng, steps)
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
def test_stage1_usually_stays_disabled_with_an_incomplete_set_up(lost: str) -> None:
    whole = stage1_tables.enable_stage1(Random(1))
    assert _left_on(whole) == 100
    assert 0 < _left_on([step for step in whole if step.args[0] != lost]) < 30
    assert 0 < _left_on([*whole, Step("reset", ()), whole[-1]]) < 30


def test_registers_of_stage1_usually_stay_valid_while_it_is_enabled() -> None:
    kept = 0
    for seed in range(100):
        steps = [*stage1_tables.enable_stage1(Random(1)), Step("set", ("tcr_el1", 0x880))]
        stage1_tables.repair_stage1(Random(seed), steps)
        kept += steps[-1].args[1] == 0x880
    assert 0 < kept < 30


def _left_on(steps: list[Step]) -> int:
    """Return in how many of 100 tries the last write of SCTLR_EL1 enables stage 1."""
    count = 0
    for seed in range(100):
        tamed = list(steps)
        stage1_tables.repair_stage1(Random(seed), tamed)
        (*_, last) = (step.args[1] for step in tamed if step.args[:1] == ("sctlr_el1",))
        count += int(last) & 1
    return count
