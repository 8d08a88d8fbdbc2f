# SPDX-License-Identifier: Apache-2.0
"""A divergence belongs to an erratum only if its rule predicts it, bit for bit; another one at its place does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from harness.arch import exceptions
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX
from harness.findings.attribution import Attribution, attribute, with_causes
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import Finding, Subject, Tries, difference
from harness.findings.known_divergences import Catalogue
from harness.findings.regressions import errata_of, like, load_regressions
from harness.protocol import OP_ABORT, OP_FINISH, OP_RESET
from harness.relations.divergence import ANOTHER_CAUSE, Divergence
from harness.relations.errata import (
    ABORTED_COMPLETES,
    CPU_ON_KEEPS_SERROR,
    LOSES_SIGN,
    NO_VIRTUAL_ADDRESS,
    NO_WALK_ABORT,
    RESET_COMPLETES,
    RESET_KEEPS_BANKED,
    RESET_KEEPS_SERROR,
    RULES,
    SIGN_EXTENDED,
    TargetErrata,
)
from harness.relations.host import compare_entry_state, expected_entry_state, expected_virtual_interrupts
from harness.scenario.scenario import load
from harness.trace.events import HOST, Event, Host, Switch
from harness.trace.rounds import Round
from harness.trace.tracefile import load_trace
from tests.support.paths import CORPUS, GOLDEN
from tests.support.rounds import AT, NOWHERE, WINDOW, S, after_reset, page
from tests.support.traces import EXCEPTION, MMIO_EXIT, but, entry, esr, host_reset, load_esr, trap, turn, user

ALL = frozenset(RULES)
ABORT = 0x8600_0010  # instruction abort from EL1, external


def aborted(syndrome: int) -> Round:
    """A fetch outside every slot, and the abort that KVM injects with this syndrome."""
    exit_ = trap(but(S, pc=NOWHERE), esr("IABT_LOW", 6), **page(NOWHERE))
    state = exceptions.take_exception(exit_.values, syndrome, NOWHERE)
    return turn(exit_, entry(state))


def found(round_: Round) -> list[Divergence]:
    return [one for one in compare_entry_state(round_, {}) if isinstance(one, Divergence)]


def causes(round_: Round, errata: Iterable[str]) -> Attribution | None:
    return attribute([one.register for one in found(round_)], round_, {}, None, TargetErrata(frozenset(errata)))


def test_what_the_rule_predicts_is_the_erratums() -> None:
    round_ = aborted(0xFFFF_FFFF_0000_0000 | ABORT)
    known = causes(round_, ALL)
    assert known == Attribution(frozenset({SIGN_EXTENDED}), frozenset({"esr_el1"}), frozenset())
    (caused,) = with_causes(found(round_), round_, known)
    assert caused.cause == SIGN_EXTENDED and signature(caused)[4:] == (SIGN_EXTENDED,)


@pytest.mark.parametrize("bit", range(64))
def test_one_bit_more_is_another_cause(bit: int) -> None:
    """The same register at the same exit class: the signature of the erratum, and not its doing."""
    round_ = aborted((0xFFFF_FFFF_0000_0000 | ABORT) ^ 1 << bit)
    known = causes(round_, ALL)
    assert known is not None and known.errata == frozenset() and known.other == {"esr_el1"}
    (caused,) = with_causes(found(round_), round_, known)
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
    assert {one.cause for one in with_causes(found(round_), round_, known)} == {cause}


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


@pytest.mark.parametrize("name", ["abort_stopped_then_on", "mmio_stopped_then_on"])
def test_a_bug_with_the_signature_of_a_kept_finding_shows(name: str) -> None:
    """Recorded on Linux 6.1.164: CPU_ON keeps a pending PC update (fixed in 6.1.170, "Discard PC update state on vcpu
    reset").  Its signature is that of ``reset-completes-pending-mmio``."""
    folder = GOLDEN / "causes"
    scenario, trace = load(folder / f"{name}.scn"), load_trace(folder / f"{name}.6.1.164.trace.json")
    kept = load_regressions(CORPUS / "regressions" / "expected.toml")
    errata = errata_of(kept, "kvm-nvhe@6.1.164")
    catalogue = Catalogue.load(CORPUS / "known", "spec")
    checked = check(scenario, trace, "spec", cpu_model("cortex-a72"), catalogue, errata=errata)
    other = [one for one in checked.unexplained if one.cause == ANOTHER_CAUSE]
    assert [one.name for one in other] == ["host.pc"] and other[0].expected == 0x4000_4000
    subject = Subject("kvm-nvhe@6.1.164", "6.1.0-44-cloud-arm64", "0" * 64, "spec")
    new = Finding("divergence", signature(other[0]), subject, (difference(other[0]),), 1, Tries(2, 2), Tries(2, 2), "")
    assert like(kept, new) == ()
    hidden = replace(new, signature=signature(other[0]._replace(cause="")))
    assert like(kept, hidden) == ("reset-completes-pending-mmio", "aborted-access-completes"), "by signature alone"
    assert {one.cause for one in checked.unexplained} <= {"", ANOTHER_CAUSE, *errata.rules}


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
}


def as_the_rule_has_it(name: str, wrong: tuple[str, int] | None = None) -> Round:
    """A round of a kernel with one erratum; ``wrong``: a register with other bits than the rule predicts."""
    events, pends = SITUATIONS[name]
    first = events[0]
    assert isinstance(first, Switch)
    data = {"mmio_data": 0x80}
    before = turn(*events, entry(first.values, EXCEPTION if pends else 0, **data))
    predicted = expected_entry_state(before, None, frozenset({name}))
    assert not isinstance(predicted, str), predicted
    values = list(predicted[0])
    hcr = expected_virtual_interrupts(before, frozenset({name}))[0]
    if wrong is not None:
        values[INDEX[wrong[0]]] ^= wrong[1]
    if not pends:
        return turn(*events, entry(tuple(values), hcr=hcr, **data))
    # What pends has its syndrome in the context, and is entered on the way in.
    entered = but(first.values, esr_el1=values[exceptions.ESR], far_el1=values[exceptions.FAR])
    return turn(*events, entry(entered, EXCEPTION, hcr=hcr, **data))


def test_every_rule_has_a_situation() -> None:
    assert set(SITUATIONS) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_each_rule_explains_what_it_predicts(name: str) -> None:
    known = causes(as_the_rule_has_it(name), ALL)
    assert known is not None and known.errata == {name} and not known.other
    without = causes(as_the_rule_has_it(name), ALL - {name})
    assert without is None or name not in without.errata, "switched off it explains nothing"


@pytest.mark.parametrize("name", [name for name in RULES if RULES[name].registers != {"hcr_el2"}])
def test_each_rule_explains_nothing_that_is_wrong_in_one_bit(name: str) -> None:
    """In each register that the rule changed; HCR_EL2 has one bit, and without it the contract is met."""
    right = causes(as_the_rule_has_it(name), ALL)
    assert right is not None
    for register in right.registers:
        for bit in range(64):
            if register == "pstate" and bit not in (0, 2, 6, 28):  # a mode that no guest has
                continue
            wrong = as_the_rule_has_it(name, (register, 1 << bit))
            found_here = causes(wrong, frozenset({name}))
            differs = register in {one.register for one in found(wrong)}  # the bit may be what the rule changed
            assert found_here is None or not differs or register in found_here.other, (register, bit)
