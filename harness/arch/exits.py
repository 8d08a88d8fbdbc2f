# SPDX-License-Identifier: Apache-2.0
"""List exit codes, exception classes, syndrome fields and PSCI/SMCCC functions as rows.

Sources: exit codes, ``arch/arm64/include/asm/kvm_asm.h``; exception classes and ISS fields, Arm ARM D17.2.37
(ESR_ELx); PSCI functions, Arm DEN 0022; SMCCC functions, Arm DEN 0028; exit reasons, ``linux/kvm.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

EXCEPTION_IRQ: Final = 0
EXCEPTION_EL1_SERROR: Final = 1
EXCEPTION_TRAP: Final = 2
EXCEPTION_IL: Final = 3
EXIT_WITH_SERROR_BIT: Final = 1 << 31

EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {EXCEPTION_IRQ: "IRQ", EXCEPTION_EL1_SERROR: "SERROR", EXCEPTION_TRAP: "TRAP", EXCEPTION_IL: "IL"}
)

EC_SHIFT: Final = 26
EC_MASK: Final = 0xFC00_0000
IL_BIT: Final = 1 << 25
ISS_MASK: Final = 0x1FF_FFFF


def ec_of(esr: int) -> int:
    """Return the exception class of a syndrome (ESR_ELx.EC, Arm ARM D17.2.37)."""
    return (esr & EC_MASK) >> EC_SHIFT


@dataclass(frozen=True, slots=True)
class ExceptionClass:
    """An ESR_EL2.EC value and the short name that records, reports and signatures use."""

    ec: int
    name: str
    what: str


EXCEPTION_CLASSES: Final[tuple[ExceptionClass, ...]] = (
    ExceptionClass(0x00, "UNKNOWN", "unknown reason, undefined instruction"),
    ExceptionClass(0x01, "WFX", "trapped WFI or WFE"),
    ExceptionClass(0x07, "FP_ASIMD", "trapped FP/SIMD access"),
    ExceptionClass(0x0E, "ILL", "illegal execution state"),
    ExceptionClass(0x12, "HVC32", "HVC from AArch32"),
    ExceptionClass(0x13, "SMC32", "trapped SMC from AArch32"),
    ExceptionClass(0x16, "HVC64", "HVC from AArch64"),
    ExceptionClass(0x17, "SMC64", "trapped SMC from AArch64"),
    ExceptionClass(0x18, "SYS64", "trapped MSR, MRS or system instruction"),
    ExceptionClass(0x20, "IABT_LOW", "instruction abort from a lower level"),
    ExceptionClass(0x22, "PC_ALIGN", "misaligned PC"),
    ExceptionClass(0x24, "DABT_LOW", "data abort from a lower level"),
    ExceptionClass(0x26, "SP_ALIGN", "misaligned SP"),
    ExceptionClass(0x2F, "SERROR", "SError interrupt"),
    ExceptionClass(0x30, "BREAKPT_LOW", "hardware breakpoint"),
    ExceptionClass(0x32, "SOFTSTP_LOW", "software step"),
    ExceptionClass(0x34, "WATCHPT_LOW", "watchpoint"),
    ExceptionClass(0x3C, "BRK64", "BRK instruction"),
)
EC_NAMES: Final[Mapping[int, str]] = MappingProxyType({c.ec: c.name for c in EXCEPTION_CLASSES})
EC_BY_NAME: Final[Mapping[str, int]] = MappingProxyType({c.name: c.ec for c in EXCEPTION_CLASSES})
CALLS: Final[tuple[str, ...]] = ("HVC64", "SMC64", "HVC32", "SMC32")
"""Classes that KVM handles as calls (handle_hvc, handle_smc).

AArch32 state has neither instruction at EL0: the last two can only be forged.
"""


@dataclass(frozen=True, slots=True)
class IssField:
    """A field of the data abort syndrome: ``(iss >> low) & ((1 << width) - 1)``."""

    name: str
    low: int
    width: int
    what: str

    @property
    def mask(self) -> int:
        """The field's bits in a syndrome."""
        return ((1 << self.width) - 1) << self.low

    def get(self, esr: int) -> int:
        """The field's value in ``esr``."""
        return (esr >> self.low) & ((1 << self.width) - 1)


DABT_FIELDS: Final[tuple[IssField, ...]] = (
    IssField("ISV", 24, 1, "the syndrome below is valid"),
    IssField("SAS", 22, 2, "access size: 0 byte .. 3 doubleword"),
    IssField("SSE", 21, 1, "sign-extended load"),
    IssField("SRT", 16, 5, "the register transferred"),
    IssField("SF", 15, 1, "64-bit register"),
    IssField("LST", 11, 2, "kind of load or store, of FEAT_LS64"),
    IssField("EA", 9, 1, "external abort type"),
    IssField("CM", 8, 1, "cache maintenance"),
    IssField("S1PTW", 7, 1, "fault on a stage-1 walk"),
    IssField("WNR", 6, 1, "write, not read"),
    IssField("FSC", 0, 6, "fault status"),
)
DABT: Final[Mapping[str, IssField]] = MappingProxyType({f.name: f for f in DABT_FIELDS})

FSC_TYPE: Final = 0x3C
FSC_TRANSLATION: Final = 0x04
FSC_ACCESS: Final = 0x08
FSC_PERMISSION: Final = 0x0C
FSC_EXTABT: Final = 0x10
FSC_WALK_EXTABT: Final = 0x14

# kvm_run.exit_reason values that an arm64 vCPU can produce here (include/uapi/linux/kvm.h).
KVM_EXIT_REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "UNKNOWN",
        3: "HYPERCALL",
        4: "DEBUG",
        6: "MMIO",
        9: "FAIL_ENTRY",
        10: "INTR",
        17: "INTERNAL_ERROR",
        24: "SYSTEM_EVENT",
        28: "ARM_NISV",
        39: "MEMORY_FAULT",
        42: "ARM_LDST64B",
    }
)


@dataclass(frozen=True, slots=True)
class SmcccFunction:
    """An SMCCC function id, and the results that KVM must return in x0..x3.

    ``sleeps``: the vCPU may stop running.  ``at_el2``: KVM may handle the call at EL2, with x0 = 0 and no exit
    (``el1_hvc_guest`` in arch/arm64/kvm/hyp/hyp-entry.S).
    """

    fid: int
    name: str
    sleeps: bool = False
    at_el2: bool = False


SMCCC_FUNCTIONS: Final[tuple[SmcccFunction, ...]] = (
    SmcccFunction(0x8400_0000, "PSCI_VERSION"),
    SmcccFunction(0x8400_0001, "PSCI_CPU_SUSPEND32", sleeps=True),
    SmcccFunction(0xC400_0001, "PSCI_CPU_SUSPEND64", sleeps=True),
    SmcccFunction(0x8400_0002, "PSCI_CPU_OFF", sleeps=True),
    SmcccFunction(0x8400_0003, "PSCI_CPU_ON32"),
    SmcccFunction(0xC400_0003, "PSCI_CPU_ON64"),
    SmcccFunction(0x8400_0004, "PSCI_AFFINITY_INFO32"),
    SmcccFunction(0xC400_0004, "PSCI_AFFINITY_INFO64"),
    SmcccFunction(0x8400_0005, "PSCI_MIGRATE32"),
    SmcccFunction(0xC400_0005, "PSCI_MIGRATE64"),
    SmcccFunction(0x8400_0006, "PSCI_MIGRATE_INFO_TYPE"),
    SmcccFunction(0x8400_0007, "PSCI_MIGRATE_INFO_UP_CPU32"),
    SmcccFunction(0xC400_0007, "PSCI_MIGRATE_INFO_UP_CPU64"),
    SmcccFunction(0x8400_0008, "PSCI_SYSTEM_OFF", sleeps=True),
    SmcccFunction(0x8400_0009, "PSCI_SYSTEM_RESET", sleeps=True),
    SmcccFunction(0x8400_000A, "PSCI_FEATURES"),
    SmcccFunction(0x8400_000E, "PSCI_SYSTEM_SUSPEND32", sleeps=True),
    SmcccFunction(0xC400_000E, "PSCI_SYSTEM_SUSPEND64", sleeps=True),
    SmcccFunction(0x8400_0012, "PSCI_SYSTEM_RESET2_32", sleeps=True),
    SmcccFunction(0xC400_0012, "PSCI_SYSTEM_RESET2_64", sleeps=True),
    SmcccFunction(0x8400_0015, "PSCI_SYSTEM_OFF2_32", sleeps=True),
    SmcccFunction(0xC400_0015, "PSCI_SYSTEM_OFF2_64", sleeps=True),
    SmcccFunction(0x8000_0000, "SMCCC_VERSION"),
    SmcccFunction(0x8000_0001, "SMCCC_ARCH_FEATURES"),
    SmcccFunction(0x8000_8000, "SMCCC_ARCH_WORKAROUND_1", at_el2=True),
    SmcccFunction(0x8000_7FFF, "SMCCC_ARCH_WORKAROUND_2", at_el2=True),
    SmcccFunction(0x8000_3FFF, "SMCCC_ARCH_WORKAROUND_3", at_el2=True),
    SmcccFunction(0xC500_0020, "HV_PV_TIME_FEATURES"),
    SmcccFunction(0xC500_0021, "HV_PV_TIME_ST"),
    SmcccFunction(0x8400_0050, "TRNG_VERSION"),
    SmcccFunction(0x8400_0051, "TRNG_FEATURES"),
    SmcccFunction(0x8400_0052, "TRNG_GET_UUID"),
    SmcccFunction(0x8400_0053, "TRNG_RND32"),
    SmcccFunction(0xC400_0053, "TRNG_RND64"),
    SmcccFunction(0x8600_FF01, "VENDOR_HYP_CALL_UID"),
    SmcccFunction(0x8600_0000, "VENDOR_HYP_KVM_FEATURES"),
    SmcccFunction(0x8600_0001, "VENDOR_HYP_KVM_PTP"),
    # Only of protected VMs, for which EL2 handles them (harness/guest/pkvm_calls.py).
    SmcccFunction(0xC600_0002, "VENDOR_HYP_KVM_HYP_MEMINFO"),
    SmcccFunction(0xC600_0003, "VENDOR_HYP_KVM_MEM_SHARE"),
    SmcccFunction(0xC600_0004, "VENDOR_HYP_KVM_MEM_UNSHARE"),
)
SMCCC_BY_FID: Final[Mapping[int, SmcccFunction]] = MappingProxyType({f.fid: f for f in SMCCC_FUNCTIONS})


@lru_cache(maxsize=1 << 12)
def exit_class(code: int, esr: int) -> str:
    """Name the class of an exit from its exit code and ESR_EL2, such as ``HVC64`` or ``IRQ``.

    If an SError is pending too, the class is that of the SError: KVM handles nothing else then (handle_exit in
    arch/arm64/kvm/handle_exit.c).
    """
    if code & EXIT_WITH_SERROR_BIT:
        return EXIT_CODES[EXCEPTION_EL1_SERROR]
    base = EXIT_CODES.get(code)
    if base != "TRAP":
        return f"CODE{code}" if base is None else base
    ec = ec_of(esr)
    name = EC_NAMES.get(ec)
    return f"EC{ec:#04x}" if name is None else name
