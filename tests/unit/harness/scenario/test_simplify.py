# SPDX-License-Identifier: Apache-2.0
"""Simplification passes: every candidate is a scenario, and the result cannot be simplified further."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fuzz.generate.mutator import mutate
from harness.minimiser import Minimiser
from harness.scenario.scenario import Scenario, format_scenario, load, parse
from harness.scenario.simplify import PASSES, order, simplicity, weight
from tests.support.paths import CORPUS

FILES = sorted(CORPUS.glob("*/*.scn"))


def kinds(scenario: Scenario) -> list[str]:
    return [step.kind for step in scenario.steps]


@pytest.mark.parametrize("path", FILES[::4], ids=lambda path: path.stem)
def test_every_candidate_is_a_scenario(path: Path) -> None:
    scenario = load(path)
    for one in PASSES:
        for candidate in one.candidates(scenario):
            assert parse(format_scenario(candidate)) == candidate, type(one).__name__


def test_the_order_is_total() -> None:
    rng = random.Random(1)
    scenarios = [load(path) for path in FILES]
    scenarios += [mutate(scenario, rng) for scenario in scenarios]
    for one, two in pairwise(scenarios):
        assert (order(one) == order(two)) == (replace(one, about="") == replace(two, about=""))
        if order(one)[:2] < order(two)[:2]:
            assert simplicity(one) < simplicity(two)
    assert simplicity(Scenario("Nothing.", (), ())) == 0
    assert max(map(simplicity, scenarios)) < 1 << 62


def test_weight_of_numbers() -> None:
    assert [weight(v) for v in (0, 1, 2, 3, 0x80)] == [0, 2, 3, 4, 9]


CASES: tuple[tuple[str, Callable[[Scenario], bool], tuple[str, ...]], ...] = (
    # start, the predicate, the remaining lines
    (
        "reset_then_stale_completion",
        lambda s: "reset" in kinds(s) and any(k.startswith("ldr") for k in kinds(s)[: kinds(s).index("reset")]),
        ("ldrb w0, [x0]", "reset"),
    ),
    (
        "long_mixture_host_and_modes",
        lambda s: any(arg == 0x3C4 for step in s.steps for arg in step.args),
        ("set pstate 0x3c4",),
    ),
    ("mmio_load_signed_half_w", lambda s: any(k == "ldrsh" for k in kinds(s)), ("ldrsh x0, [x0]",)),
    ("reset_twice", lambda s: kinds(s).count("reset") > 1, ("reset", "reset")),
    ("mmio_load_signed_byte_x", lambda s: any(v > 0xFFFF for _, v in s.registers), ("reg x0 0x10000",)),
    ("host_writes_pc", lambda s: bool(s.steps), ("hvc 0x0",)),
)


@pytest.mark.parametrize(("name", "holds", "lines"), CASES, ids=[name for name, _, _ in CASES])
def test_it_ends_at_a_fixed_point(name: str, holds: Callable[[Scenario], bool], lines: tuple[str, ...]) -> None:
    minimiser = Minimiser(load(CORPUS / "regressions" / f"{name}.scn"), holds, order)
    least = minimiser.run(PASSES)
    assert tuple(format_scenario(least).splitlines()[2:]) == lines
    assert Minimiser(least, holds, order).run(PASSES) == least
    for one in PASSES:
        assert not any(holds(c) and order(c) < order(least) for c in one.candidates(least))
