# SPDX-License-Identifier: Apache-2.0
"""A trace is compared once more from its first run on, with the rules that are switched on, and once a set."""

from __future__ import annotations

from unittest.mock import patch

from harness.arch.cpu_models import cpu_model
from harness.findings import check_again
from harness.findings.attribution import StillDiffers
from harness.findings.check_again import Again
from harness.guest.el2_errata import DROPS_LINES, DROPS_SERROR, SERROR_AGAIN
from harness.relations.evidence import TraceEvidence, predict_runs
from harness.scenario.code_layout import codes_of
from harness.scenario.scenario import load
from harness.trace.indexed import index_trace
from harness.trace.tracefile import load_trace
from tests.support.paths import CORPUS, GOLDEN

CPU = cpu_model("cortex-a72")


def recorded() -> TraceEvidence:
    """Interrupt lines of a VM on Linux 6.19.11 in protected mode, which drops them."""
    scenario = load(CORPUS / "regressions" / "interrupt_lines.scn")
    indexed = index_trace(load_trace(GOLDEN / "causes" / "interrupt_lines.6.19.11.trace.json"))
    return TraceEvidence(indexed, codes_of(scenario), {}, None, CPU)


def test_what_differs_without_rules_and_with_one() -> None:
    again = Again(recorded(), {})
    without = again(frozenset())
    assert {name for left in without.values() for name in left.names} == {
        *("flush.hcr_el2", "switch.hcr_el2", "switch.pc")
    }
    assert not any(again(frozenset({DROPS_LINES})).values())
    assert again(frozenset({DROPS_SERROR})) == without, "another rule changes nothing"


def test_each_set_of_rules_is_compared_once() -> None:
    again = Again(recorded(), {})
    with patch.object(check_again, "predict_runs", wraps=predict_runs) as predicted:
        assert again(frozenset({DROPS_LINES})) is again(frozenset({DROPS_LINES}))
    assert predicted.call_count == 1


def test_a_run_that_a_rule_leaves_open_is_not_predicted_but_what_was_loaded_for_it_is() -> None:
    """The step and the SError compete; what the host's copy has of the SError still shows."""
    scenario = load(GOLDEN / "causes" / "serror_while_step_begins.scn")
    indexed = index_trace(load_trace(GOLDEN / "causes" / "serror_while_step_begins.7.3.4.trace.json"))
    whole = TraceEvidence(indexed, codes_of(scenario), {}, None, CPU)
    without = Again(whole, {})(frozenset())
    (event,) = (event for event in without if indexed.trace.events[event].exit_class == "SOFTSTP_LOW")
    assert without[event] == StillDiffers(frozenset({"sync.hcr_el2"}))
    assert event not in Again(whole, {})(frozenset({SERROR_AGAIN}))
    of_run = frozenset({"switch.pc"})
    assert Again(whole, {event: of_run})(frozenset({SERROR_AGAIN}))[event] == StillDiffers(of_run, of_run)
