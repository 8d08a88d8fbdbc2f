# SPDX-License-Identifier: Apache-2.0
"""Initial memory slots of generated scenarios."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fuzz.generate import memory_slots as memories
from harness.scenario.scenario import Scenario, format_scenario, parse


@given(st.integers(0, 2**32 - 1))
def test_initial_slots_are_valid(seed: int) -> None:
    scenario = Scenario("A shape.", (), (), memories.unusual_slots(Random(seed)), memories.initial_words(Random(seed)))
    assert parse(format_scenario(scenario)) == scenario
