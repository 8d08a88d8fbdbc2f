# SPDX-License-Identifier: Apache-2.0
"""GIC steps of the mutator: they are valid, their interrupts are predictable, and they are not too frequent."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fuzz.generate import gic
from fuzz.generate.mutator import generate
from harness.gic.registers import place
from harness.layout import GICD, GICR
from harness.scenario.requirements import uses_gic
from harness.scenario.scenario import Scenario, Step, format_scenario, parse
from harness.scenario.steps import KINDS

SEEDS = st.integers(0, 2**32)
MANY = 400


@given(SEEDS)
def test_steps_are_valid_and_stay_in_the_vm_with_a_gic(seed: int) -> None:
    rng = Random(seed)
    steps = [Step("hvc", (0,))]
    while len(steps) < 100:
        steps += gic.gic_interrupts(rng, steps)
    scenario = Scenario("Interrupts.", (), tuple(steps))
    assert parse(format_scenario(scenario)) == scenario
    assert {step.args[0] for step in steps if step.kind == "vcpu"} <= {*gic.VCPUS, "0.0"}


@given(SEEDS)
def test_the_set_up_of_a_gic_is_complete(seed: int) -> None:
    """Each store that configures an SPI has a size and an address that the GIC accepts."""
    held: dict[object, int] = {gic.DISTRIBUTOR: GICD.base, gic.SGI_PAGE: GICR.base + 0x1_0000}
    rng = Random(seed)
    stores = []
    for step in (*gic.configure_spi(rng), *gic.configure_private(rng)):
        if KINDS[step.kind].forms:
            target, base, offset = step.args
            size = 1 if step.kind == "strb" else 4 if str(target)[0] == "w" else 8
            assert isinstance(offset, int)
            stores.append((place(held[base] + offset, size), size))
    assert all(where.bank is None or size in where.bank.sizes for where, size in stores)
    names = {where.bank.name for where, _ in stores if where.bank is not None}
    assert names == {"igroupr", "icfgr", "ipriorityr", "irouter", "isenabler"}


def test_few_scenarios_use_a_gic() -> None:
    """Each of them needs a new VM."""
    rng = Random(1)
    assert 0.03 < sum(uses_gic(generate(rng)) for _ in range(MANY)) / MANY < 0.25
