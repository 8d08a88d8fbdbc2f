# SPDX-License-Identifier: Apache-2.0
"""Steps in which another VM writes a register between two reads are valid, and the relation compares them."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fuzz.generate.unswitched import NAMES, unswitched_register
from harness.arch.sysregs import KEEPERS
from harness.scenario.scenario import Scenario, format_scenario, parse


@given(st.integers(0, 1 << 32))
def test_another_vm_writes_between_two_reads(seed: int) -> None:
    steps = unswitched_register(Random(seed), [])
    scenario = parse(format_scenario(Scenario("A test.", (), tuple(steps))))
    assert scenario.steps == tuple(steps)
    (first, second), (write,) = ([s for s in steps if s.kind == kind] for kind in ("mrs", "msr"))
    assert first.args == second.args and write.args[0] == first.args[1] in KEEPERS
    assert steps.index(first) < steps.index(write) < len(steps) - 1 - steps[::-1].index(second)


def test_every_register_is_used() -> None:
    seen = {step.args[1] for seed in range(400) for step in unswitched_register(Random(seed), []) if step.kind == "mrs"}
    assert seen == set(NAMES)
