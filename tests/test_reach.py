# SPDX-License-Identifier: Apache-2.0
"""What scenarios reached, from made-up edges: functions, handlers, decisions; a corpus distilled; the pages."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.cli.main import main
from fuzz.corpus.coverage_survey import possible_decisions, reached_always, reached_sometimes
from fuzz.corpus.minimise import minimise_corpus
from harness.coverage.kvm_code import Covered, decision_text, decisions, functions, handlers, matrix
from harness.coverage.kvm_handlers import NOT_SAID
from harness.report.guidance_trial import markdown, svg, value_at, wins
from harness.report.kvm_coverage import ReachReport, page, text, to_json
from harness.vm.config import PROJECT
from harness.vm.kernels.kvm_functions import EL1, EL2, Function, KvmText

HVC, SMC, WATCH = 0x1000, 0x1040, 0x1080
TEXT = KvmText(
    (
        Function("handle_hvc", EL1, HVC, SMC),
        Function("handle_smc", EL1, SMC, WATCH),
        Function("kvm_handle_guest_debug", EL1, WATCH, 0x10C0),
        Function("kvm_hyp_handle_sysreg", EL1, 0x10C0, 0x1100),
        Function("__kvm_nvhe_kvm_hyp_handle_sysreg", EL2, 0x2000, 0x2040),
    )
)
SIZES = {HVC: 8, HVC + 4: 8, HVC + 0x38: 16, SMC: 4}
ONE = Covered("one", frozenset({(0, HVC), (HVC, HVC + 4)}), frozenset({("hvc", True)}), frozenset({1}))
TWO = Covered(
    "two", frozenset({(0, HVC), (HVC, HVC + 0x38), (0, SMC + 4)}), frozenset({("hvc", False)}), frozenset({2})
)


def test_instructions_are_counted_once_and_in_their_function() -> None:
    rows = {row.function.name: row for row in functions(TEXT, (ONE, TWO), SIZES)}
    hvc = rows["handle_hvc"]
    # HVC and HVC+4 overlap by an instruction; what HVC+0x38 has behind the function's end is not counted.
    assert (hvc.blocks, hvc.instructions, hvc.of, hvc.scenarios) == (3, 5, 16, 2)
    assert (rows["handle_smc"].blocks, rows["handle_smc"].instructions, rows["handle_smc"].scenarios) == (1, 1, 1)
    assert rows["kvm_handle_guest_debug"].blocks == 0


def test_a_handler_is_entered_at_its_first_instruction() -> None:
    rows = {row.function: row for row in handlers(TEXT, (ONE, TWO), vhe=False)}
    assert rows["handle_hvc"].scenarios == 2
    assert rows["handle_hvc"].why is None
    smc = rows["handle_smc"]  # executed in the middle only
    assert smc.scenarios == 0
    assert smc.why is not None
    assert smc.why.todo
    assert smc.why.why == NOT_SAID
    debug = rows["kvm_handle_guest_debug"].why
    assert debug is not None
    assert debug.todo
    assert debug.why == NOT_SAID


def test_a_handler_that_only_forged_exits_enter_keeps_its_reason() -> None:
    forging = replace(ONE, edges=frozenset({(0, WATCH), (0, HVC)}), forged=True)
    rows = {row.function: row for row in handlers(TEXT, (forging, ONE), vhe=False)}
    debug, hvc = rows["kvm_handle_guest_debug"], rows["handle_hvc"]
    assert (debug.scenarios, debug.forged, debug.why is None) == (1, 1, False)
    assert (hvc.scenarios, hvc.forged, hvc.why) == (2, 1, None)


@pytest.mark.parametrize(
    ("vhe", "name"), [(False, "__kvm_nvhe_kvm_hyp_handle_sysreg"), (True, "kvm_hyp_handle_sysreg")]
)
def test_of_two_copies_only_the_one_that_runs_is_asked_for(vhe: bool, name: str) -> None:
    names = {row.function for row in handlers(TEXT, (), vhe=vhe)}
    assert {each for each in names if "hyp" in each} == {name}


def test_decisions_never_taken_have_a_reason() -> None:
    rows = decisions({("prep_hvc.halt", True), ("hvc", True), ("new", False)}, (ONE, TWO))
    found = {decision_text(row.decision): row for row in rows}
    assert found["hvc=yes"].scenarios == found["hvc=no"].scenarios == 1
    halted, new = found["prep_hvc.halt=yes"].why, found["new=no"].why
    assert halted is not None
    assert not halted.todo
    assert new is not None
    assert new.todo


@pytest.mark.parametrize("level", ["spec", "kernel"])
def test_the_model_can_decide_more_than_save_and_restore_do(level: str) -> None:
    found = possible_decisions(level)
    assert {("prep_hvc.cpu_on", True), ("prep_hvc.cpu_on", False)} <= found
    assert len(found) > 60


def test_the_matrix_counts_scenarios() -> None:
    assert matrix(TEXT, (ONE, TWO)) == {
        HVC: {("hvc", True): 1, ("hvc", False): 1},
        SMC: {("hvc", False): 1},
    }


def test_only_what_every_run_reached_counts() -> None:
    again = Covered("one", ONE.edges | {(HVC, SMC)}, ONE.decisions, frozenset({1, 7}))
    assert reached_always((ONE, again)) == ONE
    assert reached_sometimes((ONE, again)) - reached_always((ONE, again)).goals == {(HVC, SMC), 7}


@given(st.lists(st.frozensets(st.integers(0, 12), max_size=6), max_size=12), st.randoms(use_true_random=False))
def test_a_distilled_corpus_reaches_the_same_with_nothing_superfluous(
    goals: list[frozenset[int]], rng: random.Random
) -> None:
    items = list(enumerate(goals))
    kept = minimise_corpus(items, lambda item: item[1], lambda item: item[0])
    reached = frozenset[int]().union(*goals)
    assert frozenset[int]().union(*(own for _, own in kept)) == reached
    for item in kept:
        assert frozenset[int]().union(*(own for other, own in kept if other != item[0])) != reached
    shuffled = items[:]
    rng.shuffle(shuffled)
    assert minimise_corpus(shuffled, lambda item: item[1], lambda item: item[0]) == kept


def test_the_simplest_is_kept() -> None:
    kept = minimise_corpus([("b", {1, 2}), ("a", {1, 2})], lambda item: item[1], lambda item: item[0])
    assert [name for name, _ in kept] == ["a"]


def a_report() -> ReachReport:
    rows = (ONE, TWO)
    return ReachReport(
        {"target": "made <up>"},
        2,
        {"lost.scn": "it died"},
        1,
        5,
        functions(TEXT, rows, SIZES),
        handlers(TEXT, rows, vhe=False),
        decisions({("prep_hvc.halt", True)}, rows),
        matrix(TEXT, rows),
    )


def test_the_report_says_what_is_never_reached_and_why() -> None:
    shown = text(a_report(), every_function=True)
    assert "exit handlers: 1 of 4 entered" in shown
    assert "decisions of the model: 2 of 3 taken" in shown
    assert "machine lost at lost.scn: it died" in shown
    todo, because = shown.index("TO DO"), shown.index("never, because")
    assert todo < because
    data = json.loads(json.dumps(to_json(a_report())))
    assert data["parts"][EL1] == {"functions": 2, "functions_of": 4, "instructions": 6, "instructions_of": 64}
    assert {row["function"]: row["decisions"] for row in data["matrix"]}["handle_smc"] == {"hvc=no": 1}


def test_the_page_is_markup_that_needs_nothing() -> None:
    shown = page(a_report())
    assert "made &lt;up&gt;" in shown
    assert "<script" not in shown
    assert "handle_smc" in shown


# ---- the trial -------------------------------------------------------------------------------------------------------


def a_trial() -> dict[str, object]:
    def campaign(mode: str, *edges: int) -> dict[str, object]:
        points = [
            {"second": s + 0.5, "edges": e, "decisions": 7, "scenarios": 10 * s, "checked_exits": 100}
            for s, e in enumerate(edges)
        ]
        return {"mode": mode, "seed": 1, "corpus": 3, "points": points}

    rates = [{"exits_per_s": 100.0, "cpu_us": 50.0}]
    return {
        **{"target": "t", "kernel_release": "6.1", "level": "spec", "seconds": 2, "runs": 2, "jobs": 1, "seed": 1},
        **{"cores": 2, "load": 0.1},
        "cost": {"bare": rates, "watched": [{"exits_per_s": 98.0, "cpu_us": 51.0}]},
        "campaigns": [
            *(campaign("model", 100, 200), campaign("model", 90, 220)),
            *(campaign("kvm", 100, 300), campaign("kvm", 100, 210)),
            *(campaign("both", 100, 400), campaign("both", 100, 410)),
        ],
        "exclusive": {mode: {"edges": 1, "functions": ["f"]} for mode in ("model", "kvm", "both")},
    }


def test_a_course_holds_its_last_value() -> None:
    points = [{"second": 0.5, "edges": 3.0}, {"second": 1.5, "edges": 5.0}]
    assert [value_at(points, "edges", second) for second in (0.0, 1.0, 2.0)] == [0.0, 3.0, 5.0]


def test_wins_compare_every_pair_of_runs() -> None:
    assert wins([3, 5], [3, 4]) == (2, 1, 1)


def test_the_page_of_a_trial_says_who_found_more() -> None:
    shown = markdown(a_trial())
    assert "guided by both against model: median +195; more in 4, equal in 0, fewer in 0 of 4 pairs" in shown
    assert "guided by kvm against model: median +45; more in 3, equal in 0, fewer in 1 of 4 pairs" in shown
    assert "0.98 of the rate, and 1.02 of the CPU time" in shown
    assert svg(a_trial()).count("<polygon") == 6


def test_the_stored_trial_is_what_the_documents_show() -> None:
    data = json.loads((PROJECT / "docs" / "coverage.json").read_text())
    assert (PROJECT / "docs" / "coverage.md").read_text() == markdown(data)
    assert (PROJECT / "docs" / "coverage.svg").read_text() == svg(data)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["coverage", "/nowhere/a.scn"], "cannot be read"),
        (["coverage", "--repeat", "0"], "from 1 to 100"),
        (["cmin", "/nowhere", "out"], "expected a directory"),
        (["coverage-trial", "--page", "/nowhere"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_cmin_writes_into_no_directory_that_has_something() -> None:
    assert main(["cmin", str(PROJECT / "corpus" / "seeds"), str(PROJECT / "corpus")]) == 2
