# SPDX-License-Identifier: Apache-2.0
"""Memory slots and words of memory on a real target: the guest finds them, the next scenario does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.arch import exits
from harness.arch.exceptions import HCR_VIRTUAL
from harness.scenario.scenario import Scenario, parse
from harness.trace.events import ENTRY, EXIT, USER, Host, Switch, Trace
from harness.trace.rounds import EXIT_MMIO
from harness.vm.executor import Executor
from tests.vm.running import SEEDS, booted, run_to_end

TARGET = "kvm-6.12-nvhe"
"""A release whose reset leaves a virtual SError pending."""
PLAIN = """shadowfuzz-scenario 1
about Loads and stores in RAM with default slots.
reg x11 0x40021000
reg x12 0x400ffff8
ldr x4, [x11]
ldr x5, [x12]
str x11, [x11]
str x11, [x12]
hvc 0x0
"""
FORGED = """shadowfuzz-scenario 1
about An external abort that KVM injects as an SError, which stays pending.
reg x11 0x9000000
ldr x3, [x11]
forge esr 0x93830010
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with booted(TARGET) as running:
        yield running


def run(executor: Executor, scenario: Scenario) -> Trace:
    return run_to_end(executor, scenario, fresh_vm=False)


def switches(trace: Trace, kind: int) -> list[Switch]:
    return [event for event in trace.events if isinstance(event, Switch) and event.kind == kind]


def devices(trace: Trace) -> list[int]:
    return [user.mmio_addr for user in switches(trace, USER) if user.code == EXIT_MMIO and not user.error]


def test_a_slot_that_is_gone_is_a_device(executor: Executor) -> None:
    trace = run(executor, SEEDS["slot_gone_and_back"])
    assert devices(trace) == [0x4003_0000, 0x4003_0000]
    asked = [event for event in trace.events if isinstance(event, Host) and event.step != 0xFFFF_FFFF and event.asked]
    assert not any(host.error for host in asked)


def test_both_views_of_a_page_show_the_words_that_it_starts_with(executor: Executor) -> None:
    last = switches(run(executor, SEEDS["slot_shown_twice"]), EXIT)[-1]
    assert last.get("x4") == 0x1122_3344_5566_7788
    assert last.get("x5") == 0xFEDC_BA98_7654_3210
    assert last.get("x7") == 0x4002_1000, "stored through the one, loaded through the other"


def test_a_dirty_log_makes_mapped_pages_fault_again(executor: Executor) -> None:
    """A store to a page that was written before faults only because of the dirty log."""
    trace = run(executor, SEEDS["slot_dirty_log"])
    log = next(i for i, event in enumerate(trace.events) if isinstance(event, Host) and event.step == 3)
    faults = [e for e in trace.events[log:] if isinstance(e, Switch) and e.exit_class == "DABT_LOW"]
    assert any(e.far == 0x4003_0000 and e.esr & exits.FSC_TYPE == exits.FSC_PERMISSION for e in faults)
    assert not devices(trace)


@pytest.mark.parametrize("before", ["slot_gone_and_back", "slot_moved", "slot_read_only", "slot_shown_twice", "forged"])
def test_nothing_reaches_the_next_scenario(executor: Executor, before: str) -> None:
    run(executor, parse(FORGED) if before == "forged" else SEEDS[before])
    trace = run(executor, parse(PLAIN))
    assert trace.status == "ok"
    assert not devices(trace), "all of RAM is mapped"
    assert not any(entry.hcr & HCR_VIRTUAL for entry in switches(trace, ENTRY)), "no SError either"
    last = switches(trace, EXIT)[-1]
    assert (last.get("x4"), last.get("x5")) == (0, 0), "and empty"
