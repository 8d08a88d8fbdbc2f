# SPDX-License-Identifier: Apache-2.0
"""Slots that scenarios of the mutator begin with."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fuzz.generate import memory_slots as memories
from harness.scenario.scenario import Scenario, format_scenario, parse


@given(st.integers(0, 2**32 - 1))
def test_shapes_to_start_with_are_valid(seed: int) -> None:
    scenario = Scenario("A shape.", (), (), memories.shape(Random(seed)), memories.boot(Random(seed)))
    assert parse(format_scenario(scenario)) == scenario
