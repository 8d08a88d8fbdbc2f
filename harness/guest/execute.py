# SPDX-License-Identifier: Apache-2.0
"""Execute one instruction of ``a64.PLAIN`` by the Arm ARM, without a hypervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from harness.arch import a64, exceptions, exits, sysregs
from harness.arch.exceptions import State
from harness.arch.registers import INDEX, MASK64
from harness.arch.sysregs import ExpectedResult
from harness.guest.stage1 import is_on

ZERO: Final = a64.ZERO
EC_UNKNOWN: Final = exits.EC_BY_NAME["UNKNOWN"]
EC_FP: Final = exits.EC_BY_NAME["FP_ASIMD"]
EC_BRK: Final = exits.EC_BY_NAME["BRK64"]
EC_DABT: Final = exits.EC_BY_NAME["DABT_LOW"]
FSC_ALIGNMENT: Final = 0x21
CONDITION_ALWAYS: Final = 1 << 24 | 0xE << 20
"""CV and COND of a syndrome that has them (Arm ARM D17.2.37)."""
WNR: Final = 1 << exits.DABT["WNR"].low
VECTOR_WHY: Final = "copied from a vector register"


@dataclass(frozen=True, slots=True)
class Continue:
    """Execution continues at the next instruction, or at ``changes[PC]``.

    ``changes`` maps the registers written to their values, ``unknown`` registers to the bits that are now unknown, and
    why.  ``reads`` are the registers, other than general-purpose ones, that the instruction copied.  ``vectors`` maps
    the vector registers written to their values, None where the value is unknown.
    """

    changes: Mapping[int, int] = field(default_factory=dict)
    unknown: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    reads: tuple[int, ...] = ()
    vectors: Mapping[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RaiseException:
    """The instruction takes an exception to EL1: exception class, ISS, and the address for FAR_EL1 if there is one."""

    ec: int
    iss: int = 0
    far: int | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """The instruction loads or stores ``size`` bytes at ``address``; unless that faults, ``then`` is its effect."""

    address: int
    size: int
    is_store: bool
    then: Continue


@dataclass(frozen=True, slots=True)
class Trap:
    """The instruction must trap to EL2; ``what`` names the cause, if it is not the instruction itself."""

    what: str = ""


@dataclass(frozen=True, slots=True)
class Undetermined:
    """The architecture does not determine the result, or this project does not model it; ``why`` has the reason."""

    why: str


Effect = Continue | RaiseException | Access | Trap | Undetermined


def _at_el0(state: State) -> bool:
    return state[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T


def _put(register: int, value: int) -> Continue:
    return Continue({} if register == ZERO else {register: value & MASK64})


def _get(state: State, register: int) -> int:
    return 0 if register == ZERO else state[register]


def _mov(state: State, word: int) -> Effect:
    return _put(word & 31, _get(state, word >> 16 & 31))


def _movz(state: State, word: int) -> Effect:
    return _put(word & 31, word >> 5 & 0xFFFF)


def _movk(state: State, word: int) -> Effect:
    return _put(word & 31, _get(state, word & 31) & ~0xFFFF | word >> 5 & 0xFFFF)


def _smc(state: State, word: int) -> Effect:
    return RaiseException(EC_UNKNOWN) if _at_el0(state) else Trap()


def _brk(state: State, word: int) -> Effect:
    return RaiseException(EC_BRK, word >> 5 & 0xFFFF)


def _udf(state: State, word: int) -> Effect:
    return RaiseException(EC_UNKNOWN)


PSTATE_WHY: Final = "bits of SPSR_EL1 that only a newer CPU has in PSTATE, after an exception return"


def _eret(state: State, word: int) -> Effect:
    if _at_el0(state):
        return RaiseException(EC_UNKNOWN)
    spsr = state[exceptions.SPSR]
    if spsr & 0x1F not in exceptions.VECTOR_OFFSETS or spsr & (exceptions.IL | exceptions.SS):
        return Undetermined("an exception return to an illegal or stepping state")
    if state[exceptions.ELR] >> 55:
        return Undetermined("an exception return to a tagged address")
    lacking = spsr & ~(exceptions.NZCV | exceptions.DAIF | exceptions.MODE)
    unknown = {exceptions.PSTATE: (lacking, PSTATE_WHY)} if lacking else {}
    return Continue(
        {exceptions.PC: state[exceptions.ELR], exceptions.PSTATE: spsr},
        unknown,
        reads=(exceptions.ELR, exceptions.SPSR),
    )


def _fp_trap(state: State) -> RaiseException | None:
    """Return the exception of CPACR_EL1.FPEN for an FP or SIMD instruction (Arm ARM CheckFPAdvSIMDEnabled64)."""
    enabled = state[INDEX["cpacr_el1"]] >> 20 & 3
    if enabled == 3 or (enabled == 1 and not _at_el0(state)):
        return None
    return RaiseException(EC_FP, CONDITION_ALWAYS)


def _fmov_to(state: State, word: int) -> Effect:
    return _fp_trap(state) or Continue(vectors={word & 31: _get(state, word >> 5 & 31)})


def _fmov_from(state: State, word: int) -> Effect:
    target = word & 31
    return _fp_trap(state) or Continue({}, {} if target == ZERO else {target: (MASK64, VECTOR_WHY)})


def _loaded(*registers: int) -> dict[int, tuple[int, str]]:
    return {r: (MASK64, "loaded from RAM") for r in registers if r != ZERO}


def _pair(state: State, word: int) -> Effect:
    first, base, second = word & 31, word >> 5 & 31, word >> 10 & 31
    is_store = not word >> 22 & 1
    if not is_store and first == second:
        return Undetermined("a pair loaded into one register is CONSTRAINED UNPREDICTABLE")
    address = state[base] + 8 * (word >> 15 & 0x3F) & MASK64
    if address & 0xFFF > 0xFF0:
        return Undetermined("a pair across two pages: either may fault")
    then = Continue() if is_store else Continue({}, _loaded(first, second))
    return Access(address, 8, is_store, then)


def _write_back(state: State, word: int) -> Effect:
    target, base, offset = word & 31, word >> 5 & 31, word >> 12 & 0xFF
    is_pre, is_store = bool(word >> 11 & 1), not word >> 22 & 1
    if target == base:
        return Undetermined("write-back to the register transferred is CONSTRAINED UNPREDICTABLE")
    after = state[base] + offset & MASK64
    then = Continue({base: after}, {} if is_store else _loaded(target))
    return Access(after if is_pre else state[base], 8, is_store, then)


def _ldxr(state: State, word: int) -> Effect:
    if state[word >> 5 & 31] % 8:
        return RaiseException(EC_DABT, FSC_ALIGNMENT, state[word >> 5 & 31])  # aligned or not at all (Arm ARM B2.2.1)
    return Access(state[word >> 5 & 31], 8, False, Continue({}, _loaded(word & 31)))


_PLAIN_BITS: Final = 40
"""Of an address that every CPU has with stage 1 off."""


def _stxr(state: State, word: int) -> Effect:
    target, base, status = word & 31, word >> 5 & 31, word >> 16 & 31
    if status in (target, base) and status != ZERO:
        return Undetermined("a status register that is used otherwise is CONSTRAINED UNPREDICTABLE")
    # Without the monitor it makes no access; one that is not aligned, or not mapped, may still fault (B2.9.5).
    plain = not is_on(state) and not state[base] % 8 and not state[base] >> _PLAIN_BITS
    return Continue() if status == ZERO and plain else Undetermined(f"whether x{base} is held exclusively")


def _vector(state: State, word: int) -> Effect:
    is_load = bool(word >> 22 & 1)
    then = Continue(vectors={word & 31: None} if is_load else {})
    return _fp_trap(state) or Access(state[word >> 5 & 31], 16, not is_load, then)


def _mrs(state: State, word: int) -> Effect:
    row = sysregs.BY_ENCODING.get(a64.system_register(word))
    if row is None:
        return Undetermined("an unknown system register")
    if _at_el0(state):
        return _from_el0(row)
    target = word & 31
    match row.read:
        case ExpectedResult.STATE:
            index = INDEX[row.name]
            return Continue({} if target == ZERO else {target: state[index]}, reads=(index,))
        case ExpectedResult.ZERO:
            return _put(target, 0)
        case ExpectedResult.ANY:
            return Continue({}, {} if target == ZERO else {target: (MASK64, f"read from {row.name}")})
        case ExpectedResult.UNDEFINED:
            return RaiseException(EC_UNKNOWN)
    return Undetermined(f"whether there is {row.name}")


def _msr(state: State, word: int) -> Effect:
    row = sysregs.BY_ENCODING.get(a64.system_register(word))
    if row is None:
        return Undetermined("an unknown system register")
    if _at_el0(state):
        return _from_el0(row)
    match row.write:
        case ExpectedResult.STATE:
            return Continue({INDEX[row.name]: _get(state, word & 31)})
        case ExpectedResult.ANY | ExpectedResult.ZERO:
            return Continue()
        case ExpectedResult.UNDEFINED:
            return RaiseException(EC_UNKNOWN)
    return Undetermined(f"whether there is {row.name}")


def _from_el0(row: sysregs.SysReg) -> Effect:
    """Return the effect at EL0: UNDEFINED, unless the encoding (op1 3) is one that EL1 may permit at EL0."""
    if row.encoding[1] == 3:
        return Undetermined("a system register that EL0 may have")
    return RaiseException(EC_UNKNOWN)


_EFFECTS: Final[Mapping[str, Callable[[State, int], Effect]]] = MappingProxyType(
    {
        **{"smc": _smc, "brk": _brk, "udf": _udf, "eret": _eret, "mrs": _mrs, "msr": _msr},
        **{"mov": _mov, "movz": _movz, "movk": _movk, "fmov_to": _fmov_to, "fmov_from": _fmov_from},
        **{"ldp": _pair, "stp": _pair, "ldr_post": _write_back, "str_pre": _write_back},
        **{"ldxr": _ldxr, "stxr": _stxr, "ldr_simd": _vector, "str_simd": _vector},
    }
)


def execute(state: State, word: int) -> Effect:
    """Return the effect of the instruction ``word`` at the PC of ``state``."""
    row = a64.decode_plain(word)
    if row is None or row.mnemonic not in _EFFECTS:
        return Undetermined(f"no rule for the instruction {a64.disassemble(word, state[exceptions.PC])}")
    return _EFFECTS[row.mnemonic](state, word)


@lru_cache(maxsize=1 << 12)
def sources(word: int) -> frozenset[int]:
    """Return the general-purpose registers that decide the effect of ``word``: if one is unknown, so is the effect."""
    row = a64.decode_plain(word)
    if row is None:
        return frozenset()
    numbers = {f.get(word) for f in row.fields if f.name in ("source", "base") and f.names[0] == "x0"}
    if row.mnemonic in ("msr", "movk"):
        numbers.add(word & 31)
    return frozenset(numbers - {ZERO})
