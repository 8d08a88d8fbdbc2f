# SPDX-License-Identifier: Apache-2.0
"""Random values of registers."""

from __future__ import annotations

from random import Random

from fuzz.generate import values
from harness.arch.registers import MASK64
from harness.layout import CODE, DATA, HOLE, MMIO, REGIONS, VECTORS
from harness.scenario.steps import SET_NAMES


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
