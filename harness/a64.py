# SPDX-License-Identifier: Apache-2.0
"""The few A64 instructions that scenario steps and vectors are made of, as rows; disassembly by a library.

Source of every row: Arm Architecture Reference Manual (DDI 0487), chapter C6.2, the instruction named in the row;
field positions of loads and stores, C4.1 "Load/store register (unsigned immediate)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import capstone

from harness.registers import Encoding

ZERO = 31
"""Register number of wzr and xzr (and of sp where a base register is meant)."""

W_NAMES: tuple[str, ...] = (*(f"w{i}" for i in range(31)), "wzr")
X_NAMES: tuple[str, ...] = (*(f"x{i}" for i in range(31)), "xzr")
NUMBER: Mapping[str, int] = MappingProxyType({name: i % 32 for i, name in enumerate(W_NAMES + X_NAMES)})


@dataclass(frozen=True, slots=True)
class Plain:
    """An instruction that is no load or store: fixed ``bits`` and at most one register or immediate field."""

    mnemonic: str
    bits: int
    field: str  # "", "imm16", "rn" or "sysreg"
    source: str


PLAIN: tuple[Plain, ...] = (
    Plain("hvc", 0xD400_0002, "imm16", "C6.2 HVC"),
    Plain("wfi", 0xD503_207F, "", "C6.2 WFI"),
    Plain("wfe", 0xD503_205F, "", "C6.2 WFE"),
    Plain("eret", 0xD69F_03E0, "", "C6.2 ERET"),
    Plain("br", 0xD61F_0000, "rn", "C6.2 BR"),
    Plain("mrs", 0xD520_0000, "sysreg", "C6.2 MRS"),
    Plain("msr", 0xD500_0000, "sysreg", "C6.2 MSR (register)"),
)


@dataclass(frozen=True, slots=True)
class AccessForm:
    """A load or store of one register with unsigned immediate offset; ``size`` in bytes."""

    mnemonic: str
    size: int
    sign_extend: bool
    sixty_four: bool
    is_store: bool
    opc: int
    source: str

    @property
    def bits(self) -> int:
        """The word with Rt, Rn and imm12 zero."""
        return (self.size.bit_length() - 1) << 30 | 0x3900_0000 | self.opc << 22

    @property
    def max_offset(self) -> int:
        """Greatest offset in bytes; offsets are multiples of ``size``."""
        return 0xFFF * self.size

    @property
    def targets(self) -> tuple[str, ...]:
        """Names that Rt can have."""
        return X_NAMES if self.sixty_four else W_NAMES


ACCESS_FORMS: tuple[AccessForm, ...] = (
    AccessForm("strb", 1, False, False, True, 0b00, "C6.2 STRB (immediate)"),
    AccessForm("strh", 2, False, False, True, 0b00, "C6.2 STRH (immediate)"),
    AccessForm("str", 4, False, False, True, 0b00, "C6.2 STR (immediate)"),
    AccessForm("str", 8, False, True, True, 0b00, "C6.2 STR (immediate)"),
    AccessForm("ldrb", 1, False, False, False, 0b01, "C6.2 LDRB (immediate)"),
    AccessForm("ldrh", 2, False, False, False, 0b01, "C6.2 LDRH (immediate)"),
    AccessForm("ldr", 4, False, False, False, 0b01, "C6.2 LDR (immediate)"),
    AccessForm("ldr", 8, False, True, False, 0b01, "C6.2 LDR (immediate)"),
    AccessForm("ldrsb", 1, True, False, False, 0b11, "C6.2 LDRSB (immediate)"),
    AccessForm("ldrsb", 1, True, True, False, 0b10, "C6.2 LDRSB (immediate)"),
    AccessForm("ldrsh", 2, True, False, False, 0b11, "C6.2 LDRSH (immediate)"),
    AccessForm("ldrsh", 2, True, True, False, 0b10, "C6.2 LDRSH (immediate)"),
    AccessForm("ldrsw", 4, True, True, False, 0b10, "C6.2 LDRSW (immediate)"),
)
ACCESS_MNEMONICS: tuple[str, ...] = tuple(dict.fromkeys(f.mnemonic for f in ACCESS_FORMS))
FORM: Mapping[tuple[str, str], AccessForm] = MappingProxyType({(f.mnemonic, f.targets[0][0]): f for f in ACCESS_FORMS})
"""The form of (mnemonic, first letter of Rt's name)."""

_BASE: Mapping[str, int] = MappingProxyType({name: i for i, name in enumerate((*X_NAMES[:ZERO], "sp"))})
ISB = 0xD503_3FDF
"""Instruction synchronisation barrier (C6.2 ISB)."""
WFI, WFE = (p.bits for p in PLAIN if p.mnemonic in ("wfi", "wfe"))
_PLAIN: Mapping[str, Plain] = MappingProxyType({p.mnemonic: p for p in PLAIN})
_FORM_OF_BITS: Mapping[int, AccessForm] = MappingProxyType({f.bits: f for f in ACCESS_FORMS})


@dataclass(frozen=True, slots=True)
class Access:
    """What a load or store word does: ``size`` and ``offset`` in bytes; ``rt`` 31 is zr, ``rn`` 31 is sp."""

    size: int
    sign_extend: bool
    sixty_four: bool
    is_store: bool
    rt: int
    rn: int
    offset: int


def encode(mnemonic: str, *operands: int | str | Encoding) -> int:
    """Return the instruction word.

    Operands are in assembler order, with the base register and the offset in bytes as two operands:
    ``encode("hvc", 0)``, ``encode("br", "x5")``, ``encode("ldrsb", "x3", "x1", 0x10)``,
    ``encode("mrs", "xzr", (3, 0, 0, 0, 5))``, ``encode("msr", (3, 0, 0, 0, 5), "x1")``.  Registers are named, never
    numbered; ``"sp"`` is a base.  ValueError: no such form, or an operand that it cannot hold.
    """
    try:
        if mnemonic in ACCESS_MNEMONICS:
            return _encode_access(mnemonic, *operands)
        return _encode_plain(_PLAIN[mnemonic], *operands)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no encoding of {mnemonic} {operands!r}") from error


def is_hvc(word: int) -> bool:
    """Whether ``word`` is an HVC, of any immediate."""
    return word & 0xFFE0_001F == _PLAIN["hvc"].bits


def _encode_access(
    mnemonic: str, target: int | str | Encoding, base: int | str | Encoding, offset: int | str | Encoding = 0
) -> int:
    if not (isinstance(target, str) and isinstance(base, str) and isinstance(offset, int)):
        raise TypeError("a load or store takes a register, a register and an offset")
    form = FORM[mnemonic, target[:1]]
    if offset % form.size or not 0 <= offset <= form.max_offset:
        raise ValueError(f"{mnemonic}: offset {offset:#x} is no multiple of {form.size} in 0..{form.max_offset:#x}")
    return form.bits | (offset // form.size) << 10 | _BASE[base] << 5 | NUMBER[target]


def _encode_plain(row: Plain, *operands: int | str | Encoding) -> int:
    match row.field, operands:
        case "", ():
            return row.bits
        case "imm16", (int(immediate),) if 0 <= immediate <= 0xFFFF:
            return row.bits | immediate << 5
        case "rn", (str(name),) if name in X_NAMES:
            return row.bits | NUMBER[name] << 5
        case ("sysreg", (str(name), tuple(system))) | ("sysreg", (tuple(system), str(name))) if name in X_NAMES:
            if isinstance(operands[0], str) != (row.mnemonic == "mrs"):
                raise ValueError(f"{row.mnemonic}: operands in the wrong order")
            op0, op1, crn, crm, op2 = system
            if not (op0 in (2, 3) and max(op1, op2) < 8 and max(crn, crm) < 16 and min(op1, crn, crm, op2) >= 0):
                raise ValueError(f"{row.mnemonic}: {system} is no system register")
            return row.bits | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | NUMBER[name]
        case _:
            raise ValueError(f"{row.mnemonic}: operands {operands!r}, expected {row.field or 'none'}")


def decode_access(word: int) -> Access | None:
    """Return what a load or store of :data:`ACCESS_FORMS` does, or None for any other word."""
    form = _FORM_OF_BITS.get(word & 0xFFC0_0000)
    if form is None:
        return None
    rt, rn, imm12 = word & 31, word >> 5 & 31, word >> 10 & 0xFFF
    return Access(form.size, form.sign_extend, form.sixty_four, form.is_store, rt, rn, imm12 * form.size)


@lru_cache(maxsize=1)
def _disassembler() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)


def disassemble(word: int, pc: int = 0) -> str:
    """Return the instruction ``word`` at address ``pc`` as text; ``.word`` when it is no instruction."""
    for _, _, mnemonic, operands in _disassembler().disasm_lite(word.to_bytes(4, "little"), pc):
        return f"{mnemonic} {operands}".strip()
    return f".word {word:#010x}"
