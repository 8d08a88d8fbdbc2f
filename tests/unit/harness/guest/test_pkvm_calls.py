# SPDX-License-Identifier: Apache-2.0
"""What a protected VM gets from pKVM itself, and what must be reported to its host."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from fuzz.generate.idioms import other_vcpu
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX, MASK64
from harness.guest import pkvm_calls
from harness.guest.context import GuestContext
from harness.guest.instruction_fetch import is_call
from harness.guest.walk import Goal, walk
from harness.layout import CODE, DATA, MMIO, PROTECTED
from harness.model.replay import predict
from harness.protocol import FLAGS_VCPU_SHIFT, FORGE, OP_WRITE
from harness.relations import contract
from harness.relations.divergence import Divergence
from harness.relations.donated_memory import compare_donated_memory
from harness.relations.host import expected_entry_states
from harness.relations.memory_slots import protected_may_succeed
from harness.relations.save_restore import compare_round, why_not_comparable
from harness.report.sites import place_of
from harness.scenario.code_layout import Code, base_of, code_of
from harness.scenario.memory_slots import DEFAULT, Slot, regions
from harness.scenario.requirements import needs_protected
from harness.scenario.scenario import Step, parse
from harness.trace.environment import WORLDS
from harness.trace.events import HOST, Host, Switch
from harness.trace.rounds import Round
from tests.support.rounds import S
from tests.support.traces import but, entry, esr, host_reset, host_set, indexed, irq, rounds, state, trap, user

AT, HVC = CODE.base, encode("hvc", 0)
OWN = Code({AT: HVC}, protected=True)
CPU = cpu_model("cortex-a72")
MARK = PROTECTED << FLAGS_VCPU_SHIFT


@pytest.mark.parametrize(
    ("function", "arguments", "result", "unknown"),
    [
        (pkvm_calls.MEMINFO, (0, 0, 0), 4096, 0),
        (pkvm_calls.MEMINFO, (0, 1, 0), MASK64 - 2, 0),
        (pkvm_calls.SHARE, (DATA.base, 0, 0), 0, MASK64 - 2),
        (pkvm_calls.SHARE, (DATA.base + 8, 0, 0), MASK64 - 2, 0),
        (pkvm_calls.UNSHARE, (DATA.base, 0, 1), MASK64 - 2, 0),
        (pkvm_calls.FEATURES, (0, 0, 0), None, MASK64),
    ],
)
def test_calls_that_el2_answers(function: int, arguments: tuple[int, ...], result: int | None, unknown: int) -> None:
    before = state(x0=function, x1=arguments[0], x2=arguments[1], x3=arguments[2])
    found = walk(before, Goal(AT + 4), GuestContext(OWN, CPU))
    assert found.state is not None and found.unknown.get(0, (0, ""))[0] == unknown
    assert result is None or found.state[0] == result
    assert {1, 2, 3} <= found.unknown.keys()
    assert walk(before, Goal(AT + 4), GuestContext(Code({AT: HVC}), CPU)).certain, "in any other VM the host is asked"
    exit_ = trap(but(before, pc=AT + 4), esr("WFX"))
    assert not is_call(before, HVC, exit_, protected=True) and is_call(before, HVC, exit_)


def test_no_other_vm_has_these_calls() -> None:
    for function in (pkvm_calls.MEMINFO, pkvm_calls.SHARE, pkvm_calls.UNSHARE):
        exit_ = trap(but(S, x0=function), esr("HVC64"))
        assert contract.call_status(exit_) == frozenset({MASK64})


@pytest.mark.parametrize("mark", [0, MARK])
def test_an_access_that_nobody_can_decode(mark: int) -> None:
    """KVM_RUN fails, or userspace gets an exit; of a protected VM it must get no more, so the guest takes an abort."""
    before = but(S, pc=AT)
    exit_ = trap(before, 0x9200_0005, far=MMIO.base + 0x10, hpfar=MMIO.base >> 8, marks=mark)
    after = contract.abort_state(exit_) if mark else before
    (_, round_) = rounds((entry(before, marks=mark), exit_, user(after, 28, marks=mark), entry(after, marks=mark)))
    (found,) = expected_entry_states(round_)
    assert not found.undetermined and tuple(found.values) == after
    assert (found.values[INDEX["esr_el1"]] == 0x9600_0010) == bool(mark)


def writes(
    *,
    mark: int = MARK,
    x0: int = 0,
    page: int = DATA.base,
    after: int = 4,
    error: int = 0,
    interrupts: tuple[int, ...] = (),
    moved: tuple[Host, ...] = (),
) -> list[Divergence]:
    """The guest stores to DATA, traps ``after`` bytes later, and its host writes to ``page``.

    It is interrupted ``interrupts`` bytes after the store.
    """
    before = but(S, pc=AT, x0=x0)
    fault = trap(before, 0x9200_0047, far=DATA.base, hpfar=DATA.base >> 8, marks=mark)
    on = trap(but(before, pc=AT + after), esr("WFX"), marks=mark)
    host = Host(HOST, 3, OP_WRITE, page, 1, error, True, mark >> FLAGS_VCPU_SHIFT)
    between = [event for n in interrupts for event in _interrupted(but(before, pc=AT + n), mark)]
    return list(
        compare_donated_memory(
            indexed((entry(before, marks=mark), fault, *moved, entry(before, marks=mark), *between, on, host))
        )
    )


def _interrupted(at: tuple[int, ...], mark: int) -> tuple[Switch, Switch]:
    return irq(at, marks=mark), entry(at, marks=mark)


def test_what_a_protected_vm_touched_refuses_its_host() -> None:
    (found,) = writes()
    assert (found.name, found.expected, found.observed) == ("host.write", "refused", "taken")
    assert (found.event, found.step) == (3, 3)
    assert writes(error=14) == [], "as it should be"
    assert writes(mark=0) == [], "any other VM's memory is its host's"
    assert writes(page=DATA.base + 0x1000) == [], "nothing touched that page"
    assert writes(after=0) == [], "it may not have got the page yet"
    assert writes(x0=pkvm_calls.SHARE) == [], "it may be shared"
    assert len(writes(interrupts=(0, 4))) == 1, "interrupts change nothing"
    for done in (host_set("pc", AT + 4), host_reset()):
        assert writes(moved=(done._replace(context=PROTECTED),)) == [], "it made progress without the access"
    for nothing in (host_set("pc", AT + 4, error=22), host_set("x1", AT + 4)):
        assert len(writes(moved=(nothing._replace(context=PROTECTED),))) == 1, "it did not move"
    assert writes(interrupts=(8,)) == [], "something else was done meanwhile"


def test_a_page_is_donated_once() -> None:
    """With two slots that show one page, the guest gets it at the address that it touches first."""
    twice = (*DEFAULT, Slot(2, "rw", 0x8000_0000, 0x1000, DATA.base))
    for mark, refused, slots in ((MARK, False, twice), (MARK, True, DEFAULT), (0, True, twice)):
        world = replace(WORLDS[PROTECTED if mark else 0], regions=regions(slots))
        assert world.is_aliased(DATA.base + 8) == (slots == twice) and not world.is_aliased(DATA.base + 0x1000)
        exit_ = trap(S, 0x9200_0005, far=DATA.base, hpfar=DATA.base >> 8, marks=mark)
        done = Round(0, exit_, (user(S, 0, error=1, marks=mark),), (), entry(S, marks=mark), world)
        assert done.action.outcome == "fail:EPERM"
        found = {d.name: d.observed for d in compare_round(done, predict(done, "spec"))}
        assert found == ({"save.class": "fail:EPERM"} if refused else {})


def test_a_forged_abort_on_memory_that_el2_gave_away() -> None:
    where = {"far": DATA.base, "hpfar": DATA.base >> 8, "marks": MARK | FORGE["esr"]}
    (_, forged) = rounds((entry(S, marks=MARK), trap(S, 0x9200_0005, **where), entry(S, marks=MARK)))
    assert "protected" in why_not_comparable(forged)
    (_, real) = rounds((entry(S, marks=MARK), trap(S, 0x9200_0005, **where | {"marks": MARK}), entry(S, marks=MARK)))
    assert not why_not_comparable(real)


def test_slots_of_a_protected_vm() -> None:
    there, both = frozenset({True}), frozenset({True, False})
    for kind, allowed in (("rw", both), ("ro", frozenset({False})), ("log", frozenset({False}))):
        assert protected_may_succeed(Slot(1, kind, DATA.base, 0x1000, DATA.base), there) == allowed


def test_each_vm_has_its_own_code() -> None:
    scenario = parse("shadowfuzz-scenario 1\nabout Two.\nhvc 0x1\nvcpu p.0\nhvc 0x2\n", "here")
    plain, own = code_of(scenario), code_of(scenario, protected=True)
    assert plain.keys().isdisjoint(own.keys())
    assert plain[AT] == encode("hvc", 1) and encode("hvc", 2) in own.values()


@pytest.mark.parametrize(("marks", "step"), [(0, None), (MARK, 2)])
def test_a_step_is_in_the_vm_that_has_it(marks: int, step: int | None) -> None:
    """A guest may come to where only another VM has code; that is no step of the scenario."""
    scenario = parse("shadowfuzz-scenario 1\nabout Two.\nhvc 0x1\nvcpu p.0\nhvc 0x2\n", "here")
    there = but(S, pc=base_of(PROTECTED))
    assert place_of(scenario, entry(there, marks=marks), trap(there, esr("SYS64"), marks=marks)).step == step


def test_the_mutator_goes_there_only_where_a_seed_was() -> None:
    seen, other = (Step("vcpu", (name,)) for name in ("p.0", "p.1"))
    rng = Random(1)
    without = [step for _ in range(300) for step in other_vcpu(rng, ())]
    steps = [step for _ in range(300) for step in other_vcpu(rng, (seen,))]
    assert not {seen, other} & set(without) and {seen, other} <= set(steps)
    calls = [i for i, step in enumerate(steps) if step == Step("set", ("x1", 1))]
    assert any(steps[i - 3 : i - 2] == [seen] and other in steps[i:][:6] for i in calls), "the one calls the other on"
    assert {Step("set", ("x0", function)) for function in (pkvm_calls.SHARE, pkvm_calls.UNSHARE)} <= set(steps)
    assert any(step.kind == "write" for step in steps)


def test_who_needs_one() -> None:
    text = "shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n"
    assert not needs_protected(parse(text, "here"))
    for name in ("p.0", "p.1"):
        assert needs_protected(parse(f"{text}vcpu {name}\nhvc 0x0\n", "here"))
