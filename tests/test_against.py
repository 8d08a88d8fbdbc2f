# SPDX-License-Identifier: Apache-2.0
"""Release against release on hand-made traces: the first difference counts, interrupts do not, intent is a row."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.against import Difference, compare, intended, not_comparable
from fuzz.against_cli import Tally, clusters, file_name, keep, lines, step, stream
from harness.exits import EXCEPTION_TRAP
from harness.registers import INDEX
from harness.scenario import Scenario, load
from harness.trace import ENTRY, EXIT, Event, Switch, Trace
from harness.tracefile import load_trace

GOLDEN = Path(__file__).parent / "golden"
TRACE = load_trace(GOLDEN / "mixture.trace.json")
SCENARIO = load(GOLDEN / "mixture.scn")


def changed(at: int, **registers: int) -> Trace:
    """The golden trace with registers of one event replaced."""
    events = list(TRACE.events)
    event = events[at]
    assert isinstance(event, Switch)
    values = list(event.values)
    for name, value in registers.items():
        values[INDEX[name]] = value
    events[at] = event._replace(values=tuple(values))
    return Trace(tuple(events), TRACE.status, 0, TRACE.vhe)


def places(kind: int) -> list[int]:
    """Where records of a kind are; of exits, those that are no interrupt."""
    switches = [(i, event) for i, event in enumerate(TRACE.events) if isinstance(event, Switch)]
    return [i for i, event in switches if event.kind == kind and (kind != EXIT or event.code == EXCEPTION_TRAP)]


def test_the_same_trace_has_no_difference() -> None:
    assert compare(TRACE, TRACE) == ()


def test_only_the_first_pair_that_differs_counts() -> None:
    first, second = places(EXIT)[:2]
    events = list(changed(first, x3=0x1234).events)
    events[second] = changed(second, x9=1).events[second]
    found = compare(TRACE, Trace(tuple(events), "ok", 0, TRACE.vhe))
    assert [difference.what for difference in found] == ["exit.x3"]
    assert found[0].signature[0] == "exit.xN" and found[0].values[1] == "0x1234"


def test_registers_that_say_nothing_are_left_out() -> None:
    assert compare(TRACE, changed(places(EXIT)[0], mdccint_el1=1, afsr0_el1=2)) == ()


def test_interrupts_come_when_they_like() -> None:
    where = places(ENTRY)[1]
    entry = TRACE.events[where]
    assert isinstance(entry, Switch)
    interrupt = entry._replace(kind=EXIT, code=0, esr=0)
    events: list[Event] = [*TRACE.events[: where + 1], interrupt, entry, *TRACE.events[where + 1 :]]
    assert compare(TRACE, Trace(tuple(events), "ok", 0, TRACE.vhe)) == ()


def test_another_end_and_another_length() -> None:
    assert compare(TRACE, Trace(TRACE.events, "stuck", 0, TRACE.vhe))[0].what == "run.status"
    last = places(EXIT)[-1]
    shorter = Trace(TRACE.events[:last], TRACE.status, 0, TRACE.vhe)
    assert compare(TRACE, shorter)[0].what in ("run.length", "run.event")


def test_an_intended_change_has_values_and_versions() -> None:
    version = Difference("entry.x0", "HVC64", 1, ("0x10001", "0x10003"))
    assert "PSCI" in intended(version, ("6.12.117-1", "7.3.4-1~bpo13+1"))
    assert intended(version, ("6.1.192-2", "6.12.117-1")) == ""
    assert intended(Difference("entry.x0", "HVC64", 1, ("0x10001", "0x10004")), ("6.12.117-1", "7.3.4-1")) == ""


def test_registers_that_are_kept_in_another_way() -> None:
    assert not_comparable(("6.12.117-1", "6.1.192-2")) == {"csselr_el1"}
    assert not_comparable(("6.12.117-1", "7.3.4-1")) == frozenset()
    assert compare(TRACE, changed(places(EXIT)[0], csselr_el1=9), frozenset({"csselr_el1"})) == ()


class FakeMachine:
    def __init__(self, *answers: Trace) -> None:
        self.answers = list(answers)
        self.fresh: list[bool] = []

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        self.fresh.append(fresh_vm)
        return self.answers.pop(0)


def test_a_difference_counts_if_it_comes_back_in_fresh_vms(tmp_path: Path) -> None:
    other = changed(places(EXIT)[0], x3=1)
    tally = Tally()
    left, right = FakeMachine(TRACE, TRACE), FakeMachine(other, other)
    step((left, right), SCENARIO, tally)
    assert left.fresh == [False, True]
    step((FakeMachine(TRACE, TRACE), FakeMachine(other, TRACE)), SCENARIO, tally)
    assert (tally.runs, tally.not_again) == (2, 1)
    (key,) = tally.counts
    keep(tmp_path, tally)
    assert load(tmp_path / file_name(key)) == SCENARIO
    rows = list(clusters(tally, ("6.1.1-1", "7.3.1-1")))
    assert rows[0]["count"] == 1 and rows[0]["intended"] == ""
    assert "1 kinds of difference" in list(lines(tally, rows, ("a", "b")))[-1]


@pytest.mark.parametrize("seed", [1, 2])
def test_scenarios_are_the_corpus_and_then_its_mutations(seed: int) -> None:
    scenarios = stream([SCENARIO], random.Random(seed))
    assert next(scenarios) == SCENARIO
    assert [next(scenarios) for _ in range(20)] == list(_twenty(seed))


def _twenty(seed: int) -> list[Scenario]:
    again = stream([SCENARIO], random.Random(seed))
    next(again)
    return [next(again) for _ in range(20)]
