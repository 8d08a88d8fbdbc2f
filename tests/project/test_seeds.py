# SPDX-License-Identifier: Apache-2.0
"""Seeds and regressions: canonical files that together use all features of scenarios."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from harness.arch.a64 import ACCESS_FORMS, ZERO
from harness.arch.exits import SMCCC_FUNCTIONS
from harness.layout import DATA, HOLE, MMIO, VECTORS
from harness.scenario.scenario import Scenario, format_scenario, load
from harness.scenario.steps import KINDS, SET_NAMES, STEP_KINDS, Actor
from tests.support.paths import CORPUS

FILES = sorted(path for folder in ("seeds", "regressions") for path in (CORPUS / folder).glob("*.scn"))


@pytest.fixture(scope="module")
def seeds() -> dict[str, Scenario]:
    return {path.stem: load(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_canonical(path: Path) -> None:
    scenario = load(path)
    assert format_scenario(scenario) == path.read_text()
    assert scenario.about.endswith(".")
    assert len(scenario.about.split()) >= 6
    assert KINDS[scenario.steps[0].kind].side is Actor.GUEST, "a host step is done at an exit"


def test_there_are_enough_and_each_says_something_of_its_own(seeds: dict[str, Scenario]) -> None:
    assert len(seeds) >= 40
    assert len({s.about for s in seeds.values()}) == len(seeds)
    assert len({(s.registers, s.steps) for s in seeds.values()}) == len(seeds)


def test_every_step_kind(seeds: dict[str, Scenario]) -> None:
    assert {step.kind for s in seeds.values() for step in s.steps} == {k.keyword for k in STEP_KINDS}


def test_every_access_form_with_and_without_the_zero_register(seeds: dict[str, Scenario]) -> None:
    used = {(step.kind, step.args[0]) for s in seeds.values() for step in s.steps if KINDS[step.kind].forms}
    for form in ACCESS_FORMS:
        assert (form.mnemonic, form.targets[ZERO]) in used
        assert any((form.mnemonic, target) in used for target in form.targets[:ZERO])


def test_every_smccc_function_is_called(seeds: dict[str, Scenario]) -> None:
    called: set[object] = set()
    for scenario in seeds.values():
        x0 = dict(scenario.registers).get("x0")
        for step in scenario.steps:
            if step.kind == "set" and step.args[0] == "x0":
                x0 = int(step.args[1])
            elif step.kind == "hvc":
                called.add(x0)
    assert {f.name for f in SMCCC_FUNCTIONS if f.fid not in called} == set()


def test_the_host_writes_every_register(seeds: dict[str, Scenario]) -> None:
    written = {str(step.args[0]) for s in seeds.values() for step in s.steps if step.kind == "set"}
    assert written == set(SET_NAMES)


def test_addresses_in_every_region(seeds: dict[str, Scenario]) -> None:
    values = {v for s in seeds.values() for _, v in s.registers} | {
        int(step.args[1]) for s in seeds.values() for step in s.steps if step.kind == "set"
    }
    for region in (MMIO, DATA, VECTORS, HOLE):
        assert any(v in region for v in values), region.name
    for region in (MMIO, HOLE):
        assert any(region.end - 8 <= v < region.end for v in values), region.name


def test_a_read_is_pending_at_a_host_write_and_at_a_reset(seeds: dict[str, Scenario]) -> None:
    after_a_load = {
        after.kind for s in seeds.values() for load_, after in pairwise(s.steps) if load_.kind.startswith("ld")
    }
    assert {"set", "reset", "complete"} <= after_a_load
