# SPDX-License-Identifier: Apache-2.0
"""What KVM must do for the guest, row by row (docs/spec/kvm.md): results of calls, MMIO data, aborts, reset values."""

from __future__ import annotations

import pytest

from harness.arch import exceptions, reset_values
from harness.arch.exits import SMCCC_FUNCTIONS
from harness.arch.registers import INDEX, NAMES
from harness.relations import contract, mmio
from harness.trace.events import Switch
from tests.support.traces import esr, load_esr, state, trap

FREE = {0x8400_0052, 0x8400_0053, 0xC400_0053, 0x8600_0001}  # random numbers, a UUID of choice, the time
UID = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
MARK = 0xABCD_EF01_2345_6789


def _call(function: int, x1: int = 0, x2: int = 0x22, x3: int = 0x33) -> Switch:
    return trap(state(x0=function, x1=x1, x2=x2, x3=x3), esr("HVC64"))


def _results(exit_: Switch) -> list[int | None]:
    return [contract.call_result(exit_, index) for index in (1, 2, 3)]


@pytest.mark.parametrize("function", [f.fid for f in SMCCC_FUNCTIONS], ids=[f.name for f in SMCCC_FUNCTIONS])
@pytest.mark.parametrize("upper", [0, 0xDEAD_BEEF << 32], ids=["", "upper_half"])
def test_x1_to_x3_of_each_call(function: int, upper: int) -> None:
    """The function is the low half of x0; x1..x3 are 0 except in the rows of the table that say otherwise."""
    results = _results(_call(function | upper, x1=7))
    if function == 0x8600_FF01:
        assert results == list(UID[1:])
    else:
        assert results == ([None] * 3 if function in FREE else [0] * 3)


@pytest.mark.parametrize("reset_type", [0, 0x8000_0000, 0xFFFF_FFFF])
def test_reset2_keeps_its_arguments(reset_type: int) -> None:
    wide = 0x1234_5678_0000_0000 | reset_type
    assert _results(_call(0xC400_0012, wide, 0x2_0000_0022, MARK)) == [wide, 0x2_0000_0022, MARK]
    assert _results(_call(0x8400_0012, wide, 0x2_0000_0022, MARK)) == [reset_type, 0x22, MARK & 0xFFFF_FFFF]


@pytest.mark.parametrize("reset_type", [1, 2, 0x7FFF_FFFF, 0x8000_0000_0000_0001])
def test_reset2_of_a_type_that_there_is_not(reset_type: int) -> None:
    exit_ = _call(0xC400_0012, reset_type)
    assert (_results(exit_), contract.call_status(exit_)) == ([0, 0, 0], frozenset({INVALID}))


OK, UNSUPPORTED, INVALID, ALREADY_ON, FAILURE = (n & (1 << 64) - 1 for n in (0, -1, -2, -4, -6))
HIGH = 1 << 32


@pytest.mark.parametrize(
    ("function", "arguments", "x0"),
    [
        *((f, (), OK) for f in (0x8400_0001, 0xC400_0001, 0x8400_0002)),
        *((f, (0,), ALREADY_ON) for f in (0x8400_0003, 0xC400_0003)),
        *((f, (1,), INVALID) for f in (0x8400_0003, 0xC400_0003)),
        (0x8400_0003, (HIGH,), ALREADY_ON),  # a 32-bit call: arguments are truncated
        (0xC400_0003, (HIGH,), INVALID),
        *((f, (0, level), OK) for f in (0x8400_0004, 0xC400_0004) for level in (0, 1, 2, 3)),
        *((f, (0, 4), INVALID) for f in (0x8400_0004, 0xC400_0004)),
        *((f, (1, 0), INVALID) for f in (0x8400_0004, 0xC400_0004)),
        (0xC400_0004, (1, 1), OK),  # the group that vCPU 0 is in
        (0xC400_0004, (0x100, 1), INVALID),
        (0x8400_0004, (HIGH, HIGH), OK),
        *((f, (), UNSUPPORTED) for f in (0x8400_0005, 0xC400_0005, 0x8400_0007, 0xC400_0007)),
        (0x8400_0006, (), 2),
        *((f, (), FAILURE) for f in (0x8400_0008, 0x8400_0009)),
        *((0x8400_000A, (f,), OK) for f in (0x8400_0000, 0xC400_0001, 0x8400_0002, 0xC400_0003, 0x8400_0004)),
        *((0x8400_000A, (f,), OK) for f in (0x8400_0008, 0x8400_0009, 0x8400_000A, 0x8000_0000)),
        *((0x8400_000A, (f,), UNSUPPORTED) for f in (0, 0x8400_0005, 0xC400_0007, 0x8400_00FF, 0xFFFF_FFFF)),
        (0x8400_000A, (HIGH | 0x8400_0000,), OK),
        *((f, (), UNSUPPORTED) for f in (0x8400_000E, 0xC400_000E)),
        *((f, (t,), FAILURE) for f in (0x8400_0012, 0xC400_0012) for t in (0, 0x8000_0000)),
        (0x8000_0000, (), 0x10001),
        *((f, (t, 0), {UNSUPPORTED, FAILURE}) for f in (0x8400_0015, 0xC400_0015) for t in (0, 1)),
        *((f, (2, 0), {UNSUPPORTED, INVALID}) for f in (0x8400_0015, 0xC400_0015)),
        *((f, (1, 1), {UNSUPPORTED, INVALID}) for f in (0x8400_0015, 0xC400_0015)),
        (0x8400_0015, (HIGH | 1, HIGH), {UNSUPPORTED, FAILURE}),
        (0xC400_0015, (HIGH | 1, 0), {UNSUPPORTED, INVALID, FAILURE}),
        (0xC400_0015, (HIGH | 2, 0), {UNSUPPORTED, INVALID}),
        (0x8400_000A, (0xC400_0015,), {UNSUPPORTED, 1}),
        (0x8600_FF01, (), UID[0]),
        *((f, (), UNSUPPORTED) for f in (0, 0x8400_00FF, 0xFFFF_FFFF, 0x83FF_FFFF)),
    ],
)
def test_x0(function: int, arguments: tuple[int, ...], x0: int | set[int]) -> None:
    exit_ = _call(function, *arguments)
    required = frozenset(x0 if isinstance(x0, set) else {x0})
    assert contract.call_status(exit_) == required
    assert contract.call_status(_call(function | HIGH, *arguments)) == required
    if function not in {f.fid for f in SMCCC_FUNCTIONS}:
        assert _results(exit_) == [0, 0, 0]


def test_psci_version_is_one_that_kvm_has() -> None:
    versions = contract.call_status(_call(0x8400_0000))
    assert versions is not None
    assert {0x10001, 0x10003} <= versions <= {0x10001, 0x10002, 0x10003}


def test_every_call_has_a_row() -> None:
    for function in SMCCC_FUNCTIONS:
        contract.call_status(_call(function.fid))


DATA = 0xF1E2_D3C4_B5A6_9788  # every width negative
POSITIVE = 0x7162_5344_3526_1708


@pytest.mark.parametrize(
    ("size", "signed", "wide", "required"),
    [
        (1, False, False, 0x88),
        (2, False, False, 0x9788),
        (4, False, False, 0xB5A6_9788),
        (1, False, True, 0x88),
        (2, False, True, 0x9788),
        (4, False, True, 0xB5A6_9788),
        (8, False, True, DATA),
        (1, True, False, 0xFFFF_FF88),
        (2, True, False, 0xFFFF_9788),
        (1, True, True, 0xFFFF_FFFF_FFFF_FF88),
        (2, True, True, 0xFFFF_FFFF_FFFF_9788),
        (4, True, True, 0xFFFF_FFFF_B5A6_9788),
        (8, True, True, DATA),
    ],
)
def test_mmio_data(size: int, signed: bool, wide: bool, required: int) -> None:
    exit_ = trap(state(), load_esr(3, size, signed=signed, wide=wide))
    assert mmio.mmio_data(exit_, DATA) == required
    assert mmio.mmio_data(exit_, POSITIVE) == POSITIVE & ((1 << 8 * size) - 1)
    assert mmio.mmio_data(exit_, 0) == 0
    assert mmio.mmio_data(exit_, (1 << 64) - (1 << 8 * size)) == 0, "what is above the width does not count"


@pytest.mark.parametrize(
    ("size", "signed", "required"),
    [
        *((1, False, 0x88), (2, False, 0x8897), (4, False, 0x8897_A6B5), (8, False, 0x8897_A6B5_C4D3_E2F1)),
        *((1, True, 0xFFFF_FFFF_FFFF_FF88), (2, True, 0xFFFF_FFFF_FFFF_8897), (4, True, 0xFFFF_FFFF_8897_A6B5)),
    ],
)
@pytest.mark.parametrize(("pstate", "endian"), [(0x3C5, 1 << 25), (0x3C0, 1 << 24)], ids=["EE", "E0E"])
def test_big_endian_mmio_data(size: int, signed: bool, required: int, pstate: int, endian: int) -> None:
    """The bytes are in the order of memory; SCTLR_EL1.EE is for EL1, E0E for EL0."""
    exit_ = trap(state(pstate=pstate, sctlr_el1=endian), load_esr(3, size, signed=signed))
    assert mmio.mmio_data(exit_, DATA) == required
    other = trap(state(pstate=pstate, sctlr_el1=endian ^ 3 << 24), load_esr(3, size))
    assert mmio.mmio_data(other, DATA) == DATA & ((1 << 8 * size) - 1)


@pytest.mark.parametrize("sctlr", [0, 3 << 24])
def test_the_byte_order_of_aarch32_state_is_its_own(sctlr: int) -> None:
    little, big = (state(pstate=pstate, sctlr_el1=sctlr) for pstate in (0x30, 0x230))
    assert (exceptions.is_big_endian(little), exceptions.is_big_endian(big)) == (False, True)


def test_no_syndrome_no_data() -> None:
    assert mmio.mmio_data(trap(state(), load_esr(3) & ~(1 << 24)), DATA) is None


@pytest.mark.parametrize(
    ("what", "mode", "required", "offset"),
    [
        ("IABT_LOW", 0x5, 0x8600_0010, 0x200),
        ("IABT_LOW", 0x4, 0x8600_0010, 0x000),
        ("IABT_LOW", 0x0, 0x8200_0010, 0x400),
        ("DABT_LOW", 0x5, 0x9600_0010, 0x200),
        ("DABT_LOW", 0x0, 0x9200_0010, 0x400),
        ("IABT_LOW", 0x10, 0x8200_0010, 0x600),
    ],
)
def test_abort(what: str, mode: int, required: int, offset: int) -> None:
    before = state(pc=0x5000_0000, pstate=0x8000_0000 | mode, sctlr_el1=1 << 23, esr_el1=0x77, far_el1=0x88)
    after = contract.abort_state(trap(before, esr(what, 0x47), far=0x5000_0004))
    changed = {NAMES[i]: new for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    assert changed == {
        "esr_el1": required,
        "far_el1": 0x5000_0004,
        "elr_el1": 0x5000_0000,
        "spsr_el1": 0x8000_0000 | mode,
        "pc": 0x4001_0000 + offset,
        "pstate": 0x8000_03C5,
    }


@pytest.mark.parametrize(("what", "required"), [("IABT_LOW", 0x8600_0014), ("DABT_LOW", 0x9600_0014)])
def test_abort_of_a_walk(what: str, required: int) -> None:
    """The status says that it was a walk, and at which level: whichever, the record has no tables."""
    walk = trap(state(), esr(what, 0x86), far=0x8_0000_0000)
    assert contract.abort_state(walk)[INDEX["esr_el1"]] == required
    assert contract.walk_abort_syndromes(walk) == {required + level for level in range(4)}


def test_undefined_instruction() -> None:
    after = contract.undefined_state(trap(state(esr_el1=0x77, far_el1=0x88), esr("SYS64")))
    assert after[INDEX["esr_el1"]] == 0x0200_0000
    assert after[INDEX["far_el1"]] == 0x88


def test_reset_values() -> None:
    """KVM API KVM_ARM_VCPU_INIT and docs/spec/kvm.md section 4."""
    required = dict(reset_values.RESET_VALUES)
    zero = [*(f"x{i}" for i in range(31)), "sp_el0", "pc"]
    zero += ["cpacr_el1", "tcr_el1", "vbar_el1", "contextidr_el1", "cntkctl_el1", "mdscr_el1"]
    assert {required[name] for name in zero} == {0}
    assert required["pstate"] == 0x3C5
    assert required["sctlr_el1"] == 0x00C5_0078
    assert required["mpidr_el1"] == 0x8000_0000, "vCPU 0: RES1 and affinity 0"
    unknown = {name for name, value in required.items() if value == 0x1DE7_EC7E_DBAD_C0DE}
    assert {"ttbr0_el1", "ttbr1_el1", "esr_el1", "far_el1", "mair_el1", "tpidr_el1", "par_el1"} <= unknown
    banked = {"sp_el1", "elr_el1", "spsr_el1"}
    assert {required[name] for name in banked} <= {0, 0x1DE7_EC7E_DBAD_C0DE}, "UNKNOWN, but nothing of before"
    assert {"actlr_el1", "amair_el1"} == reset_values.HOST_RESET
    assert set(required) | reset_values.HOST_RESET == set(NAMES), "every register has a row"
    assert {NAMES[i]: value for i, value in reset_values.RESET_BY_INDEX.items()} == required
