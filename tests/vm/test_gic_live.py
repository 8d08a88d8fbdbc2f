# SPDX-License-Identifier: Apache-2.0
"""The VM with an in-kernel GICv3 on a real target: interrupts arrive, and do not affect the next scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness import protocol
from harness.arch.cpu_models import cpu_model
from harness.findings.check import check
from harness.gic.registers import SPURIOUS
from harness.layout import CONTEXTS, GIC_MACHINE, VECTORS
from harness.protocol import OP_GIC_LINE
from harness.relations.gic_list_registers import ACTIVE, PENDING, STATE, view
from harness.report.sites import sites
from harness.scenario.code_layout import base_of
from harness.scenario.scenario import Scenario, Step
from harness.trace.events import EXIT, USER, Host, Switch, Trace
from harness.trace.rounds import EXIT_MMIO
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.executor import Executor
from tests.vm.running import CATALOGUE, SEEDS, booted

IRQ_VECTOR = VECTORS.base + 0x280
INTID = 33
CONTEXT = next(i for i, context in enumerate(CONTEXTS) if context.machine == GIC_MACHINE)
CPU = cpu_model(load_config(DEFAULT_TARGET).cpu)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with booted(DEFAULT_TARGET) as running:
        yield running


def exits(trace: Trace) -> list[Switch]:
    return [event for event in trace.events if isinstance(event, Switch) and event.kind == EXIT]


def test_an_spi_arrives_and_is_acknowledged_without_userspace(executor: Executor) -> None:
    trace = executor.run(SEEDS["gic_spi_interrupts_guest"])
    assert IRQ_VECTOR in {exit_.get("pc") for exit_ in exits(trace)}
    last = [exit_ for exit_ in exits(trace) if exit_.context][-1]
    assert (last.get("x7"), last.get("x8")) == (INTID, SPURIOUS)
    users = [event for event in trace.events if isinstance(event, Switch) and event.kind == USER]
    assert users
    assert EXIT_MMIO not in {user.code for user in users}


def test_without_its_line_nothing_arrives_also_where_it_just_was_raised(executor: Executor) -> None:
    """The predictions of the two runs differ: each run must diverge from the other's prediction."""
    scenario = SEEDS["gic_spi_interrupts_guest"]
    quiet = replace(scenario, steps=tuple(step for step in scenario.steps if step.kind != "gic_line"))
    for one in (scenario, quiet, scenario, quiet):
        trace = executor.run(one, fresh_vm=False)
        assert check(one, trace, "spec", CPU, CATALOGUE).unexplained == ()
        assert (IRQ_VECTOR in {exit_.get("pc") for exit_ in exits(trace)}) is (one is scenario)


def test_an_interrupt_that_kvm_lost_would_be_seen(executor: Executor) -> None:
    """A run in which another line was raised, checked as if the right one had been raised."""
    scenario = SEEDS["gic_spi_interrupts_guest"]
    other = Step("gic_line", ("spi", INTID + 1, 1))
    steps = tuple(other if step.kind == "gic_line" and step.args[2] else step for step in scenario.steps)
    trace = executor.run(replace(scenario, steps=steps))
    events = tuple(
        e._replace(a=protocol.GIC_LINES["spi"] | INTID) if isinstance(e, Host) and e.op == OP_GIC_LINE else e
        for e in trace.events
    )
    checked = check(scenario, replace(trace, events=events), "spec", CPU, CATALOGUE)
    assert "switch.pc" in {divergence.name for divergence in checked.unexplained}


def test_each_record_of_a_vcpu_with_a_gic_has_what_it_was_shown(executor: Executor) -> None:
    scenario = SEEDS["gic_spi_interrupts_guest"]
    trace = executor.run(scenario)
    wanted = [i for i, e in enumerate(trace.events) if isinstance(e, Switch) and e.context == CONTEXT]
    assert [lists.event for lists in trace.lists] == wanted, "a vCPU without a GIC has no such records"
    states = [view(lists.values).lr[0] & (STATE | 0x3FF) for lists in trace.lists]
    changes = [state for state, before in zip(states, [0, *states], strict=False) if state != before]
    assert changes[:3] == [INTID | PENDING, INTID | ACTIVE, INTID], "acknowledged, then ended (EOI)"
    users = [view(lists.values) for lists in trace.lists if trace.events[lists.event].kind == USER]
    assert {sum(word.bit_count() for word in user.active) for user in users} == {0, 1}
    assert {user.vmcr >> 24 for user in users} == {0xF0}
    plain = executor.run(SEEDS["single_trap"], fresh_vm=False)
    assert plain.lists == (), "no GIC: no cost"


def test_a_list_register_that_kvm_wrote_wrong_would_be_seen(executor: Executor) -> None:
    """One changed word of one record: a list register at an entry and an exit, a control register after a return."""
    scenario = SEEDS["gic_spi_interrupts_guest"]
    trace = executor.run(scenario)
    names = [word.name for word in protocol.LIST_WORDS]
    at = next(i for i, lists in enumerate(trace.lists) if view(lists.values).lr[0] & PENDING)
    back = next(i for i in range(at, len(trace.lists)) if trace.events[trace.lists[i].event].kind == EXIT)
    user = next(i for i in range(at, len(trace.lists)) if trace.events[trace.lists[i].event].kind == USER)
    for number, word, bit, name in (
        (at, "ich_lr0_el2", 1 << 54, "host.gic_list"),
        (back, "ich_lr0_el2", STATE, "switch.ich_lr0_el2"),
        (user, "ich_vmcr_el2", 1 << 1, "switch.ich_vmcr_el2"),
        (user, "ich_ap1r0_el2", 1 << 3, "switch.ich_ap1r_el2"),
    ):
        values = list(trace.lists[number].values)
        values[names.index(word)] ^= bit
        changed = list(trace.lists)
        changed[number] = changed[number]._replace(values=tuple(values))
        checked = check(scenario, replace(trace, lists=tuple(changed)), "spec", CPU, CATALOGUE)
        assert name in {divergence.name for divergence in checked.unexplained}, word
        assert sites(scenario, trace, "spec", checked.judged)


def test_a_vcpu_that_comes_to_the_code_of_another_finds_nothing_old_there(executor: Executor) -> None:
    """This scenario does not use the window: it has traps, not code of the last scenario."""
    before = executor.run(SEEDS["gic_spi_interrupts_guest"], fresh_vm=False)
    assert before.status == "ok"
    steps = (Step("hvc", (0,)), Step("set", ("pc", base_of(CONTEXT))), Step("hvc", (1,)), Step("hvc", (2,)))
    stray = Scenario("Strays.", (), steps)
    assert check(stray, executor.run(stray, fresh_vm=False), "spec", CPU, CATALOGUE).unexplained == ()
