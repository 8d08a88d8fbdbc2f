# SPDX-License-Identifier: Apache-2.0
"""The syndrome required for a trap: values put together by hand from the Arm ARM, then every known instruction."""

from __future__ import annotations

import pytest

from harness.arch import a64
from harness.arch.a64 import ACCESS_FORMS, AccessForm, encode
from harness.arch.registers import STATE
from harness.guest.memory import Memory
from harness.guest.syndrome import Fault, expected_syndrome, register_access
from harness.layout import CODE, DATA, VECTORS
from tests.support.traces import ISB, TRAP_MRS, state

MMIO = 0x900_0008
LEVEL, LEVEL_AND_TYPE = 0x3, 0x3F


def fault(word: int | None, *, is_fetch: bool = False, **registers: int) -> Fault:
    found = expected_syndrome(state(**registers), word, Memory(), is_fetch=is_fetch)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("word", "esr"),
    [
        (encode("hvc", 0), 0x5A00_0000),
        (encode("hvc", 2), 0x5A00_0002),
        (encode("hvc", 0xFFFF), 0x5A00_FFFF),
        (encode("wfi"), 0x07E0_0000),
        (encode("wfe"), 0x07E0_0001),
        (TRAP_MRS, 0x6232_03ED),
    ],
)
def test_traps_without_an_address(word: int, esr: int) -> None:
    assert fault(word) == Fault(esr, esr_free=0, far=None, hpfar=None)


@pytest.mark.parametrize(
    ("word", "esr"),
    [
        (encode("ldrb", "w3", "x1"), 0x9303_0005),
        (encode("strb", "w3", "x1"), 0x9303_0045),
        (encode("str", "x3", "x1"), 0x93C3_8047),
        (encode("ldrb", "w0", "x1"), 0x9300_0005),
        (encode("ldrsb", "x30", "x1"), 0x933E_8005),
        (encode("ldrsh", "w30", "x1"), 0x937E_0005),
        (encode("ldr", "xzr", "x1"), 0x93DF_8005),
        (encode("str", "wzr", "x1"), 0x939F_0045),
    ],
)
def test_accesses_outside_slots(word: int, esr: int) -> None:
    found = fault(word, x1=MMIO)
    assert found.esr & ~LEVEL == esr & ~LEVEL
    assert (found.esr_free, found.far, found.hpfar) == (LEVEL, MMIO, 0x9_0000)


def test_the_address_is_base_plus_offset_and_its_page() -> None:
    found = fault(encode("ldrb", "w3", "x1", 0xFFF), x1=0x900_0001)
    assert (found.far, found.hpfar) == (0x900_1000, 0x9_0010)
    assert fault(encode("ldrb", "w3", "x1", 1), x1=(1 << 64) - 1).far == 0


def test_hpfar_holds_bits_47_to_12() -> None:
    assert fault(encode("ldrb", "w3", "x1"), x1=0xFFFF_FFFF_FFFF).hpfar == 0xFF_FFFF_FFF0
    assert fault(encode("ldrb", "w3", "x1"), x1=0x1000).hpfar == 0x10
    assert fault(encode("ldrb", "w3", "x1"), x1=0xFFF).hpfar == 0


def test_fetches() -> None:
    found = fault(encode("hvc", 0), is_fetch=True, pc=0x5000_0040)
    assert (found.esr & ~LEVEL, found.esr_free) == (0x8200_0004, LEVEL)
    assert (found.far, found.hpfar) == (0x5000_0040, 0x50_0000)
    assert fault(None, is_fetch=True, pc=CODE.base).esr_free == LEVEL_AND_TYPE, "mapped, but not executable yet"


@pytest.mark.parametrize("base", [CODE.base, VECTORS.base, DATA.base])
def test_stores_to_slots_may_be_permission_faults_and_loads_may_not(base: int) -> None:
    """What a load mapped is not writable yet; what a store mapped can be read."""
    assert fault(encode("strb", "w3", "x1"), x1=base).esr_free == LEVEL_AND_TYPE
    assert fault(encode("ldrb", "w3", "x1"), x1=base).esr_free == LEVEL


def test_an_unaligned_access_promises_nothing() -> None:
    """It may fault on either of two pages, or as alignment."""
    assert expected_syndrome(state(x1=MMIO + 1), encode("ldrh", "w3", "x1"), Memory(), is_fetch=False) is None
    assert expected_syndrome(state(x1=MMIO + 1), encode("ldrb", "w3", "x1"), Memory(), is_fetch=False) is not None


@pytest.mark.parametrize("word", [encode("br", "x1"), encode("eret"), ISB, 0, 0xFFFF_FFFF, None])
def test_nothing_is_owed_for_what_does_not_trap(word: int | None) -> None:
    assert expected_syndrome(state(), word, Memory(), is_fetch=False) is None


@pytest.mark.parametrize("form", ACCESS_FORMS, ids=lambda f: f"{f.mnemonic}_{f.targets[0][0]}")
def test_every_form(form: AccessForm) -> None:
    for rt, target in enumerate(form.targets):
        for rn in (1, 5, 30):
            found = expected_syndrome(
                state(**{f"x{rn}": MMIO}),
                encode(form.mnemonic, target, f"x{rn}", 8 * form.size),
                Memory(),
                is_fetch=False,
            )
            assert found is not None
            assert found.esr >> 26 == 0x24
            assert found.esr >> 24 & 3 == 3, "IL, ISV"
            assert 1 << (found.esr >> 22 & 3) == form.size
            assert found.esr >> 21 & 1 == form.sign_extend
            assert found.esr >> 16 & 31 == rt
            assert found.esr >> 15 & 1 == form.sixty_four
            assert found.esr >> 6 & 1 == form.is_store
            assert found.esr & 0x7FBC == 0x04, "EA, CM, S1PTW, acquire: none; a translation fault"
            assert found.far == MMIO + 8 * form.size


def test_register_reads_name_the_register_and_the_target() -> None:
    """ISS of a trapped MRS: Op0 21:20, Op2 19:17, Op1 16:14, CRn 13:10, Rt 9:5, CRm 4:1, direction 0 (D17.2.37)."""
    seen = set()
    for register in STATE:
        if register.encoding is None:
            continue
        op0, op1, crn, crm, op2 = register.encoding
        for rt in (0, 31):
            esr = register_access(encode("mrs", f"x{rt}" if rt < 31 else "xzr", register.encoding)).esr
            assert esr >> 25 == 0x18 << 1 | 1
            assert (esr >> 20 & 3, esr >> 14 & 7, esr >> 10 & 15, esr >> 1 & 15, esr >> 17 & 7) == (
                *(op0, op1, crn, crm, op2),
            )
            assert (esr >> 5 & 31, esr & 1, esr >> 22 & 7) == (rt, 1, 0)
            seen.add(esr)
            assert register_access(encode("msr", register.encoding, f"x{rt}" if rt < 31 else "xzr")).esr == esr - 1
    assert len(seen) == 2 * sum(r.encoding is not None for r in STATE)


def test_the_immediate_of_every_call() -> None:
    for immediate in (0, 1, 0x8000, 0xFFFF):
        word = encode("hvc", immediate)
        assert a64.is_hvc(word)
        assert fault(word).esr == 0x5A00_0000 | immediate
