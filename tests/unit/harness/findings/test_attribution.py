# SPDX-License-Identifier: Apache-2.0
"""A divergence belongs to an erratum only if its rule predicts it, bit for bit; another one at its place does not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import pytest

from harness.arch import exceptions
from harness.arch.cpu_models import cpu_model
from harness.arch.exceptions import State
from harness.arch.registers import INDEX
from harness.findings.attribution import Attribution, StillDiffers, of_a_round, of_a_trace, with_causes
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import Finding, Subject, Tries, difference
from harness.findings.known_divergences import Catalogue
from harness.findings.regressions import errata_of, like, load_regressions
from harness.guest.el2_errata import DROPS_LINES, DROPS_SERROR, NO_DEBUG, PVM_DROPS_LINES, PVM_REJECTS, SERROR_AGAIN
from harness.layout import DATA
from harness.model.prediction import Prediction
from harness.protocol import OP_ABORT, OP_FINISH, OP_RESET, OP_SERROR
from harness.relations.divergence import ANOTHER_CAUSE, SEEN_AGAIN, Divergence, joined
from harness.relations.errata import (
    ABORTED_COMPLETES,
    CPU_ON_KEEPS_SERROR,
    IGNORES_SIZE,
    LOSES_SIGN,
    NO_VIRTUAL_ADDRESS,
    NO_WALK_ABORT,
    PVM_WALK,
    RESET_COMPLETES,
    RESET_KEEPS_ABORT,
    RESET_KEEPS_BANKED,
    RESET_KEEPS_SERROR,
    RULES,
    SERROR_UNDOES,
    SIGN_EXTENDED,
    SMALL_TABLE,
    STEP_OUTLIVES,
    TargetErrata,
)
from harness.relations.evidence import RoundEvidence
from harness.relations.host import compare_entry_state, expected_entry_states
from harness.scenario.scenario import load
from harness.trace.environment import WORLDS
from harness.trace.events import HOST, Event, Host, Switch
from harness.trace.rounds import Round
from harness.trace.tracefile import load_trace
from harness.vm.config import load_config
from tests.support.paths import CORPUS, GOLDEN
from tests.support.rounds import AT, NOWHERE, WINDOW, S, after_reset, page
from tests.support.traces import EXCEPTION, MMIO_EXIT, but, entry, esr, host_reset, host_set, load_esr, trap, turn, user

ALL = frozenset(RULES)
ABORT = 0x8600_0010  # instruction abort from EL1, external


EL1H_UNMASKED = 0x5
"""PSTATE of a guest at EL1h that takes an SError."""
NO_MODEL = Prediction("none", undefined="not asked")


def aborted(syndrome: int) -> Round:
    """A fetch outside every slot, and the abort that KVM injects with this syndrome."""
    exit_ = trap(but(S, pc=NOWHERE), esr("IABT_LOW", 6), **page(NOWHERE))
    state = exceptions.take_exception(exit_.values, syndrome, NOWHERE)
    return turn(exit_, entry(state))


def unexplained(name: str, kernel: str, errata: TargetErrata) -> tuple[Divergence, ...]:
    """What a recorded run of a scenario shows on a target with some errata."""
    folder = GOLDEN / "causes"
    scenario, trace = load(folder / f"{name}.scn"), load_trace(folder / f"{name}.{kernel}.trace.json")
    catalogue = Catalogue.load(CORPUS / "known", "spec")
    return tuple(check(scenario, trace, "spec", cpu_model("cortex-a72"), catalogue, errata=errata).unexplained)


def found(round_: Round) -> list[Divergence]:
    return [one for one in compare_entry_state(round_, {}) if isinstance(one, Divergence)]


def attributed(round_: Round, errata: TargetErrata) -> Attribution | None:
    names = frozenset(one.name for one in found(round_))
    return of_a_round(found(round_), names, RoundEvidence(round_, NO_MODEL, {}), errata)


def causes(round_: Round, errata: Iterable[str]) -> Attribution | None:
    return attributed(round_, TargetErrata(frozenset(errata)))


def test_what_the_rule_predicts_is_the_erratums() -> None:
    round_ = aborted(0xFFFF_FFFF_0000_0000 | ABORT)
    known = causes(round_, ALL)
    assert known == Attribution(frozenset({SIGN_EXTENDED}), frozenset({"host.esr_el1"}), frozenset())
    (caused,) = with_causes(found(round_), round_.first, known)
    assert caused.cause == SIGN_EXTENDED and signature(caused)[4:] == (SIGN_EXTENDED,)


@pytest.mark.parametrize("bit", range(64))
def test_one_bit_more_is_another_cause(bit: int) -> None:
    """The same register at the same exit class: the signature of the erratum, and not its doing."""
    round_ = aborted((0xFFFF_FFFF_0000_0000 | ABORT) ^ 1 << bit)
    known = causes(round_, ALL)
    assert known is not None and known.errata == frozenset() and known.other == {"host.esr_el1"}
    (caused,) = with_causes(found(round_), round_.first, known)
    assert caused.cause == ANOTHER_CAUSE and signature(caused)[-1] == ANOTHER_CAUSE


def test_a_rule_that_is_switched_off_explains_nothing() -> None:
    round_ = aborted(0xFFFF_FFFF_0000_0000 | ABORT)
    assert causes(round_, ALL - {SIGN_EXTENDED}) is not None
    assert causes(round_, ()) is None, "the target has no errata: nothing is claimed"


def test_what_keeps_the_contract_needs_no_cause() -> None:
    assert causes(aborted(ABORT), ALL) is None


def completed(value: int, data: int) -> Round:
    """LDRSB of a device into x3; userspace gives ``data``."""
    before = but(S, pc=AT)
    exit_ = trap(before, load_esr(3, 1, signed=True), **page(WINDOW))
    told = user(before, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=1)
    return turn(exit_, told, entry(but(before, x3=value, pc=AT + 4), mmio_data=data))


@pytest.mark.parametrize(("value", "cause"), [(0x80, LOSES_SIGN), (0x81, ANOTHER_CAUSE), (0, ANOTHER_CAUSE)])
def test_a_load_without_its_sign(value: int, cause: str) -> None:
    round_ = completed(value, 0x80)
    known = causes(round_, ALL)
    assert known is not None
    assert {one.cause for one in with_causes(found(round_), round_.first, known)} == {cause}


def test_several_errata_at_once_are_the_smallest_set() -> None:
    """A reset with a load pending, and SP_EL1 from before."""
    before = but(S, pc=AT, sp_el1=0x55)
    exit_ = trap(before, load_esr(3, 1), **page(WINDOW))
    told = user(before, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=1)
    after = but(after_reset(x3=7, pc=4), sp_el1=0x55, elr_el1=before[exceptions.ELR], spsr_el1=before[exceptions.SPSR])
    round_ = turn(exit_, told, host_reset(), entry(after, mmio_data=7))
    known = causes(round_, ALL)
    assert known is not None and known.errata == {RESET_COMPLETES, RESET_KEEPS_BANKED} and not known.other
    assert ABORTED_COMPLETES not in known.errata


def when_pending(round_: Round, errata: Collection[str]) -> State:
    """The state that a kernel with the errata has at the entry, if what userspace asks for is pending until KVM_RUN."""
    first = expected_entry_states(round_, None, frozenset(errata))[0]
    assert not first.undetermined
    return tuple(first.values)


def test_four_errata_in_one_round() -> None:
    """An access is left over by a reset, completes after an abort that comes then; two more show elsewhere."""
    errata = frozenset({RESET_COMPLETES, ABORTED_COMPLETES, SIGN_EXTENDED, RESET_KEEPS_BANKED})
    before = but(S, pc=AT, sp_el1=0x55)
    exit_ = trap(before, load_esr(3, 1), **page(WINDOW))
    told = user(before, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=1)
    done = (exit_, told, host_reset(), host_set("vbar_el1", 0x4001_0000), ABORT_ASKED, FINISH)
    state = when_pending(turn(*done, entry(S, mmio_data=7)), errata)
    assert state[exceptions.PC] == 0x4001_0204 and state[INDEX["sp_el1"]] == 0x55
    known = causes(turn(*done, entry(state, mmio_data=7)), ALL)
    assert known is not None and known.errata == errata and not known.other
    assert known.cause_of("host.pc") == f"{ABORTED_COMPLETES}, {RESET_COMPLETES}"
    assert known.cause_of("host.sp_el1") == RESET_KEEPS_BANKED
    wrong = causes(turn(*done, entry(but(state, pc=0x4001_0208), mmio_data=7)), ALL)
    assert wrong is not None and wrong.other == {"host.pc"}


def test_a_second_reset_keeps_what_was_written_after_the_first() -> None:
    exit_ = trap(but(S, pc=AT, sp_el1=0x55), esr("HVC64", 0))
    done = (exit_, user(but(S, pc=AT, sp_el1=0x55), 10), host_reset(), host_set("sp_el1", 0x40), host_reset())
    after = but(after_reset(), **{name: S[INDEX[name]] for name in ("elr_el1", "spsr_el1")}, sp_el1=0x40)
    known = causes(turn(*done, entry(after)), ALL)
    assert known is not None and known.errata == {RESET_KEEPS_BANKED} and not known.other


@pytest.mark.parametrize(
    ("elr", "spsr", "cause"),
    [
        (AT + 4, EL1H_UNMASKED, RESET_KEEPS_BANKED),  # taken at once, as from 6.17 on
        (0x44, 0x345, RESET_KEEPS_BANKED),  # pended, and went with the reset
        (AT + 8, EL1H_UNMASKED, ANOTHER_CAUSE),
    ],
)
def test_a_reset_keeps_what_an_serror_before_it_left(elr: int, spsr: int, cause: str) -> None:
    before = but(S, pc=AT + 4, pstate=EL1H_UNMASKED, elr_el1=0x44, spsr_el1=0x345)
    exit_, asked = trap(before, esr("HVC64", 0)), Host(HOST, 0, OP_SERROR, 0, 0, 0, True)
    after = but(after_reset(), sp_el1=S[INDEX["sp_el1"]], elr_el1=elr, spsr_el1=spsr)
    round_ = turn(exit_, user(before, 10), asked, host_reset(), entry(after))
    known = causes(round_, ALL)
    assert known is not None
    caused = {one.register: one.cause for one in with_causes(found(round_), round_.first, known)}
    assert caused["elr_el1"] == cause


def test_what_pends_before_the_first_run_outlives_a_reset_then_too() -> None:
    """An SError that is asked for before the vCPU ever ran, then CPU_ON: its round is the first one, not a reset."""
    kept = load_regressions(CORPUS / "regressions" / "expected.toml")
    (one,) = unexplained("serror_then_on", "6.1.192", errata_of(kept, "kvm-nvhe"))
    assert (one.name, one.exit_class, one.cause) == ("host.hcr_el2", "FIRST", CPU_ON_KEEPS_SERROR)


@pytest.mark.parametrize("name", ["abort_stopped_then_on", "mmio_stopped_then_on"])
def test_a_bug_with_the_signature_of_a_kept_finding_shows(name: str) -> None:
    """Recorded on Linux 6.1.164: CPU_ON keeps a pending PC update (fixed in 6.1.170, "Discard PC update state on vcpu
    reset").  Its signature is that of ``reset-completes-pending-mmio``."""
    kept = load_regressions(CORPUS / "regressions" / "expected.toml")
    errata = errata_of(kept, "kvm-nvhe@6.1.164")
    shown = unexplained(name, "6.1.164", errata)
    other = [one for one in shown if one.cause == ANOTHER_CAUSE]
    assert [one.name for one in other] == ["host.pc"] and other[0].expected == 0x4000_4000
    subject = Subject("kvm-nvhe@6.1.164", "6.1.0-44-cloud-arm64", "0" * 64, "spec")
    new = Finding("divergence", signature(other[0]), subject, (difference(other[0]),), 1, Tries(2, 2), Tries(2, 2), "")
    assert like(kept, new) == ()
    hidden = replace(new, signature=signature(other[0]._replace(cause="")))
    assert "reset-completes-pending-mmio" in like(kept, hidden), "by signature alone"
    assert {one.cause for one in shown} <= {"", ANOTHER_CAUSE, *errata.rules}


WALK = 1 << 7
"""ESR_EL2.S1PTW."""
BEYOND = 1 << 41
VSE = {"hcr": exceptions.HCR_VSE}
MMIO_TOLD = {"mmio_addr": WINDOW, "mmio_len": 1}
ABORT_ASKED = Host(HOST, 0, OP_ABORT, 0, 0, 0, True)
FINISH = Host(HOST, 0, OP_FINISH, 0, 0, 0, True)
STARTED = Host(HOST, 0, OP_RESET, 0, 0, 0, False)
"""What CPU_ON of another vCPU does."""
LOAD = trap(but(S, pc=AT, sp_el1=0x55), load_esr(3, 1, signed=True), **page(WINDOW))
TOLD = user(LOAD.values, MMIO_EXIT, **MMIO_TOLD)
SERROR_ASKED = Host(HOST, 0, OP_SERROR, 0, 0, 0, True)
UNMASKED = trap(but(S, pc=AT, pstate=exceptions.EL1H), load_esr(3, 1), **page(WINDOW))
PROTECTED = next(number for number, world in enumerate(WORLDS) if world.protected)


def _walk(table: int, context: int = 0) -> Switch:
    """A load whose walk begins with a table at ``table`` and needs one at NOWHERE."""
    before = but(S, pc=AT, sctlr_el1=0xC5_0079, ttbr0_el1=table, tcr_el1=0x2_0080_0020)
    return trap(before, load_esr(3, 8) & ~(1 << 24) | WALK, **page(NOWHERE), marks=context << 8)


SITUATIONS: dict[str, tuple[tuple[Event, ...], bool]] = {
    # A turn of the host up to its entry, and whether the exception pends there.
    SIGN_EXTENDED: ((trap(but(S, pc=NOWHERE), esr("IABT_LOW", 6), **page(NOWHERE)),), True),
    NO_VIRTUAL_ADDRESS: ((trap(but(S, pc=AT), load_esr(3, 8), far=0x1008, hpfar=BEYOND >> 12 << 4),), True),
    NO_WALK_ABORT: ((trap(but(S, pc=AT), load_esr(3, 8) & ~(1 << 24) | WALK, **page(NOWHERE)),), True),
    LOSES_SIGN: ((LOAD, TOLD), False),
    RESET_COMPLETES: ((LOAD, TOLD, host_reset()), False),
    RESET_KEEPS_BANKED: ((trap(but(S, pc=AT, sp_el1=0x55), esr("HVC64")), host_reset()), False),
    RESET_KEEPS_SERROR: ((trap(but(S, pc=AT), esr("HVC64"), **VSE), host_reset()), False),
    CPU_ON_KEEPS_SERROR: ((trap(but(S, pc=AT), esr("HVC64"), **VSE), STARTED), False),
    ABORTED_COMPLETES: ((LOAD, TOLD, ABORT_ASKED, FINISH), False),
    SMALL_TABLE: ((_walk(NOWHERE + 0x40),), False),
    PVM_WALK: ((_walk(DATA.base, context=PROTECTED),), False),
    RESET_KEEPS_ABORT: ((LOAD, TOLD, ABORT_ASKED, host_reset(), host_set("vbar_el1", 0x4001_0000)), False),
    SERROR_UNDOES: ((UNMASKED, user(UNMASKED.values, MMIO_EXIT, **MMIO_TOLD), SERROR_ASKED), False),
}
RECORDED: dict[str, tuple[str, str, str]] = {
    # What shows elsewhere: configuration, scenario of corpus/regressions, kernel that it was recorded on.
    STEP_OUTLIVES: ("kvm-nvhe", "debug_step_after_pending", "6.1.192"),
    IGNORES_SIZE: ("kvm-7.3-protected", "slot_beyond_ipa_space", "7.3.4"),
    DROPS_LINES: ("kvm-protected", "interrupt_lines", "6.19.11"),
    DROPS_SERROR: ("kvm-protected", "serror_comes_once", "6.19.11"),
    SERROR_AGAIN: ("kvm-7.3-protected", "serror_comes_once", "7.3.4"),
    PVM_DROPS_LINES: ("kvm-7.3-protected", "protected_vm_interrupt_lines", "7.3.4"),
    PVM_REJECTS: ("kvm-7.3-protected", "protected_vm_undefined_registers", "7.3.4"),
    NO_DEBUG: ("kvm-protected", "debug_step_and_breakpoint", "7.1.13"),
}


def as_the_rule_has_it(name: str, wrong: tuple[str, int] | None = None) -> Round:
    """A round of a kernel with one erratum; ``wrong``: a register with other bits than the rule predicts."""
    events, pends = SITUATIONS[name]
    first = events[0]
    assert isinstance(first, Switch)
    data = {"mmio_data": 0x80, "marks": first.marks}
    after = first.values
    if name == SERROR_UNDOES:  # the entry shows that KVM enters it at once
        after = exceptions.take_exception(after, 0xBF00_0000, offset=exceptions.SERROR_OFFSET)
    before = turn(*events, entry(after, EXCEPTION if pends else 0, **data))
    expected = expected_entry_states(before, None, frozenset({name}))[-1 if name == SERROR_UNDOES else 0]
    assert not expected.undetermined
    values = list(expected.values)
    hcr = expected.hcr & expected.hcr_certain
    if wrong is not None:
        values[INDEX[wrong[0]]] ^= wrong[1]
    if not pends:
        return turn(*events, entry(tuple(values), hcr=hcr, **data))
    # What pends has its syndrome in the context, and is entered on the way in.
    entered = but(first.values, esr_el1=values[exceptions.ESR], far_el1=values[exceptions.FAR])
    return turn(*events, entry(entered, EXCEPTION, hcr=hcr, **data))


def test_every_rule_has_a_situation() -> None:
    assert set(SITUATIONS) | set(RECORDED) == set(RULES)


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_rule_explains_what_it_predicts(name: str) -> None:
    known = causes(as_the_rule_has_it(name), ALL)
    assert known is not None and known.errata == {name} and not known.other
    without = causes(as_the_rule_has_it(name), ALL - {name})
    assert without is None or name not in without.errata, "switched off it explains nothing"


@pytest.mark.parametrize("name", [name for name in SITUATIONS if RULES[name].shows != {"host.hcr_el2"}])
def test_each_rule_explains_nothing_that_is_wrong_in_one_bit(name: str) -> None:
    """In each register that the rule changed; HCR_EL2 has one bit, and without it the contract is met."""
    right = causes(as_the_rule_has_it(name), ALL)
    assert right is not None
    for register in (name.removeprefix("host.") for name in right.explained):
        for bit in range(64):
            if register == "pstate" and bit not in (0, 2, 6, 28):  # a mode that no guest has
                continue
            wrong = as_the_rule_has_it(name, (register, 1 << bit))
            found_here = causes(wrong, frozenset({name}))
            differs = register in {one.register for one in found(wrong)}  # the bit may be what the rule changed
            assert found_here is None or not differs or f"host.{register}" in found_here.other, (register, bit)


def recorded(name: str, errata: Iterable[str], changed: Mapping[int, Event] | None = None) -> list[Divergence]:
    """What a recorded trace shows on a target with some errata; ``changed``: other events in the place of some."""
    target, scenario, kernel = RECORDED[name]
    trace = load_trace(GOLDEN / "causes" / f"{scenario}.{kernel}.trace.json")
    events = tuple((changed or {}).get(index, event) for index, event in enumerate(trace.events))
    cpu, catalogue = cpu_model(load_config(target).cpu), Catalogue.load(CORPUS / "known", "spec")
    checked = check(
        *(load(CORPUS / "regressions" / f"{scenario}.scn"), replace(trace, events=events), "spec", cpu, catalogue),
        errata=TargetErrata(frozenset(errata)),
    )
    return list(checked.unexplained)


@pytest.mark.parametrize("name", RECORDED)
def test_each_rule_explains_what_a_kernel_with_it_did(name: str) -> None:
    others = ALL - set(RECORDED)
    shown = recorded(name, {*others, name})
    assert shown and {one.cause for one in shown} == {name}
    without = recorded(name, others)
    assert len(without) == len(shown) and not any(one.cause for one in without), "no other rule may cause it"


def test_what_a_rule_uncovers_may_be_another_ones() -> None:
    """EL2 drops the line, and so the guest executes an access that EL2 rejects: neither alone predicts the run."""
    both = frozenset({PVM_DROPS_LINES, PVM_REJECTS})
    for errata, causes_of in ((both, {PVM_DROPS_LINES}), (both - {PVM_REJECTS}, {PVM_DROPS_LINES, ANOTHER_CAUSE})):
        found = unexplained("line_and_rejected_register", "7.3.4", TargetErrata(errata))
        assert {one.register for one in found} == {"hcr_el2", "pc"}
        assert {one.cause for one in found} == causes_of


def test_a_reset_leaves_the_access_whose_place_an_abort_took() -> None:
    """Whether or not it leaves the abort, too: a later KVM_RUN completes the access."""
    found = unexplained("abort_reset_abort_run", "6.1.192", TargetErrata(ALL))
    assert {one.cause for one in found if one.register == "pc"} == {joined({ABORTED_COMPLETES, RESET_COMPLETES})}


def test_each_of_two_serrors_may_be_the_one_that_a_reset_leaves() -> None:
    """KVM_RUN moved PC between them: ELR_EL1, which the reset keeps, shows that the first one was taken."""
    found = unexplained("reset_after_two_serrors", "7.3.4", TargetErrata(ALL))
    keeps = joined({RESET_KEEPS_BANKED, SERROR_UNDOES})  # ELR_EL1 points at the access, which it undid
    assert {one.cause for one in found} == {keeps, RESET_KEEPS_BANKED, RESET_KEEPS_SERROR}


def test_a_step_of_a_guest_that_steps_itself_may_have_been_left_pending() -> None:
    """KVM puts the guest's own PSTATE.SS back at an exit: the record does not show that of userspace's step."""
    name = "step_again_of_a_guest_that_steps_itself"
    for errata, cause in (({STEP_OUTLIVES}, STEP_OUTLIVES), ({SIGN_EXTENDED}, "")):
        (one,) = unexplained(name, "6.1.192", TargetErrata(frozenset(errata)))
        assert (one.name, one.cause) == ("host.step_begins", cause)


@pytest.mark.parametrize("name", [DROPS_LINES, DROPS_SERROR, SERROR_AGAIN, PVM_REJECTS])
def test_what_a_kernel_did_otherwise_has_another_cause(name: str) -> None:
    """HCR_EL2.VF pends at an exit, or ELR_EL1 is wrong in one bit, where nothing but the erratum shows."""
    _, scenario, kernel = RECORDED[name]
    events = load_trace(GOLDEN / "causes" / f"{scenario}.{kernel}.trace.json").events
    first = next(one for one in recorded(name, {name}) if one.relation == "switch")
    exit_ = events[first.event]
    assert isinstance(exit_, Switch)
    if name == PVM_REJECTS:
        other = exit_._replace(values=but(exit_.values, elr_el1=exit_.values[exceptions.ELR] ^ 4))
    else:
        other = exit_._replace(hcr=exit_.hcr ^ exceptions.HCR_VF)
    here = [one for one in recorded(name, {name}, {first.event: other}) if one.event == first.event]
    assert [one for one in here if one.relation == "switch" and one.cause != name]


def test_what_is_not_determined_with_a_rule_is_not_predicted_by_it() -> None:
    one = Divergence("switch", "pc", "a trap", 0, "HVC64", 3, 0)
    differs = frozenset({one.name})
    errata = TargetErrata(frozenset({DROPS_LINES}))
    for left, cause in ((StillDiffers(differs), ANOTHER_CAUSE), (StillDiffers(differs, differs), "")):
        assert of_a_trace([one], lambda chosen, left=left: {3: left}, errata)[0].cause == cause
    assert of_a_trace([one], lambda chosen: {}, errata)[0].cause == DROPS_LINES


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("serror_finish_aarch32_el0", "7.3.4"),
        ("serror_while_stepped_with_own_ss", "7.3.4"),
        ("pstate_written_between_abort_and_run", "7.3.4"),
        ("pc_and_pstate_written_around_run", "7.3.4"),
        ("started_while_stepped_with_own_ss", "6.1.192"),
        ("two_aborts_around_aarch32_state", "7.3.4"),
        ("abort_written_around", "7.3.4"),
        ("access_completed_while_stepped", "7.3.4"),
        ("pc_and_spsr_written_after_serror", "7.3.4"),
        ("serror_after_abort_and_aarch32_state", "7.3.4"),
    ],
)
def test_what_the_tool_once_took_for_a_finding_is_none(name: str, release: str) -> None:
    """KVM keeps the contract, and the checker was wrong about what userspace had asked for."""
    assert unexplained(name, release, TargetErrata()) == ()


@pytest.mark.parametrize(
    ("name", "release", "found"),
    [
        ("pstate_written_between_abort_and_run", "6.12.117", {("pc", ABORTED_COMPLETES)}),
        ("abort_entered_from_aarch32_state", "6.1.192", {("esr_el1", SIGN_EXTENDED)}),
        (
            "pc_and_spsr_written_after_abort",
            "6.1.192",
            {("esr_el1", SIGN_EXTENDED), ("pc", ABORTED_COMPLETES)},
        ),
        ("two_aborts_around_aarch32_state", "6.1.192", {("esr_el1", SIGN_EXTENDED), ("pc", ABORTED_COMPLETES)}),
        (
            "serror_reset_abort_run",
            "6.1.192",
            {("esr_el1", SIGN_EXTENDED), ("pc", joined({ABORTED_COMPLETES, RESET_COMPLETES}))},
        ),
    ],
)
def test_errata_and_nothing_else_where_userspace_writes_around_an_exception(
    name: str, release: str, found: set[tuple[str, str]]
) -> None:
    """KVM enters an abort from what userspace wrote until then; what it writes after that stays."""
    assert {(one.register, one.cause) for one in unexplained(name, release, TargetErrata(ALL))} == found


def test_an_erratum_of_another_release_is_named_and_is_new() -> None:
    """It counts only where the target's own errata do not predict what was observed, and it does so in full."""
    elsewhere = TargetErrata(ALL - {SIGN_EXTENDED}, frozenset(), frozenset({SIGN_EXTENDED}))
    for syndrome, cause in (
        (0xFFFF_FFFF_0000_0000 | ABORT, f"{SIGN_EXTENDED} ({SEEN_AGAIN})"),
        (0xFFFF_FFFF_0000_0000 | ABORT ^ 1, ANOTHER_CAUSE),
    ):
        round_ = aborted(syndrome)
        known = attributed(round_, elsewhere)
        assert known is not None
        (caused,) = with_causes(found(round_), round_.first, known)
        assert caused.cause == cause and signature(caused)[-1] == cause, "a cluster of its own, like nothing kept"
    walk = as_the_rule_has_it(NO_WALK_ABORT)
    own = attributed(walk, elsewhere)
    assert own is not None and own.errata == {NO_WALK_ABORT} and not own.elsewhere


def test_a_rule_of_another_release_claims_nothing() -> None:
    """What it does not predict is not said to have another cause: the target was not said to have it."""
    round_ = aborted(ABORT ^ 1)
    elsewhere = TargetErrata(elsewhere=frozenset({SIGN_EXTENDED}))
    assert attributed(round_, elsewhere) is None


BOTH = frozenset({RESET_KEEPS_ABORT, RESET_COMPLETES})
AT_VECTOR = exceptions.take_exception(but(after_reset(), vbar_el1=0x4001_0000))
VBAR = host_set("vbar_el1", 0x4001_0000)


@pytest.mark.parametrize(
    ("after", "errata", "state"),
    [
        # KVM_RUN with immediate_exit enters the exception, the next one completes what is left of the access.
        ((host_reset(), VBAR, FINISH), BOTH, but(AT_VECTOR, pc=0x4001_0204, x3=(1 << 64) - 0x80)),
        ((host_reset(), VBAR, FINISH), {RESET_KEEPS_ABORT}, AT_VECTOR),
        ((host_reset(), VBAR), BOTH, AT_VECTOR),
        ((host_reset(), VBAR, host_reset(), VBAR), BOTH, AT_VECTOR),
        ((FINISH, host_reset(), VBAR), BOTH, but(after_reset(), vbar_el1=0x4001_0000)),
        ((STARTED, VBAR), BOTH, but(after_reset(), vbar_el1=0x4001_0000)),  # PSCI's reset clears it
    ],
)
def test_an_abort_that_a_reset_leaves_pending(after: tuple[Event, ...], errata: set[str], state: State) -> None:
    round_ = turn(LOAD, TOLD, ABORT_ASKED, *after, entry(S, mmio_data=0x80))
    assert when_pending(round_, errata) == state


@pytest.mark.parametrize(
    ("after", "errata", "pc", "x3"),
    [
        # The run that enters the exception completes nothing, the next one does: after what userspace wrote meanwhile.
        ((FINISH, host_set("x3", 1)), {ABORTED_COMPLETES}, 0x204, (1 << 64) - 0x80),
        ((FINISH, FINISH, host_set("x3", 1)), {ABORTED_COMPLETES}, 0x204, 1),
        ((FINISH, host_set("x3", 1)), set(), 0x200, 1),
        ((host_set("x3", 1),), {ABORTED_COMPLETES}, 0x200, 1),  # no run in between: that of the entry enters it
    ],
)
def test_when_an_aborted_access_completes(after: tuple[Event, ...], errata: set[str], pc: int, x3: int) -> None:
    round_ = turn(LOAD, TOLD, ABORT_ASKED, *after, entry(S, mmio_data=0x80))
    state = when_pending(round_, errata)
    assert state[exceptions.PC] == S[exceptions.VBAR] + pc and state[3] == x3


def test_an_aborted_access_that_a_reset_leaves() -> None:
    errata = frozenset({ABORTED_COMPLETES, RESET_COMPLETES})
    state = when_pending(turn(LOAD, TOLD, ABORT_ASKED, FINISH, host_reset(), entry(S)), errata)
    assert state[exceptions.PC] == 4
