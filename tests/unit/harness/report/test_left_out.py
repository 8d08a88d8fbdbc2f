# SPDX-License-Identifier: Apache-2.0
"""Comparisons that were not made, with place and missing knowledge, and failed host steps."""

from __future__ import annotations

from harness.findings.checked import Gap
from harness.protocol import OPS
from harness.report.left_out import NEEDS, NOT_SAID, FailedStep, failed_steps, left_out, needs
from harness.scenario.scenario import Scenario, Step
from harness.trace.events import Host, Trace
from tests.support.traces import HOST, entry, esr, state, trap

S = state()
EVENTS = (entry(S, step=0), trap(S, esr("HVC64"), step=1), trap(S, esr("HVC64"), step=0xFFFF_FFFF))
TRACE = Trace(EVENTS, "ok", 0, False)


def test_each_gap_has_its_event() -> None:
    gaps = [Gap("switch", "loaded from RAM", 1), Gap("host", "why", 0), Gap("a", "b", 2), Gap("lists", "c", None)]
    found = left_out(gaps, TRACE)
    assert [one.place for one in found] == [
        "event 1, step 1, HVC64",
        "event 0, step 0",
        "event 2, HVC64",
        "in the whole trace",
    ]
    assert found[0].needs == "a record of the value in memory at the access" and found[1].needs == NOT_SAID


def test_no_row_of_needs_is_hidden_by_one_before_it() -> None:
    for pattern, what in NEEDS:
        example = pattern.replace("*", "")
        assert needs(example) == what, pattern


def test_failed_host_steps_have_the_text_of_the_scenario() -> None:
    scenario = Scenario("S.", (), (Step("hvc", (0,)), Step("abort")))
    abort = Host(HOST, 1, OPS["abort"][0], 0, 0, 2, True)
    events = (abort, abort._replace(error=0), abort._replace(asked=False), abort._replace(step=7, error=999))
    found = failed_steps(scenario, Trace(events, "ok", 0, False))
    assert found == (FailedStep(1, "abort", "ENOENT"), FailedStep(7, "abort", "errno 999"))
