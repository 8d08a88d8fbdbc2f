# SPDX-License-Identifier: Apache-2.0
"""The coverage of KVM by scenarios, as text, JSON and a page."""

from __future__ import annotations

import json

from harness.coverage.kvm_code import Covered, decisions, functions, handlers, matrix
from harness.report.kvm_coverage import ReachReport, page, spans, text, to_json
from harness.vm.kernels.kvm_functions import EL1, EL2, Function, KvmText


def test_lines_in_a_row_are_shown_as_one_span() -> None:
    assert spans({7, 3, 4, 5, 9}) == "3-5, 7, 9"


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
    assert shown.count("<script") == 1, "only the report's script"
    assert "handle_smc" in shown
