# SPDX-License-Identifier: Apache-2.0
"""List the system registers that a guest may access, as rows: the required results without optional features.

Whether an access traps is KVM's choice and differs between releases.  The result for the guest does not, unless the row
leaves it open.  Encodings and access rules: Arm ARM D19 (AArch64 System register descriptions), the register's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from harness.arch.registers import STATE, Encoding


class ExpectedResult(Enum):
    """The required result of an access from EL1."""

    STATE = "the register of the vCPU's recorded state"
    ZERO = "reads as zero"
    ANY = "any value; a write changes nothing that is recorded"
    UNDEFINED = "an undefined-instruction exception"
    EITHER = "emulation or an undefined-instruction exception"


@dataclass(frozen=True, slots=True)
class SysReg:
    """A row: ``read`` and ``write`` are the required results of MRS and MSR from EL1, ``why`` gives a source if needed.

    ``gic``: the two results for a vCPU with an in-kernel GICv3, if they differ.
    """

    name: str
    encoding: Encoding
    read: ExpectedResult
    write: ExpectedResult
    why: str = ""
    gic: tuple[ExpectedResult, ExpectedResult] | None = None


_S: Final = ExpectedResult.STATE
_Z: Final = ExpectedResult.ZERO
_A: Final = ExpectedResult.ANY
_U: Final = ExpectedResult.UNDEFINED
_E: Final = ExpectedResult.EITHER

_ID: Final = "ID registers are read-only (D19.2); KVM may hide features, so any value will do"
_RESERVED: Final = "reserved ID space is RAZ (D18.3.1, op0=3, op1=0, CRn=0, CRm=2..7)"
_NO_PMU: Final = "the vCPU has no PMU (KVM_ARM_VCPU_PMU_V3 not asked for): ID_AA64DFR0_EL1.PMUVer is 0"
_IMPDEF: Final = (
    "IMPLEMENTATION DEFINED space: KVM refuses it (HCR_EL2.TIDCP), QEMU 7.2 does not trap what its CPU model has"
)
_NO_GIC: Final = (
    "no in-kernel GIC: the CPU interface may be there anyway (ID_AA64PFR0_EL1.GIC); else IHI 0069, its page"
)
_DEBUG: Final = (
    "breakpoints and watchpoints have a record of their own (harness/relations/debug_registers.py), "
    "which relation host does not follow through code"
)
_NO_REGISTER: Final = "emulator: QEMU 7.2 has no such register, so it is UNDEFINED there before any hypervisor is asked"
_TIMER: Final = "counters run on"
_SET_WAY: Final = "cache maintenance by set/way: no register changes"

# The registers of harness/arch/registers.py for which not both read and write reach the recorded register.
_ACCESS: Final[Mapping[str, tuple[ExpectedResult, ExpectedResult, str]]] = MappingProxyType(
    {
        "mpidr_el1": (_S, _U, "read-only"),
        "actlr_el1": (_S, _A, "ACTLR_EL1 is IMPLEMENTATION DEFINED; KVM ignores writes"),
        "sp_el1": (_U, _U, "SP_EL1 is accessible from EL2 on"),
    }
)

_OTHERS: Final[tuple[SysReg, ...]] = (
    *(
        SysReg(name, encoding, _A, _U, _ID)
        for name, encoding in (
            ("midr_el1", (3, 0, 0, 0, 0)),
            ("revidr_el1", (3, 0, 0, 0, 6)),
            ("id_pfr0_el1", (3, 0, 0, 1, 0)),
            ("id_dfr0_el1", (3, 0, 0, 1, 2)),
            ("id_isar0_el1", (3, 0, 0, 2, 0)),
            ("mvfr0_el1", (3, 0, 0, 3, 0)),
            ("id_aa64pfr0_el1", (3, 0, 0, 4, 0)),
            ("id_aa64pfr1_el1", (3, 0, 0, 4, 1)),
            ("id_aa64zfr0_el1", (3, 0, 0, 4, 4)),
            ("id_aa64dfr0_el1", (3, 0, 0, 5, 0)),
            ("id_aa64dfr1_el1", (3, 0, 0, 5, 1)),
            ("id_aa64isar0_el1", (3, 0, 0, 6, 0)),
            ("id_aa64isar1_el1", (3, 0, 0, 6, 1)),
            ("id_aa64mmfr0_el1", (3, 0, 0, 7, 0)),
            ("id_aa64mmfr1_el1", (3, 0, 0, 7, 1)),
            ("id_aa64mmfr2_el1", (3, 0, 0, 7, 2)),
            # The rest of what Linux reads when it boots.
            ("id_pfr1_el1", (3, 0, 0, 1, 1)),
            ("id_afr0_el1", (3, 0, 0, 1, 3)),
            ("id_mmfr0_el1", (3, 0, 0, 1, 4)),
            ("id_mmfr1_el1", (3, 0, 0, 1, 5)),
            ("id_mmfr2_el1", (3, 0, 0, 1, 6)),
            ("id_mmfr3_el1", (3, 0, 0, 1, 7)),
            ("id_isar1_el1", (3, 0, 0, 2, 1)),
            ("id_isar2_el1", (3, 0, 0, 2, 2)),
            ("id_isar3_el1", (3, 0, 0, 2, 3)),
            ("id_isar4_el1", (3, 0, 0, 2, 4)),
            ("id_isar5_el1", (3, 0, 0, 2, 5)),
            ("id_mmfr4_el1", (3, 0, 0, 2, 6)),
            ("id_isar6_el1", (3, 0, 0, 2, 7)),
            ("mvfr1_el1", (3, 0, 0, 3, 1)),
            ("mvfr2_el1", (3, 0, 0, 3, 2)),
            ("id_pfr2_el1", (3, 0, 0, 3, 4)),
            ("id_dfr1_el1", (3, 0, 0, 3, 5)),
            ("id_mmfr5_el1", (3, 0, 0, 3, 6)),
            ("id_aa64pfr2_el1", (3, 0, 0, 4, 2)),
            ("id_aa64smfr0_el1", (3, 0, 0, 4, 5)),
            ("id_aa64isar2_el1", (3, 0, 0, 6, 2)),
            ("id_aa64isar3_el1", (3, 0, 0, 6, 3)),
            ("id_aa64mmfr3_el1", (3, 0, 0, 7, 3)),
            ("id_aa64mmfr4_el1", (3, 0, 0, 7, 4)),
            ("ccsidr_el1", (3, 1, 0, 0, 0)),
            ("clidr_el1", (3, 1, 0, 0, 1)),
            ("ctr_el0", (3, 3, 0, 0, 1)),
            ("dczid_el0", (3, 3, 0, 0, 7)),
        )
    ),
    SysReg("aidr_el1", (3, 1, 0, 0, 7), _A, _U, "AIDR_EL1 is IMPLEMENTATION DEFINED"),
    *(
        SysReg(name, encoding, _Z, _U, _RESERVED)
        for name, encoding in (
            ("s3_0_c0_c4_7", (3, 0, 0, 4, 7)),
            ("s3_0_c0_c5_2", (3, 0, 0, 5, 2)),
            ("s3_0_c0_c6_7", (3, 0, 0, 6, 7)),
            ("s3_0_c0_c7_7", (3, 0, 0, 7, 7)),
        )
    ),
    *(
        SysReg(name, encoding, _A, _A, _DEBUG)
        for name, encoding in (
            ("dbgbvr0_el1", (2, 0, 0, 0, 4)),
            ("dbgbvr1_el1", (2, 0, 0, 1, 4)),
            ("dbgwvr0_el1", (2, 0, 0, 0, 6)),
            ("dbgwvr3_el1", (2, 0, 0, 3, 6)),
            ("osdlr_el1", (2, 0, 1, 3, 4)),
        )
    ),
    *(
        SysReg(name, encoding, _E, _E, _NO_REGISTER)
        for name, encoding in (
            ("dbgprcr_el1", (2, 0, 1, 4, 4)),
            ("dbgclaimset_el1", (2, 0, 7, 8, 6)),
            ("dbgclaimclr_el1", (2, 0, 7, 9, 6)),
            ("dbgauthstatus_el1", (2, 0, 7, 14, 6)),
        )
    ),
    SysReg("oslar_el1", (2, 0, 1, 0, 4), _E, _A, "write-only; what a read does is not said"),
    SysReg("oslsr_el1", (2, 0, 1, 1, 4), _A, _E, "read-only; KVM ignores or refuses a write"),
    SysReg("mdrar_el1", (2, 0, 1, 0, 0), _A, _E, "read-only; KVM ignores or refuses a write"),
    SysReg("mdccsr_el0", (2, 3, 0, 1, 0), _A, _E, "read-only; KVM ignores or refuses a write"),
    *(
        SysReg(name, encoding, _U, _U, _NO_PMU)
        for name, encoding in (
            ("pmcr_el0", (3, 3, 9, 12, 0)),
            ("pmcntenset_el0", (3, 3, 9, 12, 1)),
            ("pmovsclr_el0", (3, 3, 9, 12, 3)),
            ("pmselr_el0", (3, 3, 9, 12, 5)),
            ("pmccntr_el0", (3, 3, 9, 13, 0)),
            ("pmxevtyper_el0", (3, 3, 9, 13, 1)),
            ("pmuserenr_el0", (3, 3, 9, 14, 0)),
            ("pmintenset_el1", (3, 0, 9, 14, 1)),
            ("pmevcntr0_el0", (3, 3, 14, 8, 0)),
            ("pmccfiltr_el0", (3, 3, 14, 15, 7)),
        )
    ),
    *(
        SysReg(name, encoding, _E, _E, _IMPDEF)
        for name, encoding in (
            ("s3_0_c11_c0_0", (3, 0, 11, 0, 0)),
            ("s3_0_c15_c2_0", (3, 0, 15, 2, 0)),
            ("s3_1_c11_c0_2", (3, 1, 11, 0, 2)),
            ("s3_1_c15_c2_0", (3, 1, 15, 2, 0)),
            ("s3_3_c15_c0_0", (3, 3, 15, 0, 0)),
            ("s3_7_c15_c15_7", (3, 7, 15, 15, 7)),
        )
    ),
    *(
        SysReg(name, encoding, _E, _E, _NO_GIC, gic)
        for gic, rows in (
            (
                (_A, _A),
                (
                    ("icc_pmr_el1", (3, 0, 4, 6, 0)),
                    ("icc_bpr1_el1", (3, 0, 12, 12, 3)),
                    ("icc_ctlr_el1", (3, 0, 12, 12, 4)),
                    ("icc_sre_el1", (3, 0, 12, 12, 5)),
                    ("icc_igrpen0_el1", (3, 0, 12, 12, 6)),
                    ("icc_igrpen1_el1", (3, 0, 12, 12, 7)),
                ),
            ),
            (
                (_A, _U),
                (
                    ("icc_iar0_el1", (3, 0, 12, 8, 0)),
                    ("icc_rpr_el1", (3, 0, 12, 11, 3)),
                    ("icc_iar1_el1", (3, 0, 12, 12, 0)),
                    ("icc_hppir1_el1", (3, 0, 12, 12, 2)),
                ),
            ),
            (
                (_U, _A),
                (
                    ("icc_eoir0_el1", (3, 0, 12, 8, 1)),
                    ("icc_dir_el1", (3, 0, 12, 11, 1)),
                    ("icc_sgi1r_el1", (3, 0, 12, 11, 5)),
                    ("icc_sgi0r_el1", (3, 0, 12, 11, 7)),
                    ("icc_eoir1_el1", (3, 0, 12, 12, 1)),
                ),
            ),
        )
        for name, encoding in rows
    ),
    *(
        SysReg(name, encoding, _A, _E, _TIMER)
        for name, encoding in (
            ("cntfrq_el0", (3, 3, 14, 0, 0)),
            ("cntpct_el0", (3, 3, 14, 0, 1)),
            ("cntvct_el0", (3, 3, 14, 0, 2)),
            ("cntp_tval_el0", (3, 3, 14, 2, 0)),
            ("cntp_ctl_el0", (3, 3, 14, 2, 1)),
            ("cntp_cval_el0", (3, 3, 14, 2, 2)),
        )
    ),
    *(
        SysReg(name, encoding, _E, _A, _SET_WAY)
        for name, encoding in (("dc_isw", (1, 0, 7, 6, 2)), ("dc_csw", (1, 0, 7, 10, 2)), ("dc_cisw", (1, 0, 7, 14, 2)))
    ),
    SysReg("zcr_el1", (3, 0, 1, 2, 0), _U, _U, "the vCPU has no SVE (KVM_ARM_VCPU_SVE not asked for)"),
    SysReg("rgsr_el1", (3, 0, 1, 0, 5), _U, _U, "the VM has no MTE (KVM_CAP_ARM_MTE not enabled)"),
    SysReg("apiakeylo_el1", (3, 0, 2, 1, 0), _U, _U, "the vCPU has no pointer authentication (not asked for)"),
    SysReg("sctlr_el2", (3, 4, 1, 0, 0), _U, _U, "EL2 registers are UNDEFINED at EL1"),
    SysReg("sctlr_el12", (3, 5, 1, 0, 0), _U, _U, "EL2 registers are UNDEFINED at EL1"),
)

SYSREGS: Final[tuple[SysReg, ...]] = (
    *(SysReg(r.name, r.encoding, *_ACCESS.get(r.name, (_S, _S, ""))) for r in STATE if r.encoding is not None),
    *_OTHERS,
)
TIMERS: Final[frozenset[str]] = frozenset(r.name for r in SYSREGS if r.why is _TIMER)
"""Registers that a kernel may trap or leave to the CPU: it may have no handler for a forged trap."""
COUNTERS: Final[frozenset[str]] = TIMERS - {"cntfrq_el0"}
"""Registers that read as another value each time."""
KEEPERS: Final[frozenset[str]] = frozenset(r.name for r in SYSREGS if r.why is _IMPDEF or r.gic == (_A, _A))
"""Registers that keep what was written, if they exist: between two reads only the guest may change them."""

BY_NAME: Final[Mapping[str, SysReg]] = MappingProxyType({r.name: r for r in SYSREGS})
BY_ENCODING: Final[Mapping[Encoding, SysReg]] = MappingProxyType({r.encoding: r for r in SYSREGS})

READABLE: Final[tuple[str, ...]] = tuple(r.name for r in SYSREGS if r.encoding[0] != 1)
"""Registers that an MRS may name; with op0 1 it would be SYSL."""
WRITABLE: Final[tuple[str, ...]] = tuple(r.name for r in SYSREGS if r.why is not _TIMER)
"""Registers that an MSR (or SYS) may name; no timers: one that fires would make every later step uncertain."""
