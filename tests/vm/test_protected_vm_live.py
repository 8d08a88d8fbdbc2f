# SPDX-License-Identifier: Apache-2.0
"""Protected VMs: the host loses access to donated pages, and a kernel without support reports that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.arch.cpu_models import cpu_model
from harness.findings.check import check
from harness.protocol import OP_WRITE
from harness.scenario.scenario import Scenario, parse
from harness.trace.events import EXIT, Host, Switch, Trace
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.executor import Executor
from tests.vm.running import CATALOGUE, SEEDS, booted

TARGET = "kvm-7.3-protected"
HEADER = "shadowfuzz-scenario 1\nabout A protected VM.\nhvc 0x0\nvcpu p.0\n"


def scenario(*steps: str) -> Scenario:
    return parse(HEADER + "\n".join(steps) + "\n", "here")


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with booted(TARGET) as running:
        yield running


def writes(trace: Trace) -> list[int]:
    return [event.error for event in trace.events if isinstance(event, Host) and event.op == OP_WRITE]


def test_donated_pages_are_inaccessible_to_the_host(executor: Executor) -> None:
    touching = ("set x21 0x40022000", "hvc 0x0", "write 0x40022000 0x1234", "ldr x5, [x21]", "hvc 0x1")
    trace = executor.run(scenario(*touching, "write 0x40022000 0x5678", "ldr x6, [x21]", "hvc 0x2"))
    assert trace.status == "ok"
    assert writes(trace) == [0, 14], "the second write fails (EFAULT)"
    last = [event for event in trace.events if event.context == 4][-1]
    assert not isinstance(last, Host)
    assert (last.get("x5"), last.get("x6")) == (0x1234, 0x1234)


def test_it_ends_with_its_scenario(executor: Executor) -> None:
    """Later scenarios in the same VMs find memory and vCPU in their initial state."""
    seed = scenario("set x21 0x40022000", "hvc 0x0", "str x21, [x21]", "ldr x5, [x21]", "hvc 0x1")
    cpu = cpu_model(load_config(TARGET).cpu)
    for fresh in (False, False, True):
        trace = executor.run(seed, fresh_vm=fresh)
        checked = check(seed, trace, "spec", cpu, CATALOGUE)
        assert (trace.status, checked.unexplained) == ("ok", ())


def test_a_kernel_that_has_none_says_so() -> None:
    with booted(DEFAULT_TARGET) as running:
        trace = running.run(SEEDS["protected_vm"])
        assert trace.status == "absent"
        assert running.run(SEEDS["two_vms_take_turns"]).status == "ok"


def test_two_vcpus_share_its_memory_and_keep_their_registers(executor: Executor) -> None:
    seed = SEEDS["protected_vm_two_vcpus"]
    for fresh in (True, False):
        trace = executor.run(seed, fresh_vm=fresh)
        checked = check(seed, trace, "spec", cpu_model(load_config(TARGET).cpu), CATALOGUE)
        assert (trace.status, checked.unexplained) == ("ok", ())
        assert checked.relations["isolate"] > 8
        exits = [event for event in trace.events if isinstance(event, Switch) and event.kind == EXIT]
        assert [e.get("x7") for e in exits if e.context == 7 and e.get("x9")][:1] == [0x1111], (
            "the value that the other vCPU stored"
        )
        assert {e.get("mpidr_el1") & 0xFF for e in exits if e.context == 7} == {1}
        assert any(e.get("x0") == 0x77 for e in exits if e.context == 7), "started by the other vCPU's CPU_ON"
