# SPDX-License-Identifier: Apache-2.0
"""Every idiom occurs and is valid."""

from __future__ import annotations

from random import Random

import pytest

from fuzz.generate import idioms
from harness.arch.registers import MASK64
from harness.layout import DATA
from harness.scenario.scenario import Scenario, Step, format_scenario, parse


@pytest.mark.parametrize("idiom", idioms.IDIOMS.items, ids=lambda i: i.__name__)
def test_idioms_are_reached_and_valid(idiom: idioms.Idiom) -> None:
    rng = Random(1)
    assert idiom in {idioms.IDIOMS.pick(rng) for _ in range(1000)}
    for seed in range(300):
        steps = idiom(Random(seed), [])
        assert steps
        scenario = Scenario("An idiom.", (), tuple(steps))
        assert parse(format_scenario(scenario)) == scenario


def test_a_forged_exit_has_any_class_except_two() -> None:
    steps = [step for seed in range(3000) for step in idioms.forged_exit(Random(seed), [])]
    forged = [step.args[1] for step in steps if step.kind == "forge" and step.args[0] == "esr"]
    assert {int(value) >> 26 for value in forged} == set(range(64)) - {0x04, 0x25}, (
        "which end the host (corpus/crashes)"
    )


def test_first_touch_uses_a_page_without_references() -> None:
    pages = range(DATA.base, DATA.end, idioms.PAGE)
    before = [Step("set", ("x1", page + 8)) for page in pages if page != pages[5]]
    for seed in range(50):
        pointer, step = idioms.first_touch(Random(seed), before)
        address = int(pointer.args[1]) + (int(step.args[2]) if len(step.args) == 3 else 0)
        assert address & MASK64 & -idioms.PAGE == pages[5]
    everything = [Step("set", ("x1", page)) for page in pages]
    assert idioms.first_touch(Random(0), everything)
