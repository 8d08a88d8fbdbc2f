# SPDX-License-Identifier: Apache-2.0
"""What userspace can observe of a finding: the checks, the steps that lead to them, and their stored form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.paths import KEPT, SHOWN
from fuzz.triage.handover import belongs_only_to
from harness.errors import InputError
from harness.findings.regressions import load_regressions
from harness.handover.shown import Check, Shown, check_of, last_run, load_shown, needed_steps, step_at, to_json
from harness.layout import CONTEXTS, GIC_MACHINE
from harness.relations.divergence import Divergence
from harness.scenario.scenario import Scenario, load, parse
from harness.trace.tracefile import load_trace
from tests.support.paths import GOLDEN


def scenario_of(name: str) -> Scenario:
    return load(KEPT.parent / f"{name}.scn")


STORED = load_shown(SHOWN, scenario_of)


def divergence(relation: str, register: str, expected: int | str, observed: int | str) -> Divergence:
    return Divergence(relation, register, expected, observed, "HVC64", 3, 1)


@pytest.mark.parametrize(
    ("found", "check"),
    [
        (divergence("host", "esr_el1", 1, 2), Check("register", "esr_el1", 1, 2)),
        (divergence("switch", "x7", 1, 2), Check("left", "x7", 1, 2)),
        (divergence("switch", "pc", "what is at 0x40010280 must trap", 4), Check("stop", "pc", 0x40010280, 4)),
        (divergence("switch", "pc", "the HVC at 0x40000008 must trap", 4), Check("stop", "pc", 0x4000000C, 4)),
        (
            divergence("switch", "pc", "the breakpoint at 0x40000010 must trap", 4),
            Check("debug", "", "KVM_EXIT_DEBUG", "none"),
        ),
        (divergence("host", "hcr_el2", 0, 0x100), Check("serror", "", 0, 1)),
        (divergence("switch", "hcr_el2", 0x100, 0), Check("serror", "", 1, 0)),
        (divergence("host", "hcr_el2", 0x80, 0), None),
        (divergence("host", "slot", "refused", "taken"), Check("slot", "", "refused", "taken")),
        (divergence("isolate", "icc_pmr_el1", 1, 2), Check("same", "icc_pmr_el1", 1, 2)),
        (divergence("isolate", "x3", 1, 2), Check("register", "x3", 1, 2)),
        (divergence("restore", "x3", 1, 2), None),
        (divergence("host", "gic_list", 1, 2), None),
    ],
)
def test_what_userspace_can_compare(found: Divergence, check: Check | None) -> None:
    assert check_of(found) == check


def test_every_kept_divergence_is_stored() -> None:
    assert set(STORED) == {row.id for row in load_regressions(KEPT)}


@pytest.mark.parametrize("row", load_regressions(KEPT), ids=lambda row: row.id)
def test_what_is_stored_is_of_its_finding(row: object) -> None:
    shown = STORED[row.id]  # type: ignore[attr-defined]
    assert shown.name in row.scenarios and row.is_on(shown.target)  # type: ignore[attr-defined]
    assert (0 < shown.steps <= len(shown.scenario.steps) and shown.checks) or shown.hidden
    assert needed_steps(shown)


def test_steps_of_another_vm_are_left_out() -> None:
    shown = STORED["enable-loses-pending-interrupts"]
    assert shown.scenario.steps[0].kind == "hvc" and CONTEXTS[shown.context].machine == GIC_MACHINE
    assert all(CONTEXTS[done.context].machine == GIC_MACHINE for done in needed_steps(shown))
    both = STORED["vms-without-gic-share-cpu-interface"]
    assert len({done.context for done in needed_steps(both)}) == 2


def test_steps_of_another_vm_that_store_are_kept() -> None:
    text = "shadowfuzz-scenario 1\nabout A.\nstr x1, [x2]\nvcpu 2.0\nhvc 0x0\n"
    shown = Shown("t", "k", "n", parse(text), 3, 5, (Check("left", "x1", 1, 2),))
    assert len(needed_steps(shown)) == 3
    assert [done.step.kind for done in last_run(shown)] == ["hvc"]


def test_where_the_guest_was_is_known_at_each_exit() -> None:
    scenario, trace = load(GOLDEN / "mixture.scn"), load_trace(GOLDEN / "mixture.trace.json")
    found = [step_at(scenario, trace, index) for index in range(len(trace.events))]
    assert found == sorted(found) and found[-1] <= len(scenario.steps)


def test_what_is_stored_comes_back() -> None:
    """A changed scenario has another digest; tests/vm/test_exported_selftests_live.py updates the file."""
    assert SHOWN.read_text() == to_json(STORED)


@pytest.mark.parametrize(
    "change",
    [
        "[]",
        "{",
        '{"a": 1}',
        json.dumps({"a": {"target": "t"}}),
        json.dumps({"a": {"target": "t", "kernel": "k", "scenario": "no_such", "steps": 1, "context": 0, "checks": [],
                          "hidden": []}}),
        json.dumps({"a": {"target": "t", "kernel": "k", "scenario": "el0_mmio", "steps": "x", "context": 0,
                          "checks": [], "hidden": []}}),
        json.dumps({"a": {"target": "t", "kernel": "k", "scenario": "el0_mmio", "steps": 1, "context": 0,
                          "checks": [{"b": 1}], "hidden": []}}),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(change: str, tmp_path: Path) -> None:
    (tmp_path / "shown.json").write_text(f'{{"format": 1, "findings": {change}}}')
    with pytest.raises(InputError):
        load_shown(tmp_path / "shown.json", scenario_of)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shown.json").write_text('{"format": 2, "findings": {}}')
    with pytest.raises(InputError, match="format: expected 1"):
        load_shown(tmp_path / "shown.json", scenario_of)


def test_a_divergence_of_several_errata_is_of_none_alone() -> None:
    row = next(row for row in load_regressions(KEPT) if row.id == "mmio-load-loses-sign")
    one = replace_cause("mmio-load-loses-sign")
    assert belongs_only_to(row, one) and not belongs_only_to(
        row, replace_cause("aborted-access-completes, mmio-load-loses-sign")
    )
    assert replace(STORED[row.id], steps=1) != STORED[row.id]


def replace_cause(cause: str) -> Divergence:
    return Divergence("host", "x3", 0xFFFF_FFFF_FFFF_FF80, 0x80, "DABT_LOW", 3, 1, cause=cause)
