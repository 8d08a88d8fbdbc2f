# SPDX-License-Identifier: Apache-2.0
"""What scenarios exercise: which step an exit is counted for, and what counts as judged."""

from __future__ import annotations

from harness.arch.exits import EC_BY_NAME, EC_SHIFT, IL_BIT
from harness.coverage.exercised_steps import BEGIN, NO_EXIT, Exercise, StepAtExit
from harness.findings.checked import Comparison
from harness.layout import CODE, VECTORS
from harness.scenario.scenario import parse
from harness.trace.events import Event
from tests.support import traces
from tests.support.traces import indexed

HVC, DABT = (EC_BY_NAME[name] << EC_SHIFT | IL_BIT for name in ("HVC64", "DABT_LOW"))


def exercise(steps: str, events: list[Event], *compared: Comparison) -> Exercise:
    scenario = parse(f"shadowfuzz-scenario 1\nabout A test.\n{steps}\n")
    found = Exercise()
    found.add(scenario, indexed(events), compared)
    return found


def test_an_exit_is_counted_for_the_instruction_that_trapped() -> None:
    start = traces.state()
    behind = traces.but(start, pc=CODE.base + 4)
    at_load = traces.but(start, pc=CODE.base + 8)
    events = [
        *(traces.entry(start), traces.trap(behind, HVC)),  # the return address of a call is the next instruction
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
