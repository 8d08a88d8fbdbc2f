# SPDX-License-Identifier: Apache-2.0
"""The recorded trace as results of a replay, and golden files to compare reports of it with."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX
from harness.findings.check import check
from harness.findings.known_divergences import Catalogue
from harness.report import terminal
from harness.report.replay_result import Job, Lost, Ran, TargetResult
from harness.report.sites import sites
from harness.report.terminal import Style
from harness.scenario.scenario import load
from harness.trace.events import EXIT, Switch, Trace
from harness.trace.tracefile import load_trace
from tests.support.paths import GOLDEN

LEVEL = "spec"


@cache
def recorded() -> Trace:
    return load_trace(GOLDEN / "mixture.trace.json")


def run(trace: Trace, name: str = "mixture.scn", repeat: int = 1) -> Ran:
    scenario = load(GOLDEN / "mixture.scn")
    checked = check(scenario, trace, LEVEL, cpu_model("cortex-a72"), Catalogue.load(GOLDEN / "known", LEVEL))
    job = Job(f"some/where/{name}", name, scenario, repeat)
    return Ran(job, trace, checked, sites(scenario, trace, LEVEL, checked.judged))


def tampered() -> Trace:
    """Return the recorded trace with a register that the world switch lost, a dropped record and a failed agent."""
    trace = recorded()
    at = max(i for i, e in enumerate(trace.events) if e.kind == EXIT and i < 20)
    event = trace.events[at]
    assert isinstance(event, Switch)
    values = list(event.values)
    values[INDEX["x19"]] ^= 0xFF00_0000_0000_0001
    changed = event._replace(values=tuple(values))
    events = (*trace.events[:at], changed, *trace.events[at + 1 :])
    return replace(trace, events=events, dropped=2, status="stuck")


def results() -> tuple[TargetResult, ...]:
    """Return results of two targets, one of which was lost twice."""
    good = TargetResult("kvm-nvhe", "6.1.0-x", 1, 1.25, (run(recorded()), run(recorded(), repeat=2)), ())
    job = run(recorded()).job
    lost = (
        Lost(job, "QEMU ended with status 1", "[    1.0] Kernel panic\n\x1b[2J---[ end"),
        Lost(None, "the agent was not ready within 60 s", ""),
    )
    bad = TargetResult("kvm-vhe", "6.1.0-x", 3, 61.5, (run(tampered()), run(recorded(), repeat=2)), lost)
    return good, bad


def text_report(style: Style, known: bool) -> str:
    lines: list[str] = []
    for ran in (run(recorded()), run(tampered(), "tampered.scn", 2)):
        lines += [terminal.header_line(style), terminal.status_line(ran, style)]
        lines += terminal.sites(ran, LEVEL, style, known=known)
    lines += [terminal.lost_line("kvm-vhe", lost, style) for lost in results()[1].lost]
    lines += ["", terminal.summary(results(), LEVEL, style, known=known), ""]
    return "\n".join(lines)


def compare_with(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text(), f"{name} differs; UPDATE_GOLDEN=1 writes it anew"
