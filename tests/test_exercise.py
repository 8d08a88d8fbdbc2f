# SPDX-License-Identifier: Apache-2.0
"""What scenarios exercise: which step an exit is counted for, what counts as judged, and the page that shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from fuzz.corpus.exercise_counts import read_counts
from harness.arch.exits import EC_BY_NAME, EC_SHIFT, IL_BIT
from harness.coverage.exercised_steps import BEGIN, NO_EXIT, Exercise, StepAtExit
from harness.coverage.reachable_exits import MEETS, NOT_REACHED, classes_of, possible
from harness.errors import InputError
from harness.findings.checked import Comparison
from harness.layout import CODE, VECTORS
from harness.report import step_coverage
from harness.scenario.scenario import parse
from harness.scenario.steps import KINDS, STEP_KINDS
from harness.trace.events import Event, Trace
from tests import traces

HVC, DABT = (EC_BY_NAME[name] << EC_SHIFT | IL_BIT for name in ("HVC64", "DABT_LOW"))
ROOT = Path(__file__).parent.parent
KEPT = ROOT / "corpus" / "reach.json"


def exercise(steps: str, events: list[Event], *compared: Comparison) -> Exercise:
    scenario = parse(f"shadowfuzz-scenario 1\nabout A test.\n{steps}\n")
    found = Exercise()
    found.add(scenario, Trace(tuple(events), "ok", 0, False), compared)
    return found


def test_an_exit_is_counted_for_the_instruction_that_trapped() -> None:
    start = traces.state()
    behind = traces.but(start, pc=CODE.base + 4)
    at_load = traces.but(start, pc=CODE.base + 8)
    events = [
        *(traces.entry(start), traces.trap(behind, HVC)),  # the return address of a call is behind it
        *(traces.entry(behind), traces.trap(at_load, DABT)),
    ]
    found = exercise("hvc 0x0\nmov x1, x2\nldr x3, [x4]", events)
    assert set(found.reached) == {
        *(
            StepAtExit(BEGIN, NO_EXIT),
            StepAtExit("hvc", "HVC64"),
            StepAtExit("mov", NO_EXIT),
            StepAtExit("ldr", "DABT_LOW"),
        ),
    }


def test_an_exception_inside_the_guest_executes_the_step() -> None:
    start = traces.state()
    vector = traces.but(start, pc=VECTORS.base + 0x200, elr_el1=CODE.base + 4)
    found = exercise("mov x1, x2\nudf 0x0", [traces.entry(start), traces.trap(vector, traces.ESR_TRAP_MRS)])
    assert {StepAtExit("mov", NO_EXIT), StepAtExit("udf", NO_EXIT)} < set(found.reached)


def test_a_host_step_is_judged_at_the_exit_before_it_and_by_the_run_after_it() -> None:
    start = traces.state()
    behind = traces.but(start, pc=CODE.base + 4)
    events = [
        *(traces.entry(start), traces.trap(behind, HVC), traces.host_reset()._replace(step=1)),
        *(traces.entry(behind), traces.irq(behind)),
    ]
    place = StepAtExit("reset", "HVC64")
    compared = (Comparison("host", 1), Comparison("switch", 1, "before it"), Comparison("switch", 4))
    found = exercise("hvc 0x0\nreset", events, *compared).judged[place]
    assert {relation: judged.whole for relation, judged in found.items()} == {"host": 1, "switch": 1}
    left_out = exercise("hvc 0x0\nreset", events, *compared, Comparison("switch", 4, "a reason")).judged[place]
    assert (left_out["switch"].whole, dict(left_out["switch"].left_out)) == (0, {"a reason": 1})


def test_rows_name_steps_that_there_are() -> None:
    for row in (*MEETS, *NOT_REACHED):
        assert any(fnmatchcase(keyword, row.steps) for keyword in KINDS), row.steps
        assert row.why and row.source
    assert all(classes_of(kind) for kind in STEP_KINDS if kind.keyword in ("hvc", "ldr_simd", "msr", "forge"))


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return read_counts(KEPT)


def test_what_is_not_reached_has_a_reason_with_a_source(kept: dict[str, Any]) -> None:
    """Of the steps that were there when it was measured: `shadowfuzz reach --keep` measures again."""
    reach = step_coverage.Reach.from_json(kept)
    measured = {place.step for cells in reach.cells.values() for place in cells}
    assert [line for line in step_coverage.unsaid(reach) if line.split()[0] in measured] == []


def test_each_reason_is_needed(kept: dict[str, Any]) -> None:
    reach = step_coverage.Reach.from_json(kept)
    missing = {(place, target) for place, target, _, _ in reach.missing()}
    for row in NOT_REACHED:
        patterns = row.steps, row.classes, row.targets
        assert any(all(map(fnmatchcase, (*place, target), patterns)) for place, target in missing), row


def test_a_step_without_a_row_must_be_reached(kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    new = replace(KINDS["hvc"], keyword="new")
    monkeypatch.setattr(step_coverage, "STEP_KINDS", (*STEP_KINDS, new))
    reach = step_coverage.Reach.from_json(kept)
    assert any(line.startswith("new at any") for line in step_coverage.unsaid(reach))
    assert "`new`" in step_coverage.page(reach)


def test_a_place_that_is_lost_is_shown(kept: dict[str, Any]) -> None:
    document = json.loads(json.dumps(kept))
    one = document["targets"]["kvm-vhe"]
    one["places"] = [row for row in one["places"] if (row["step"], row["exit"]) != ("smc", "SMC64")]
    reach = step_coverage.Reach.from_json(document)
    before = step_coverage.unsaid(step_coverage.Reach.from_json(kept))
    assert [line for line in step_coverage.unsaid(reach) if line not in before] == ["smc at SMC64 on kvm-vhe"]
    assert "not reached on kvm-vhe" in step_coverage.page(reach)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "targets": {"a": {"places": [{}]}}}', '{"format": 7}'])
def test_a_file_that_is_something_else_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reach.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not what `shadowfuzz reach --keep` writes"):
        read_counts(path)


def test_possible_places_are_there_once() -> None:
    places = list(possible())
    assert len(places) == len(set(places))
