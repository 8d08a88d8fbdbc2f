# SPDX-License-Identifier: Apache-2.0
"""Which forged exits have a kind, what the guest must get of each, and which WARN belongs to it."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.exits import EC_SHIFT, IL_BIT
from harness.arch.registers import INDEX
from harness.relations.contract import undefined_state
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.forged_exits import KINDS, Outcome, kind_of
from harness.relations.host import compare_entry_state
from harness.trace.events import Switch
from tests.support.traces import EXCEPTION, SKIP, but, entry, state, trap, turn

FORGED = protocol.FORGE["esr"]
S = state(mpidr_el1=0x8000_0000, vbar_el1=0x4001_0000, sp_el1=0x55)
READ_MPIDR = 0x623A_0081
WRITE_ID, READ_ID = 0x6232_0080, 0x6232_0081
READ_OSLAR = 0x6228_0481
ELR_READ, SP_READ = 0x6232_1081, 0x6231_1083


def ec(number: int, iss: int = 0) -> int:
    return number << EC_SHIFT | IL_BIT | iss


def name_of(esr: int) -> str:
    kind = kind_of(esr)
    return "" if kind is None else kind.name


@pytest.mark.parametrize(
    ("esr", "name"),
    [
        (READ_MPIDR, "register-without-accessor"),
        (READ_MPIDR & ~1, "register-without-accessor"),
        (ELR_READ, "register-with-accessor-in-some-releases"),
        (SP_READ, "register-with-accessor-in-some-releases"),
        (READ_OSLAR, "read-of-write-only-register"),
        (READ_OSLAR & ~1, ""),
        (WRITE_ID, "write-of-read-only-register"),
        (READ_ID, ""),
        (ec(0x05, 4 << 17 | 1 << 10 | 1), "read-of-write-only-register-of-aarch32"),
        (ec(0x03, 2 << 17 | 7 << 10 | 6 << 1 | 1), "read-of-write-only-register-of-aarch32"),
        (ec(0x03, 7 << 10 | 6 << 1 | 1), ""),
        (ec(0x04, 12 << 1 | 1), "read-of-write-only-register-of-aarch32"),
        (ec(0x05, 0), ""),  # DBGDIDR: KVM ignores a write
        (ec(0x03, 1 << 17), "write-of-read-only-register-of-aarch32"),
        (ec(0x16), ""),
        (ec(0x24), ""),
        (ec(0x25), "abort-of-a-nested-hypervisor"),
        (ec(0x0A), "other-instruction"),
        (ec(0x1A), "trap-of-a-nested-hypervisor"),
        (ec(0x3F), "class-without-handler"),
    ],
)
def test_the_kind_of_a_syndrome(esr: int, name: str) -> None:
    assert name_of(esr) == name


def test_each_kind_is_some_exits_and_has_a_source() -> None:
    named = {name_of(ec(number, iss)) for number in range(64) for iss in (0, 1)}
    named |= {name_of(ec(0x18, iss)) for iss in range(0, 1 << 22)}
    named |= {name_of(ec(number, iss)) for number in (3, 4, 5) for iss in range(0, 1 << 20)}
    assert named == {kind.name for kind in KINDS} | {""}
    assert all(kind.source.startswith("arch/arm64/kvm/") for kind in KINDS)


def test_no_class_that_a_guest_can_report_is_without_handler() -> None:
    reported = (0x01, 0x16, 0x17, 0x18, 0x20, 0x24, 0x30, 0x32, 0x34, 0x3C)
    assert not [number for number in reported if kind_of(ec(number))]


def found(exit_: Switch, after: Switch) -> dict[str, tuple[int | str, int | str]] | str:
    both = list(compare_entry_state(turn(exit_, after), {}))
    left = [one.why for one in both if isinstance(one, Unchecked)]
    return left[0] if left else {d.register: (d.expected, d.observed) for d in both if isinstance(d, Divergence)}


def undefined(exit_: Switch) -> Switch:
    """The guest takes an undefined-instruction exception at EL2."""
    return entry(undefined_state(exit_))


def test_a_trap_without_accessor_is_an_undefined_instruction() -> None:
    exit_ = trap(S, READ_MPIDR, marks=FORGED)
    assert found(exit_, undefined(exit_)) == {}
    emulated = found(exit_, entry(but(S, x4=S[INDEX["mpidr_el1"]]), SKIP))
    assert isinstance(emulated, dict) and {"pc", "elr_el1", "spsr_el1", "x4"} <= emulated.keys()


def test_the_same_exit_that_is_not_forged_is_what_the_register_has() -> None:
    exit_ = trap(S, READ_MPIDR)
    assert found(exit_, entry(but(S, x4=S[INDEX["mpidr_el1"]]), SKIP)) == {}


@pytest.mark.parametrize("number", [0x0A, 0x09, 0x2F, 0x3F])
def test_a_class_without_handler_is_an_undefined_instruction(number: int) -> None:
    exit_ = trap(S, ec(number), marks=FORGED)
    assert found(exit_, undefined(exit_)) == {}
    assert "pc" in found(exit_, entry(S)), "the guest may not just go on"
    wrong = undefined_state(exit_)
    assert found(exit_, entry(but(wrong, esr_el1=wrong[exceptions.ESR] ^ 1))) != {}


def test_a_trap_for_a_nested_hypervisor_may_be_nothing_but_moves_nothing() -> None:
    exit_ = trap(S, ec(0x1A), marks=FORGED)
    assert found(exit_, entry(S)) == {}
    assert found(exit_, entry(S, SKIP)) != {}
    pending = entry(S, EXCEPTION)
    assert found(exit_, pending) == {}


@pytest.mark.parametrize(("esr", "register"), [(SP_READ, "sp_el1"), (ELR_READ, "elr_el1")])
def test_an_accessor_of_some_releases_reads_the_register(esr: int, register: str) -> None:
    exit_ = trap(S, esr, marks=FORGED)
    assert found(exit_, entry(but(S, x4=S[INDEX[register]]), SKIP)) == {}
    assert found(exit_, entry(S, EXCEPTION)) == {}
    assert found(exit_, entry(but(S, x4=0x77), SKIP)) == {"x4": (S[INDEX[register]], 0x77)}


def test_a_vcpu_with_features_is_not_judged_by_these() -> None:
    exit_ = trap(S, ec(0x3F), marks=FORGED, code=1)
    assert found(exit_, entry(S)) == "no rule for exit class SERROR"


def test_assertions_have_words_and_functions_of_their_own() -> None:
    kind = kind_of(READ_MPIDR)
    assert kind is not None and kind.outcome is Outcome.UNDEFINED and kind.asserts is not None
    assert kind.asserts.has("bad_trap", "Unexpected register access")
    assert not kind.asserts.has("bad_trap", "Unexpected sys_reg read to write-only register")
    assert not kind.asserts.has("kvm_arch_vm_ioctl", "Unexpected register access")
