# SPDX-License-Identifier: Apache-2.0
"""Matrix and bisection on fake machines: verdicts, what is kept, what is asked, what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.cli.main import build_parser
from fuzz.cli.matrix import plan_of
from fuzz.targets.runner import ScenarioRunner
from fuzz.targets.target_set import TargetSet
from fuzz.triage.bisect import Outcome, anchors, confidence, search
from fuzz.triage.matrix import (
    CANNOT,
    CLEAN,
    DIVERGES,
    LOST,
    Case,
    Cell,
    Results,
    Work,
    load_cases,
    make_case,
    match_targets,
    read_results,
    run_cases,
    write_results,
)
from fuzz.triage.matrix_html import page
from fuzz.triage.matrix_text import Table, markdown
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError, VmLost
from harness.findings.check import check
from harness.findings.checked import CheckResult
from harness.findings.finding import Subject
from harness.findings.known_divergences import Catalogue
from harness.findings.regressions import Regression
from harness.findings.release_history import CANNOT as HISTORY_CANNOT
from harness.findings.release_history import SHOWS, SHOWS_NOT, Asked, history_text, read_history, sentences
from harness.scenario.scenario import Scenario, load
from harness.trace.events import Trace
from harness.trace.tracefile import load_trace
from harness.vm.config import load_config
from harness.vm.debian.kernel_archive import Kernel

GOLDEN = Path(__file__).parent / "golden"
CASE = make_case("mixture", load(GOLDEN / "mixture.scn"))
NOTHING = Catalogue("spec", ())
CONFIG = load_config("kvm-nvhe")


class FakeMachine:
    """Answers each run with the next of its traces; None: it is lost."""

    def __init__(self, answers: Sequence[Trace | None]) -> None:
        self.answers = list(answers)
        self.boots = 0
        self.subject = Subject("fake", "6.1.0", "00" * 32, "spec")

    @contextmanager
    def boot(self) -> Iterator[ScenarioRunner]:
        self.boots += 1
        if not self.answers:
            raise VmLost("fake", "does not come up", "")
        yield self

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        answer = self.answers.pop(0)
        if answer is None:
            raise VmLost("fake", "went away", "")
        return answer

    def boot_again(self) -> AbstractContextManager[ScenarioRunner]:
        raise AssertionError("no machine is lost on purpose")

    def check(self, scenario: Scenario, trace: Trace) -> CheckResult:
        return check(scenario, trace, "spec", cpu_model(CONFIG.cpu), NOTHING)


TRACE = load_trace(GOLDEN / "mixture.trace.json")
QUIET = Trace((), "ok", 0, False)


def cells(machine: FakeMachine, *names: str, repeat: int = 1) -> list[Cell]:
    cases = tuple(Case(name, CASE.key, CASE.scenario) for name in names)
    return list(run_cases(Work("fake", cases, repeat), TargetSet([machine])))


def test_one_boot_for_all_and_another_after_a_loss() -> None:
    machine = FakeMachine([TRACE, None, QUIET])
    found = cells(machine, "a", "b", "c")
    assert [cell.verdict for cell in found] == [DIVERGES, LOST, CLEAN]
    assert found[1].why == "went away"
    assert machine.boots == 2


def test_a_target_that_never_boots_cannot_run() -> None:
    found = cells(FakeMachine([]), "a", "b")
    assert [cell.verdict for cell in found] == [CANNOT, CANNOT]
    assert found[0].why == "does not boot: does not come up"


def test_repetitions_are_counted() -> None:
    (cell,) = cells(FakeMachine([QUIET, TRACE, QUIET]), "a", repeat=3)
    assert (cell.verdict, cell.seen, cell.runs) == (DIVERGES, 1, 3)


def test_a_run_that_did_not_end_is_no_verdict() -> None:
    (cell,) = cells(FakeMachine([Trace((), "stuck", 0, False)]), "a")
    assert (cell.verdict, cell.why) == (LOST, "the run ended with status stuck")


def test_results_are_kept_and_only_what_is_missing_is_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "matrix.json"
    assert read_results(path) == Results({})
    results = Results({}).with_cells([Cell("t1", "mixture", CASE.key, DIVERGES, ("host.pc",), 1, 1, "", {"why": 2})])
    write_results(path, results)
    assert read_results(path) == results
    assert results.missing(["t1", "t2"], [CASE]) == {"t2": (CASE,)}
    changed = Case("mixture", "another text", CASE.scenario)
    assert set(results.missing(["t1", "t2"], [changed])) == {"t1", "t2"}
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "format": 0}))
    assert read_results(path) == Results({})
    for other in ('{"format": 1}', '{"format": 1, "cells": [{}]}', "[]", "notes", "[" * 100_000):
        path.write_text(other)
        with pytest.raises(InputError, match="not results of `shadowfuzz matrix`"):
            read_results(path)


def test_the_command_that_a_page_names() -> None:
    args = build_parser().parse_args(["matrix", "corpus/seeds", "a.scn", "--targets", "kvm-*@*", "--deterministic"])
    wanted = "shadowfuzz matrix corpus/seeds a.scn --targets 'kvm-*@*' --missing --deterministic --markdown"
    assert plan_of(args).command("--markdown") == wanted


def test_targets_by_pattern() -> None:
    kernels = [Kernel(version, version, ("sid",), (), ()) for version in ("6.1.164-1", "6.12.117-1")]
    assert match_targets(["kvm-nvhe@*"], kernels) == ("kvm-nvhe@6.1.164-1", "kvm-nvhe@6.12.117-1")
    assert match_targets(["kvm-vhe", "*@6.1.*"], kernels) == (
        *("kvm-vhe", "kvm-nvhe@6.1.164-1", "kvm-protected@6.1.164-1", "kvm-vhe@6.1.164-1"),
    )


def test_cases_of_files() -> None:
    assert load_cases([GOLDEN / "mixture.scn"]) == (CASE,)


def fake_cell(target: str, verdict: str, *found: str, why: str = "") -> Cell:
    return Cell(target, "s", "k", verdict, found, int(bool(found)), 1, why)


def test_the_table_and_the_history_of_each_divergence() -> None:
    rows = [
        *(fake_cell("c@6.1.170-1", DIVERGES, "host.pc"), fake_cell("c@6.1.9-1", DIVERGES, "host.pc")),
        *(fake_cell("c@6.12.1-1", CANNOT, why="no headers"), fake_cell("c@6.16.1-1", DIVERGES, "host.pc", "host.xN")),
        *(fake_cell("c@7.0.1-1", CLEAN), fake_cell("c@7.3.1-1", DIVERGES, "host.pc")),
    ]
    results = Results({}).with_cells(rows).with_cells([Cell(row.target, "calm", "k", CLEAN) for row in rows])
    table = Table(results.cells, [row.target for row in rows], ["s", "calm"])
    text = "\n".join(table.lines())
    assert "s  AA  -    B    .   A\n" in text
    assert "1 more scenarios are clean on all of them" in text
    assert "A host.pc" in text and "B host.pc, host.xN" in text and "- no headers (c@6.12.1-1)" in text
    # What cannot run neither ends nor begins a stretch.
    assert list(table.history()) == [
        ("c", "host.pc", [("6.1.9-1", "6.16.1-1"), ("7.3.1-1", "7.3.1-1")]),
        ("c", "host.xN", [("6.16.1-1", "6.16.1-1")]),
    ]
    shows = ("host.pc/WFX", "host.lr/WFX")
    findings = (Regression("wrong-pc", "PC is wrong.", "Nobody knows.", "kvm", "none", ("c",), shows, ("s",)),)
    page = markdown(table, "shadowfuzz matrix x", findings)
    assert "| `wrong-pc` | c, 6 kernels | 6.1.9-1 to 6.16.1-1, 7.3.1-1 |" in page
    assert "| c | `host.pc` | 6.1.9-1 to 6.16.1-1, 7.3.1-1 |" in page and "Generated by `shadowfuzz matrix x`" in page


VERSIONS = [f"6.{minor}.{patch}" for minor in (1, 12, 16) for patch in range(14)]


class FakeProbe:
    """Answers from a table and counts what it was asked."""

    def __init__(self, outcomes: Mapping[str, Outcome | None]) -> None:
        self.outcomes = outcomes
        self.asked: list[str] = []

    def __call__(self, wanted: Sequence[str]) -> Mapping[str, Outcome | None]:
        self.asked += wanted
        return {version: self.outcomes[version] for version in wanted}


@given(st.integers(1, len(VERSIONS) - 1), st.sets(st.sampled_from(VERSIONS), max_size=12))
def test_the_neighbours_of_a_change_are_found_in_few_boots(change: int, broken: set[str]) -> None:
    truth: dict[str, Outcome | None] = {v: ("host.pc",) if i < change else () for i, v in enumerate(VERSIONS)}
    outcomes = {v: None if v in broken else o for v, o in truth.items()}
    probe = FakeProbe(outcomes)
    found = search(VERSIONS, (VERSIONS[0], VERSIONS[-1]), probe)
    ran = [v for v in VERSIONS if v not in broken]
    expected = [(a, b) for a, b in pairwise(ran) if truth[a] != truth[b]]
    if all(v not in broken for v in (VERSIONS[0], VERSIONS[-1])):
        assert [(c.before, c.after) for c in found.changes] == expected
        assert len(probe.asked) <= 2 + 6 + len(broken)
    assert len(set(probe.asked)) == len(probe.asked)


def test_each_series_is_asked_at_both_ends() -> None:
    assert anchors(VERSIONS) == ("6.1.0", "6.1.13", "6.12.0", "6.12.13", "6.16.0", "6.16.13")
    # Fixed in the long-term series later than in the newer one.
    fixed = {*VERSIONS[10:14], *VERSIONS[20:28], *VERSIONS[28:]}
    probe = FakeProbe({v: () if v in fixed else ("host.pc",) for v in VERSIONS})
    found = search(VERSIONS, anchors(VERSIONS), probe)
    assert [(c.before, c.after) for c in found.changes] == [
        *(("6.1.9", "6.1.10"), ("6.1.13", "6.12.0"), ("6.12.5", "6.12.6")),
    ]
    assert [c.disappears for c in found.changes] == [("host.pc",), (), ("host.pc",)]
    assert [c.appears for c in found.changes] == [(), ("host.pc",), ()]


def test_where_an_end_cannot_run_its_neighbour_is_asked() -> None:
    outcomes: dict[str, Outcome | None] = {v: ("host.pc",) if v < "6.12" else () for v in VERSIONS}
    outcomes |= {VERSIONS[-1]: None, VERSIONS[-2]: None}
    found = search(VERSIONS, (VERSIONS[0], VERSIONS[-1]), FakeProbe(outcomes))
    assert [(c.before, c.after) for c in found.changes] == [("6.1.13", "6.12.0")]


def test_nothing_that_can_run_ends_the_search() -> None:
    probe = FakeProbe(dict.fromkeys(VERSIONS))
    assert search(VERSIONS, (VERSIONS[0], VERSIONS[-1]), probe).changes == ()
    assert len(probe.asked) == 2


def test_confidence() -> None:
    assert confidence(5) == pytest.approx(0.96875)


def test_the_html_page_is_whole_and_harmless() -> None:
    cells = {
        ("kvm-nvhe@6.1.9-1", "a<b"): Cell("kvm-nvhe@6.1.9-1", "a<b", "k", DIVERGES, ("host.pc",), 1, 1),
        ("kvm-nvhe@6.12.9-1", "a<b"): Cell("kvm-nvhe@6.12.9-1", "a<b", "k", CLEAN, runs=1),
        ("kvm-nvhe@7.2.9-1", "a<b"): Cell("kvm-nvhe@7.2.9-1", "a<b", "k", CANNOT, why="no & headers"),
        ("kvm-nvhe@6.1.9-1", "calm"): Cell("kvm-nvhe@6.1.9-1", "calm", "k", CLEAN, runs=1),
    }
    table = Table(cells, [target for target, _ in cells], ["a<b", "calm"])
    found = Regression("some-bug", "It is wrong.", "Because.", "kvm", "none", ("c",), ("host.pc/WFX",), ("a<b",))
    text = page(table, "shadowfuzz matrix <x>", (found,))
    assert "<script" not in text and "a<b" not in text and "http" not in text.replace("http-equiv", "")
    assert 'title="kvm-nvhe@6.1.9-1: host.pc">A<' in text and 'title="kvm-nvhe@7.2.9-1: no &amp; headers">-<' in text
    assert '<th scope="row">a&lt;b</th>' in text and "1 more scenarios are clean" in text
    assert text.count('tabindex="0"') >= 4  # what is too wide scrolls by keyboard
    assert "some-bug" in text and ">6.1.9-1</td>" in text


def test_a_release_history_in_sentences() -> None:
    rows = [("6.1.1", SHOWS), ("6.1.9", SHOWS), ("6.5", HISTORY_CANNOT), ("6.12", SHOWS_NOT), ("7.0", SHOWS)]
    asked = tuple(Asked("kvm-nvhe", version, answer, 5, 5) for version, answer in rows)
    assert sentences(asked) == (
        "kvm-nvhe: 6.1.1 to 6.1.9 shows it",
        "kvm-nvhe: 6.12 does not show it",
        "kvm-nvhe: 7.0 shows it",
    )
    assert read_history(history_text(asked)) == asked
    assert read_history("[{}]") == read_history("no JSON") == ()
