# SPDX-License-Identifier: Apache-2.0
"""List, as rows, forged exits that no CPU reports: what KVM must do for the guest, and what it may log.

A forged exit that a CPU can report is compared as if it were real.  The architecture does not cover the others.  The
rows here are KVM's own convention: an exit without a handler, or one that its handler does not expect, is an
undefined-instruction exception for the guest, and never ends the host.  A handler may also assert that it is never
called for such an exit: the kernel's WARN is then the answer to the forgery, and not a finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from harness.arch import exceptions, exits
from harness.arch.registers import BY_NAME, Encoding
from harness.trace.events import Switch


class Outcome(Enum):
    """The result for the guest."""

    UNDEFINED = "an undefined-instruction exception"
    UNDEFINED_OR_NOTHING = "an undefined-instruction exception, or nothing"
    UNDEFINED_OR_ACCESS = "an undefined-instruction exception, or the access"
    ACCESS = "what the access requires"


@dataclass(frozen=True, slots=True)
class Assertion:
    """A WARN of KVM about an exit that it did not expect: the functions that may print it, by release, and its words.

    ``words`` is a regular expression; empty: the WARN has none of its own.
    """

    functions: frozenset[str]
    words: str = ""

    def has(self, function: str, words: str) -> bool:
        """Whether a WARN in a function with these words is this one."""
        return function in self.functions and re.search(self.words, words) is not None


@dataclass(frozen=True, slots=True)
class ForgedKind:
    """A kind of forged exit: which ones, the result for the guest, the assertions of KVM, and the source.

    ``classes`` are values of ESR_EL2.EC.  ``accesses`` limits them to accesses of registers: op0, op1, CRn, CRm and
    op2; in the place of op0 is the number of the coprocessor where the class is of AArch32.  ``reads``: to reads, or to
    writes.  ``source``: of 6.1, 6.12 and 7.3.
    """

    name: str
    classes: frozenset[int]
    outcome: Outcome
    source: str
    accesses: frozenset[Encoding] | None = None
    reads: bool | None = None
    asserts: Assertion | None = None

    def has(self, esr: int) -> bool:
        """Whether an exit with this syndrome is of the kind."""
        ec = exits.ec_of(esr)
        if ec not in self.classes or (self.reads is not None and self.reads != bool(esr & 1)):
            return False
        return self.accesses is None or _accessed(ec, esr) in self.accesses


_CP15_32: Final = 0x03
_CP15_64: Final = 0x04
_CP14_MR: Final = 0x05
_SYS64: Final = exits.EC_BY_NAME["SYS64"]


def _accessed(ec: int, esr: int) -> Encoding:
    """Return the register of a trapped access, as rows name it (Arm ARM D17.2.37)."""
    if ec == _CP15_64:  # MCRR, MRRC: opc1 and CRm
        return 15, esr >> 16 & 15, 0, esr >> 1 & 15, 0
    op0 = esr >> 20 & 3 if ec == _SYS64 else 14 if ec == _CP14_MR else 15
    return op0, esr >> 14 & 7, esr >> 10 & 15, esr >> 1 & 15, esr >> 17 & 7


def _state(*names: str) -> frozenset[Encoding]:
    found: list[Encoding] = []
    for name in names:
        encoding = BY_NAME[name].encoding
        assert encoding is not None
        found.append(encoding)
    return frozenset(found)


_HANDLED: Final = frozenset(
    # Classes that have a handler of their own in one of the releases.
    {0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0C, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A}
    | {0x20, 0x24, 0x25, 0x2D, 0x30, 0x32, 0x34, 0x38, 0x3C}
)
_TABLE: Final = "arch/arm64/kvm/handle_exit.c arm_exit_handlers"
_REGISTERS: Final = "arch/arm64/kvm/sys_regs.c"
_WRITE_ONLY: Final = frozenset(
    {
        # By set and way, and of tags with them (Arm ARM C5.3); a read of op0 1 is SYSL.
        *((1, 0, 7, crm, op2) for crm in (6, 10, 14) for op2 in (2, 4, 6)),
        (2, 0, 1, 0, 4),  # OSLAR_EL1
        (3, 3, 9, 12, 4),  # PMSWINC_EL0
        *((3, 0, 12, 11, op2) for op2 in (5, 6, 7)),  # ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1
    }
)
_READ_ONLY: Final = frozenset(
    {
        # ID registers (Arm ARM D18.3.1); MPIDR_EL1 has a row of its own.
        *((3, 0, 0, crm, op2) for crm in range(8) for op2 in range(8) if (crm, op2) != (0, 5)),
        *((3, 1, 0, 0, op2) for op2 in (0, 1, 2, 7)),  # CCSIDR_EL1, CLIDR_EL1, CCSIDR2_EL1, AIDR_EL1
        (3, 3, 0, 0, 1),  # CTR_EL0
        (2, 0, 1, 1, 4),  # OSLSR_EL1
        (3, 0, 10, 4, 7),  # LORID_EL1
        (3, 0, 9, 14, 6),  # PMMIR_EL1
    }
)
_WRITE_ONLY_32: Final = frozenset(
    {
        *((15, 0, 7, crm, 2) for crm in (6, 10, 14)),  # DCISW, DCCSW, DCCISW
        (15, 0, 9, 12, 4),  # PMSWINC
        *((15, opc1, 0, 12, 0) for opc1 in range(3)),  # ICC_SGI1R, ICC_ASGI1R, ICC_SGI0R, by MRRC
        (14, 0, 1, 0, 4),  # DBGOSLAR
    }
)
_READ_ONLY_32: Final = frozenset(
    {
        *((15, 0, 0, crm, op2) for crm in range(8) for op2 in range(8)),  # ID registers, CTR, MPIDR
        *((15, 1, 0, 0, op2) for op2 in (0, 1, 2, 7)),  # CCSIDR, CLIDR, CCSIDR2, AIDR
        (14, 0, 1, 1, 4),  # DBGOSLSR
    }
)
_READ: Final = Assertion(frozenset({"read_from_write_only", "bad_trap"}), r"sys_reg read to write-only register")
_WRITTEN: Final = Assertion(frozenset({"write_to_read_only", "bad_trap"}), r"sys_reg write to read-only register")

KINDS: Final[tuple[ForgedKind, ...]] = (
    # The first row that matches an exit is its kind.
    ForgedKind(
        "class-without-handler",
        frozenset(range(64)) - _HANDLED,
        Outcome.UNDEFINED,
        f"{_TABLE}, kvm_handle_unknown_ec",
    ),
    ForgedKind(
        "feature-not-there",
        frozenset({0x07, 0x09, 0x19, 0x2D}),
        Outcome.UNDEFINED,
        f"{_TABLE}: handle_no_fpsimd or kvm_handle_fpasimd, kvm_handle_ptrauth, handle_sve, kvm_handle_gcs",
    ),
    ForgedKind(
        "other-instruction",
        frozenset({0x0A}),
        Outcome.UNDEFINED,
        f"{_TABLE}: kvm_handle_unknown_ec, since 7.0 handle_other",
        asserts=Assertion(frozenset({"handle_other"})),
    ),
    ForgedKind(
        "trap-of-a-nested-hypervisor",
        frozenset({0x15, 0x1A}),
        Outcome.UNDEFINED_OR_NOTHING,
        f"{_TABLE}: kvm_handle_unknown_ec, since 6.6 handle_svc and kvm_handle_eret; "
        "arch/arm64/kvm/emulate-nested.c kvm_inject_nested does nothing for a vCPU without nested virtualization",
    ),
    ForgedKind(
        "abort-of-a-nested-hypervisor",
        frozenset({0x25}),
        Outcome.UNDEFINED,
        f"{_TABLE}: kvm_handle_unknown_ec, since 6.17 kvm_handle_vncr_abort",
        asserts=Assertion(frozenset({"kvm_handle_vncr_abort"}), r"Unhandled VNCR abort"),
    ),
    ForgedKind(
        "register-without-accessor",
        frozenset({_SYS64}),
        Outcome.UNDEFINED,
        f"{_REGISTERS} sys_reg_descs, perform_access: a BUG up to 6.18, a WARN and the exception since 7.0",
        _state(
            *("mpidr_el1", "cpacr_el1", "par_el1", "tpidr_el1", "cntkctl_el1", "tpidr_el0", "tpidrro_el0"),
        ),
        asserts=Assertion(frozenset({"bad_trap"}), r"Unexpected register access"),
    ),
    ForgedKind(
        "register-with-accessor-in-some-releases",
        frozenset({_SYS64}),
        Outcome.UNDEFINED_OR_ACCESS,
        f"{_REGISTERS} sys_reg_descs: not in the table of 6.1, or without accessor; in 6.12 access_rw, access_elr, "
        "access_spsr, access_sp_el1",
        _state("vbar_el1", "elr_el1", "spsr_el1", "sp_el1"),
        asserts=Assertion(frozenset({"bad_trap"}), r"Unexpected register access"),
    ),
    ForgedKind(
        "read-of-write-only-register",
        frozenset({_SYS64}),
        Outcome.ACCESS,
        f"{_REGISTERS} read_from_write_only: a WARN and the exception",
        _WRITE_ONLY,
        reads=True,
        asserts=_READ,
    ),
    ForgedKind(
        "write-of-read-only-register",
        frozenset({_SYS64}),
        Outcome.ACCESS,
        f"{_REGISTERS} write_to_read_only: a WARN and the exception",
        _READ_ONLY,
        reads=False,
        asserts=_WRITTEN,
    ),
    ForgedKind(
        "read-of-write-only-register-of-aarch32",
        frozenset({_CP15_32, _CP15_64, _CP14_MR}),
        Outcome.UNDEFINED,
        f"{_REGISTERS} read_from_write_only: a WARN and the exception",
        _WRITE_ONLY_32,
        reads=True,
        asserts=_READ,
    ),
    ForgedKind(
        "write-of-read-only-register-of-aarch32",
        frozenset({_CP15_32, _CP14_MR}),
        Outcome.UNDEFINED,
        f"{_REGISTERS} write_to_read_only, kvm_emulate_cp15_id_reg: the exception, with or without a WARN",
        _READ_ONLY_32,
        reads=False,
        asserts=_WRITTEN,
    ),
)


WALK_WITHOUT_TRANSLATION: Final = ForgedKind(
    "walk-without-translation",
    frozenset({exits.EC_BY_NAME["IABT_LOW"], exits.EC_BY_NAME["DABT_LOW"]}),
    Outcome.ACCESS,
    "arch/arm64/kvm/at.c __kvm_find_s1_desc_level of 7.3: an abort for a stage-1 walk while SCTLR_EL1.M is 0",
    asserts=Assertion(frozenset({"__kvm_find_s1_desc_level"})),
)
"""A fault on a walk of tables that the guest does not use: its result is not compared."""


def asserting_kind(exit_: Switch) -> ForgedKind | None:
    """Return the kind of a forged exit that KVM may assert never to see, by its syndrome and the guest's registers."""
    walk = WALK_WITHOUT_TRANSLATION.has(exit_.esr) and exits.DABT["S1PTW"].get(exit_.esr)
    if walk and not exit_.values[exceptions.SCTLR] & exceptions.SCTLR_M:
        return WALK_WITHOUT_TRANSLATION
    return kind_of(exit_.esr)


@lru_cache(maxsize=1 << 12)
def kind_of(esr: int) -> ForgedKind | None:
    """Return the kind of a forged exit with this syndrome; None: a CPU can report it, or there is no row."""
    return next((kind for kind in KINDS if kind.has(esr)), None)
