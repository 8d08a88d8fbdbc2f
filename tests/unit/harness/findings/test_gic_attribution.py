# SPDX-License-Identifier: Apache-2.0
"""What a GIC did belongs to an erratum only if a GIC with its rule predicts the trace; another effect does not.

The traces are recorded; each test changes one thing in one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from harness import protocol
from harness.arch.registers import INDEX
from harness.findings.check import check
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Finding, Subject, Tries, difference
from harness.findings.gic_attribution import NEVER, Scene, outcome
from harness.findings.regressions import errata_of, like, load_regressions
from harness.gic.departures import ACTIVE_FILL_LISTS, COMES_AFTER_END, ENABLE_LOSES, NONE, SHARED_INTERFACE
from harness.protocol import OP_GIC_LINE
from harness.relations.divergence import ANOTHER_CAUSE, Divergence
from harness.relations.errata import TargetErrata
from harness.relations.gic_errata import GIC_RULES, may_show
from harness.relations.gic_list_registers import ACTIVE, PENDING, PRIORITY_SHIFT, STATE
from harness.scenario.code_layout import codes_of
from harness.scenario.scenario import Scenario, load
from harness.trace.events import HOST, Host, Switch, Trace
from harness.trace.indexed import index_trace
from harness.trace.tracefile import load_trace
from tests.support.gic import CATALOGUE, CPU, VCPU
from tests.support.paths import CORPUS, GOLDEN

KEPT = load_regressions(CORPUS / "regressions" / "expected.toml")
LOST, ACKNOWLEDGED = "gic_disabled_while_pending.kvm-nvhe", "gic_acknowledge_after_enable.kvm-nvhe"
ENDED, FILLED = "gic_pending_while_active_and_disabled.kvm-nvhe", "gic_five_active.kvm-nvhe"
SHARED = "gic_interface_between_vms.kvm-vhe"
CAUSES = {
    LOST: ENABLE_LOSES,
    ACKNOWLEDGED: ENABLE_LOSES,
    ENDED: COMES_AFTER_END,
    FILLED: ACTIVE_FILL_LISTS,
    "gic_five_active.kvm-6.12-nvhe": ACTIVE_FILL_LISTS,
    SHARED: SHARED_INTERFACE,
}
WORDS = [word.name for word in protocol.LIST_WORDS]
JUDGED = [*range(6), *range(32, 41), *range(42, 45), *range(52, 56), 60, 61, 62, 63]
"""Bits of a list register that may not be otherwise."""

Change = Callable[[Trace], Trace]


@cache
def recorded(name: str) -> tuple[Scenario, Trace, TargetErrata]:
    scenario, _, target = name.partition(".")
    trace = load_trace(GOLDEN / "causes" / f"{name}.trace.json")
    own = GOLDEN / "causes" / f"{scenario}.scn"
    path = own if own.exists() else CORPUS / "regressions" / own.name
    return load(path), trace, errata_of(KEPT, target)


def checked(name: str, change: Change = lambda trace: trace, without: str = "") -> CheckResult:
    scenario, trace, errata = recorded(name)
    errata = errata._replace(gic=errata.gic - {without})
    return check(scenario, change(trace), "spec", CPU, CATALOGUE, errata=errata)


def shown(name: str, change: Change = lambda trace: trace, without: str = "") -> list[Divergence]:
    """What may be an erratum of a GIC's doing."""
    events = change(recorded(name)[1]).events
    found = checked(name, change, without).unexplained
    return [one for one in found if may_show(GIC_RULES, one, events[one.event].context)]


# Changes.


def words(*at: int, **values: int) -> Change:
    """Other words in the records of what a vCPU is shown of its GIC."""

    def change(trace: Trace) -> Trace:
        names = {WORDS.index(name): value for name, value in values.items()}
        return replace(
            trace,
            lists=tuple(
                one._replace(values=tuple(names.get(i, value) for i, value in enumerate(one.values)))
                if one.event in at
                else one
                for one in trace.lists
            ),
        )

    return change


def register(first: int, name: str, value: int, last: int = NEVER, context: int = VCPU) -> Change:
    """Another value in a register of a vCPU's, from an event on."""

    def change(trace: Trace) -> Trace:
        def changed(event: Switch) -> Switch:
            values = list(event.values)
            values[INDEX[name]] = value
            return event._replace(values=tuple(values))

        return replace(
            trace,
            events=tuple(
                changed(event)
                if isinstance(event, Switch) and event.context == context and first <= i <= last
                else event
                for i, event in enumerate(trace.events)
            ),
        )

    return change


def raised_again(at: int, intid: int) -> Change:
    """The line is lowered and raised before an event."""

    def change(trace: Trace) -> Trace:
        line = Host(HOST, trace.events[at].step, OP_GIC_LINE, protocol.GIC_LINES["spi"] | intid, 0, 0, True, VCPU)
        events = (*trace.events[:at], line, line._replace(b=1), *trace.events[at:])
        return replace(
            trace,
            events=events,
            lists=tuple(one._replace(event=one.event + 2 * (one.event >= at)) for one in trace.lists),
            vectors=tuple(one._replace(event=one.event + 2 * (one.event >= at)) for one in trace.vectors),
        )

    return change


# What is an erratum's.


@pytest.mark.parametrize("name", CAUSES)
def test_what_the_rule_predicts_is_the_erratums(name: str) -> None:
    assert {one.cause for one in shown(name)} == {CAUSES[name]}


def test_every_rule_has_a_trace() -> None:
    assert set(CAUSES.values()) == set(GIC_RULES)


@pytest.mark.parametrize("name", CAUSES)
def test_a_rule_that_is_switched_off_explains_nothing(name: str) -> None:
    found = shown(name, without=CAUSES[name])
    assert [one._replace(cause="") for one in found] == [one._replace(cause="") for one in shown(name)]
    cause = ANOTHER_CAUSE if recorded(name)[2].gic - {CAUSES[name]} and name != SHARED else ""
    assert {one.cause for one in found} == {cause}, "no rule that is left may show there, or none predicts it"


def test_a_bug_with_the_signature_of_a_kept_finding_shows() -> None:
    """Before 6.19 four active interrupts keep a fifth away: ICC_IAR1_EL1 gives 1023, as it does where enabling the
    distributor loses one.  Without a finding of its own it has another cause, and is new."""
    others = [row for row in KEPT if row.id != ACTIVE_FILL_LISTS]
    for target in ("kvm-nvhe", "kvm-6.12-nvhe"):
        scenario, trace, _ = recorded(f"gic_five_active.{target}")
        found = check(scenario, trace, "spec", CPU, CATALOGUE, errata=errata_of(others, target)).unexplained
        other = [one for one in found if one.cause == ANOTHER_CAUSE]
        assert [(one.name, one.expected, one.observed) for one in other if one.relation == "switch"] == [
            ("switch.x11", 44, 1023)
        ]
        assert ENABLE_LOSES not in {one.cause for one in found}
        for one in other:
            subject = Subject(target, "", "0" * 64, "spec")
            new = Finding("divergence", signature(one), subject, (difference(one),), 1, Tries(2, 2), Tries(2, 2), "")
            assert like(others, new) == ()


def test_the_kernel_that_does_it_right_shows_nothing() -> None:
    assert shown("gic_five_active.kvm-7.3-nvhe") == []


# What is not.

LR_ENDED = STATE | 1 << 60 | 0x20 << PRIORITY_SHIFT | 50
"""What the trace has at events 57 and 59: a disabled edge, active and pending."""
LR_LOST = PENDING | 1 << 60 | 0x80 << PRIORITY_SHIFT | 33
"""What it does not have at event 54: the interrupt that is lost."""
CHANGED: dict[str, tuple[str, Change, int, str]] = {
    # A change in the effect of an erratum: the trace, the change, the event at which it shows first, and where.
    "another INTID is acknowledged": (ACKNOWLEDGED, register(48, "x7", 34), 48, "switch.x7"),
    "what was not shown is acknowledged": (ACKNOWLEDGED, register(48, "x7", 33), 48, "switch.x7"),
    "lost though its line is raised again": (LOST, raised_again(59, 33), 61, "host.gic_list"),
    "lost while the distributor is enabled": (LOST, words(46, used_lrs=0), 46, "host.gic_list"),
    "what is shown is not taken": (LOST, words(54, used_lrs=1, ich_lr0_el2=LR_LOST), 55, "switch.pc"),
    "pending and not active": (ENDED, words(57, 58, ich_lr0_el2=LR_ENDED & ~ACTIVE), 57, "host.gic_list"),
    "another priority": (ENDED, words(57, 58, ich_lr0_el2=LR_ENDED ^ 0x60 << PRIORITY_SHIFT), 57, "host.gic_list"),
    "another INTID in the list register": (ENDED, words(57, 58, ich_lr0_el2=LR_ENDED ^ 1), 57, "host.gic_list"),
    "the active bit is kept": (ENDED, words(60, ich_lr0_el2=LR_ENDED), 60, "switch.ich_lr0_el2"),
    "a level-sensitive one": (ENDED, register(29, "x3", 0, 30), 44, "host.gic_list"),
    "an interrupt that never came": (ENDED, words(44, used_lrs=0), 44, "host.gic_list"),
    "the last one acknowledged is another": (FILLED, register(82, "x11", 45), 82, "switch.x11"),
    "lost with a free list register": (FILLED, words(67, 69, used_lrs=2), 67, "host.gic_list"),
    "an active one leaves its list register": (FILLED, words(79, used_lrs=3), 79, "host.gic_list"),
    "an active priority is kept": (LOST, words(58, ich_ap1r0_el2=1 << 16), 58, "switch.ich_ap1r_el2"),
    "what no VM has written": (SHARED, register(20, "x20", 0xB0, context=0), 20, "isolate.icc_pmr_el1"),
    "an end that another VM did not choose": (
        SHARED,
        register(34, "x22", 0x8C02, context=0),
        34,
        "isolate.icc_ctlr_el1",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_effect_is_another_cause(name: str) -> None:
    trace, change, event, where = CHANGED[name]
    found = shown(trace, change)
    assert {one.cause for one in found if (one.event, one.name) == (event, where)} == {ANOTHER_CAUSE}, [
        (one.event, one.name, one.cause) for one in found
    ]
    assert {one.cause for one in found if one.event < event} <= {CAUSES[trace]}, "what came before stays explained"


@pytest.mark.parametrize("bit", range(64))
@pytest.mark.parametrize(("name", "event", "register_name"), [(ACKNOWLEDGED, 48, "x7"), (FILLED, 82, "x11")])
def test_an_acknowledge_that_is_wrong_in_one_bit(name: str, event: int, register_name: str, bit: int) -> None:
    found = shown(name, register(event, register_name, 1023 ^ 1 << bit))
    (at,) = (one for one in found if one.event == event)
    assert (at.name, at.cause) == (f"switch.{register_name}", ANOTHER_CAUSE)


@pytest.mark.parametrize("bit", JUDGED)
def test_a_list_register_that_is_wrong_in_one_bit(bit: int) -> None:
    found = shown(ENDED, words(57, 58, ich_lr0_el2=LR_ENDED ^ 1 << bit))
    at = {one.cause for one in found if one.event == 57}
    assert at == {ANOTHER_CAUSE} or (at == set() and 1 << bit == PENDING), "without the pending bit the contract is met"


@pytest.mark.parametrize("name", ["x20", "x21", "x22", "x23", "x24"])
def test_a_shared_register_that_is_wrong_in_one_bit(name: str) -> None:
    _, trace, _ = recorded(SHARED)
    last = trace.events[34]
    assert isinstance(last, Switch)
    for bit in (0, 1, 2, 3, 4, 7, 8, 10, 31, 63):
        found = shown(SHARED, register(34, name, last.get(name) ^ 1 << bit, context=0))
        assert ANOTHER_CAUSE in {one.cause for one in found if one.event == 34}, bit
        assert {one.cause for one in found if one.event < 34} == {SHARED_INTERFACE}


def test_what_no_rule_explains_does_not_keep_the_rest_from_being_explained() -> None:
    """An interrupt is lost before the distributor is disabled, too."""
    found = shown(LOST, words(46, used_lrs=0))
    assert {(one.event, one.name): one.cause for one in found} == {
        (46, "host.gic_list"): ANOTHER_CAUSE,
        (54, "host.gic_list"): ENABLE_LOSES,
        (55, "switch.pc"): ENABLE_LOSES,
    }


def test_each_divergence_has_the_rules_that_it_needs() -> None:
    """With two errata in a trace; what a rule leaves open has no cause."""
    found = shown("gic_two_errata.kvm-7.3-nvhe")
    assert {(one.event, one.name): one.cause for one in found} == {
        (58, "host.gic_list"): ENABLE_LOSES,
        (59, "switch.pc"): ENABLE_LOSES,
        (98, "host.gic_list"): "",
        (100, "host.gic_list"): "",
    }


def test_nothing_is_checked_again_where_no_gic_shows_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr("harness.findings.gic_attribution.outcome", again)
    scenario, trace, _ = recorded("gic_five_active.kvm-7.3-nvhe")
    check(scenario, trace, "spec", CPU, CATALOGUE, errata=TargetErrata(gic=frozenset(GIC_RULES)))
    assert {one.cause for one in _plain(FILLED)} == {""}, "a target without such errata"


def _plain(name: str) -> tuple[Divergence, ...]:
    scenario, trace, _ = recorded(name)
    return check(scenario, trace, "spec", CPU, CATALOGUE).unexplained


def test_the_same_trace_with_and_without_a_rule() -> None:
    scenario, trace, _ = recorded(SHARED)
    scene = Scene(index_trace(trace), codes_of(scenario), CPU, None)
    assert {one.name for one in outcome(scene, NONE).divergences.values()} >= {"isolate.icc_pmr_el1"}
    assert not outcome(scene, frozenset({SHARED_INTERFACE})).divergences
