# SPDX-License-Identifier: Apache-2.0
"""Encode and decode the A64 instructions of scenario steps and vectors, as rows; disassemble with a library.

Source of every row: Arm Architecture Reference Manual (DDI 0487), chapter C6.2, the instruction named in the row;
field positions of loads and stores, C4.1 "Load/store register (unsigned immediate)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import capstone

from harness.arch.registers import Encoding
from harness.layout import TRAP_REGISTER

ZERO: Final = 31
"""Register number of wzr and xzr (and of sp where a base register is meant)."""

W_NAMES: Final[tuple[str, ...]] = (*(f"w{i}" for i in range(31)), "wzr")
X_NAMES: Final[tuple[str, ...]] = (*(f"x{i}" for i in range(31)), "xzr")
NUMBER: Final[Mapping[str, int]] = MappingProxyType({name: i % 32 for i, name in enumerate(W_NAMES + X_NAMES)})


V_NAMES: Final[tuple[str, ...]] = tuple(f"v{i}" for i in range(32))
_BASE_NAMES: Final[tuple[str, ...]] = X_NAMES[:ZERO]


@dataclass(frozen=True, slots=True)
class Field:
    """An operand of a :class:`Plain` row, in ``width`` bits from bit ``low``.

    It is a register of ``names``, or (no names) a number that is a multiple of ``unit``.
    """

    name: str
    low: int
    names: tuple[str, ...] = ()
    width: int = 5
    unit: int = 1

    @property
    def limit(self) -> int:
        """Greatest number that the field holds."""
        return ((1 << self.width) - 1) * self.unit

    def put(self, operand: object) -> int:
        """Return the field's bits in the word.  ValueError: not an operand that it can hold."""
        if self.names:
            if isinstance(operand, str) and operand in self.names:
                return self.names.index(operand) << self.low
        elif isinstance(operand, int) and 0 <= operand <= self.limit and not operand % self.unit:
            return operand // self.unit << self.low
        raise ValueError(f"{self.name} {operand!r}")

    def get(self, word: int) -> int:
        """Return the field's number in ``word``: of a register, or in the row's units."""
        return (word >> self.low & (1 << self.width) - 1) * self.unit


@dataclass(frozen=True, slots=True)
class Plain:
    """An instruction that is not in :data:`ACCESS_FORMS`: fixed ``bits``, then its operands in assembler order.

    ``sysreg``: where among the operands the system register stands (None: there is none).  ``size``: the total bytes
    that a load or store moves; its instruction syndrome is never valid (Arm ARM D17.2.37, ISV).
    """

    mnemonic: str
    bits: int
    fields: tuple[Field, ...]
    source: str
    sysreg: int | None = None
    size: int = 0
    is_store: bool = False

    @property
    def mask(self) -> int:
        """The bits of a word that identify this instruction."""
        free = 0x1F_FFE0 if self.sysreg is not None else 0
        for field in self.fields:
            free |= (1 << field.width) - 1 << field.low
        return 0xFFFF_FFFF & ~free


_IMM16: Final = Field("immediate", 5, width=16)
_RT: Final = Field("target", 0, X_NAMES)
_RN: Final = Field("source", 5, X_NAMES)
_RM: Final = Field("source", 16, X_NAMES)
_RT2: Final = Field("second", 10, X_NAMES)
_RB: Final = Field("base", 5, _BASE_NAMES)

PLAIN: Final[tuple[Plain, ...]] = (
    Plain("hvc", 0xD400_0002, (_IMM16,), "C6.2 HVC"),
    Plain("smc", 0xD400_0003, (_IMM16,), "C6.2 SMC"),
    Plain("brk", 0xD420_0000, (_IMM16,), "C6.2 BRK"),
    Plain("udf", 0x0000_0000, (Field("immediate", 0, width=16),), "C6.2 UDF"),
    Plain("wfi", 0xD503_207F, (), "C6.2 WFI"),
    Plain("wfe", 0xD503_205F, (), "C6.2 WFE"),
    Plain("eret", 0xD69F_03E0, (), "C6.2 ERET"),
    Plain("br", 0xD61F_0000, (_RB,), "C6.2 BR"),
    Plain("mrs", 0xD500_0000 | 1 << 21, (_RT,), "C6.2 MRS", sysreg=1),
    Plain("msr", 0xD500_0000, (_RT,), "C6.2 MSR (register), SYS", sysreg=0),
    Plain("mov", 0xAA00_03E0, (_RT, _RM), "C6.2 MOV (register)"),
    Plain("movz", 0xD280_0000, (_RT, _IMM16), "C6.2 MOVZ"),
    Plain("movk", 0xF280_0000, (_RT, _IMM16), "C6.2 MOVK"),
    Plain("ldp", 0xA940_0000, (_RT, _RT2, _RB, Field("offset", 15, width=6, unit=8)), "C6.2 LDP", size=16),
    Plain("stp", 0xA900_0000, (_RT, _RT2, _RB, Field("offset", 15, width=6, unit=8)), "C6.2 STP", None, 16, True),
    Plain("ldr_post", 0xF840_0400, (_RT, _RB, Field("offset", 12, width=8)), "C6.2 LDR (immediate)", size=8),
    Plain("str_pre", 0xF800_0C00, (_RT, _RB, Field("offset", 12, width=8)), "C6.2 STR (immediate)", None, 8, True),
    Plain("ldxr", 0xC85F_7C00, (_RT, _RB), "C6.2 LDXR", size=8),
    Plain("stxr", 0xC800_7C00, (Field("status", 16, W_NAMES), _RT, _RB), "C6.2 STXR", None, 8, True),
    Plain("ldr_simd", 0x3DC0_0000, (Field("target", 0, V_NAMES), _RB), "C7.2 LDR (immediate, SIMD&FP)", size=16),
    Plain("str_simd", 0x3D80_0000, (Field("target", 0, V_NAMES), _RB), "C7.2 STR (SIMD&FP)", None, 16, True),
    Plain("fmov_to", 0x9E67_0000, (Field("target", 0, V_NAMES), _RN), "C7.2 FMOV (general)"),
    Plain("fmov_from", 0x9E66_0000, (_RT, Field("source", 5, V_NAMES)), "C7.2 FMOV (general)"),
)
"""``ldr_post`` is ``ldr x1, [x2], 8``, ``str_pre`` is ``str x1, [x2, 8]!``, ``ldr_simd`` and ``str_simd`` move a q
register, ``fmov_to`` and ``fmov_from`` are ``fmov d0, x1`` and ``fmov x0, d1``.
"""


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


ACCESS_FORMS: Final[tuple[AccessForm, ...]] = (
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
ACCESS_MNEMONICS: Final[tuple[str, ...]] = tuple(dict.fromkeys(f.mnemonic for f in ACCESS_FORMS))
FORM: Final[Mapping[tuple[str, str], AccessForm]] = MappingProxyType(
    {(f.mnemonic, f.targets[0][0]): f for f in ACCESS_FORMS}
)
"""The form of (mnemonic, first letter of Rt's name)."""

_BASE: Final[Mapping[str, int]] = MappingProxyType({name: i for i, name in enumerate((*X_NAMES[:ZERO], "sp"))})
ISB: Final = 0xD503_3FDF
"""Instruction synchronisation barrier (C6.2 ISB)."""
PLAIN_BY_NAME: Final[Mapping[str, Plain]] = MappingProxyType({p.mnemonic: p for p in PLAIN})
WFI: Final = PLAIN_BY_NAME["wfi"].bits
WFE: Final = PLAIN_BY_NAME["wfe"].bits
ERET: Final = PLAIN_BY_NAME["eret"].bits
_HVC: Final = PLAIN_BY_NAME["hvc"].bits
_FORM_OF_BITS: Final[Mapping[int, AccessForm]] = MappingProxyType({f.bits: f for f in ACCESS_FORMS})


@dataclass(frozen=True, slots=True)
class Access:
    """The access of a load or store word: ``size`` and ``offset`` in bytes; ``rt`` 31 is zr, ``rn`` 31 is sp."""

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
        return _encode_plain(PLAIN_BY_NAME[mnemonic], *operands)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no encoding of {mnemonic} {operands!r}") from error


def is_hvc(word: int) -> bool:
    """Whether ``word`` is an HVC, of any immediate."""
    return word & 0xFFE0_001F == _HVC


_IDENTIFIED: Final = tuple((row.mask, row.bits, row) for row in PLAIN)


@lru_cache(maxsize=1 << 12)
def decode_plain(word: int) -> Plain | None:
    """Return the row of :data:`PLAIN` that ``word`` is an instruction of, or None."""
    row = next((row for mask, bits, row in _IDENTIFIED if word & mask == bits), None)
    if row is not None and row.sysreg is not None and not system_register(word)[0]:
        return None  # hints, barriers and PSTATE writes share the encoding of MSR
    return row


def mnemonic(word: int) -> str:
    """Return the mnemonic of a plain instruction; an empty text for any other word."""
    row = decode_plain(word)
    return row.mnemonic if row is not None else ""


def system_register(word: int) -> Encoding:
    """Return the system register that an MRS or MSR names."""
    return word >> 19 & 3, word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7


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
    bits, plain = row.bits, list(operands)
    if row.sysreg is not None:
        system = plain.pop(row.sysreg)
        if not isinstance(system, tuple):
            raise ValueError(f"{row.mnemonic}: operands {operands!r}, expected a system register at {row.sysreg}")
        op0, op1, crn, crm, op2 = system
        first = 1 if row.mnemonic == "msr" else 2  # op0 1 is SYS
        if op0 not in range(first, 4) or not all(0 <= n < 1 << w for n, w in ((op1, 3), (crn, 4), (crm, 4), (op2, 3))):
            raise ValueError(f"{row.mnemonic}: {system} is no system register")
        bits |= op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
    if len(plain) != len(row.fields):
        names = ", ".join(field.name for field in row.fields)
        raise ValueError(f"{row.mnemonic}: operands {operands!r}, expected {names or 'none'}")
    for field, operand in zip(row.fields, plain, strict=True):
        bits |= field.put(operand)
    return bits


@lru_cache(maxsize=1 << 12)
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


TRAP: Final = encode("mrs", "xzr", TRAP_REGISTER)
