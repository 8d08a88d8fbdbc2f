# SPDX-License-Identifier: Apache-2.0
"""Every encoding disassembles to what was meant; the library that disassembles is the independent witness."""

from __future__ import annotations

import pytest

from harness.arch.a64 import (
    ACCESS_FORMS,
    PLAIN,
    W_NAMES,
    X_NAMES,
    Access,
    AccessForm,
    Plain,
    decode_access,
    disassemble,
    encode,
)
from harness.arch.registers import STATE, Encoding
from harness.guest.execute import Undetermined, execute
from tests.support.traces import state

BASES = (*X_NAMES[:31], "sp")


def _immediate(value: int) -> str:
    return f"#{value:#x}" if value > 9 else f"#{value}"


@pytest.mark.parametrize("form", ACCESS_FORMS, ids=lambda f: f"{f.mnemonic}_{f.targets[0][0]}")
def test_access_forms(form: AccessForm) -> None:
    for rt, target in enumerate(form.targets):
        for rn, base in enumerate(BASES):
            for offset in (0, form.size, 9 * form.size, form.max_offset):
                word = encode(form.mnemonic, target, base, offset)
                place = f"[{base}, {_immediate(offset)}]" if offset else f"[{base}]"
                assert disassemble(word) == f"{form.mnemonic} {target}, {place}"
                assert decode_access(word) == Access(
                    form.size, form.sign_extend, form.sixty_four, form.is_store, rt, rn, offset
                )


@pytest.mark.parametrize(
    ("operands", "text"),
    [
        (("wfi",), "wfi"),
        (("wfe",), "wfe"),
        (("eret",), "eret"),
        *((("hvc", n), f"hvc {_immediate(n)}") for n in (0, 1, 0x4242, 0xFFFF)),
        *((("br", name), f"br {name}") for name in X_NAMES[:31]),
        *((("mrs", name, (3, 0, 0, 0, 5)), f"mrs {name}, mpidr_el1") for name in X_NAMES),
        *((("msr", (3, 3, 13, 0, 2), name), f"msr tpidr_el0, {name}") for name in X_NAMES),
    ],
)
def test_plain(operands: tuple[str, int | str | Encoding], text: str) -> None:
    word = encode(*operands)
    assert disassemble(word) == text
    assert decode_access(word) is None


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: row.mnemonic)
def test_each_row_is_the_instruction_that_it_says(row: Plain) -> None:
    """All operands are register or number 0; where two equal registers are UNPREDICTABLE, the first one is 1."""
    text = disassemble(row.bits)
    if text.startswith(".word"):
        text = disassemble(row.bits | 1)
    mnemonic = row.mnemonic.partition("_")[0]
    assert text.split()[0] == {"movz": "mov"}.get(mnemonic, mnemonic)


def test_each_row_has_its_effect() -> None:
    """What has none ends a run: it traps, or it branches, which the walk follows itself."""
    named = {"mrs": encode("mrs", "x0", (3, 0, 0, 0, 5)), "msr": encode("msr", (3, 3, 13, 0, 2), "x0")}
    found = {row.mnemonic: execute(state(), named.get(row.mnemonic, row.bits)) for row in PLAIN}
    without = {name for name, one in found.items() if isinstance(one, Undetermined) and "no rule for" in one.why}
    assert without == {"hvc", "wfi", "wfe", "br"}


def test_system_registers_of_the_table_disassemble_by_name() -> None:
    for register in STATE:
        if register.encoding is not None:
            assert disassemble(encode("mrs", "xzr", register.encoding)) == f"mrs xzr, {register.name}"


def test_decode_access_agrees_with_the_disassembler_on_the_whole_opcode_space() -> None:
    known = {(f.mnemonic, f.targets[0][0]) for f in ACCESS_FORMS}
    for top in range(1 << 10):  # every value of bits 31..22, which is all that decode_access selects by
        word = top << 22 | 4 << 10 | 1 << 5 | 3
        mnemonic, _, operands = disassemble(word).partition(" ")
        unsigned_offset = word & 0x3F00_0000 == 0x3900_0000
        assert (decode_access(word) is not None) == (unsigned_offset and (mnemonic, operands[:1]) in known)


def test_no_instruction_is_a_word() -> None:
    assert disassemble(0xFFFF_FFFF) == ".word 0xffffffff"


@pytest.mark.parametrize(
    "operands",
    [
        ("ldrsw", "w1", "x1"),
        ("strb", "x1", "x1"),
        ("ldr", "x1", "xzr"),
        ("ldr", "x1", "w2"),
        ("ldr", "x1", "x2", 4),
        ("ldr", "x1", "x2", -8),
        ("ldr", "x1", "x2", 0x8000),
        ("ldr", "q1", "x1"),
        ("ldr", "", "x1"),
        ("ldr", "x99", "x1"),
        ("ldr", 3, "x1"),
        ("ldr",),
        ("nop",),
        ("wfi", 0),
        ("hvc", 0x10000),
        ("hvc", -1),
        ("hvc",),
        ("br", 5),
        ("br", "w5"),
        ("br", "xzr"),
        ("mrs", (3, 0, 0, 0, 5), "x1"),
        ("msr", "x1", (3, 0, 0, 0, 5)),
        ("mrs", "x1", (1, 0, 0, 0, 5)),
        ("mrs", "x1", (3, 8, 0, 0, 5)),
        ("mrs", "x1", (3, 0, 16, 0, 5)),
        ("mrs", "x1", (3, 0, -1, 0, 5)),
    ],
)
def test_what_cannot_be_encoded(operands: tuple[str, int | str | Encoding]) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(*operands)


def test_register_names() -> None:
    assert (W_NAMES[31], X_NAMES[31], len(W_NAMES), len(X_NAMES)) == ("wzr", "xzr", 32, 32)
