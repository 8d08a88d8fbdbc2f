# SPDX-License-Identifier: Apache-2.0
"""Define ranges, constants and index tables of the model, as rows (docs/spec/model.md sections 2.1 and 2.2).

Predicates use ``&`` instead of ``and``, so that the same code also runs on symbolic values.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

INVALID = 0xFFFF_FFFF
INVALID64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1

KVM_ADDR_SPACE = 1 << 48
MAX_MMIO_ADDR = 0x4000_0000
MAX_LOAD_INFO_NUM = 5
ARM_EXCEPTION_TRAP = 2
DIRTY_PC_FLAG = 1 << 32
PENDING_EXCEPT_INJECT_FLAG = 60129542144  # bits 33, 34, 35: data abort, instruction abort, undefined
PENDING_FSC_FAULT = 2
PSTATE_FAULT_BITS_64 = 965
KERNEL_PSTATE_FAULT_BITS_64 = 11
ESR_ELx_EC_MASK = 0xFC00_0000
ESR_ELx_EC_SHIFT = 26
ESR_ELx_WNR = 64
ESR_ELx_S1PTW = 128
ESR_ELx_EC_UNKNOWN = 0
ESR_ELx_EC_WFx = 1
ESR_ELx_EC_HVC32 = 18
ESR_ELx_EC_HVC64 = 22
ESR_ELx_EC_IABT_LOW = 32
ESR_ELx_EC_DABT_LOW = 36
ESR_ELx_EC_BRK64 = 60  # level kernel only
SHADOW_SYS_REGS_SIZE = 24
KERNEL_SYS_REGS_LAST = 25  # DISR_EL1, where the kernel's loop ends

PSCI_0_2_FN64_CPU_ON = 3288334339
PSCI_0_2_FN_AFFINITY_INFO = 2214592516
PSCI_0_2_FN64_AFFINITY_INFO = 1073741828  # the proof's value; the standard's is the next one
KERNEL_PSCI_0_2_FN64_AFFINITY_INFO = 0xC400_0004
PSCI_0_2_FN_SYSTEM_OFF = 2214592520

# VM states: the proof's numbering, and the kernel's, which has no POWEROFF.
UNUSED, MAPPED, READY, VERIFIED, POWEROFF, ACTIVE = 0, 1, 2, 3, 4, 5
KERNEL_ACTIVE = 4

PAGE_SIZE = 4096
PTRS_PER_PMD = 512
PMD_PAGE_NUM = 512
PAGE_S2_KERNEL = 4095
PHYS_MASK = (1 << 48) - 1
PAGE_MASK = 1152921504606842880
PAGE_GUEST = 1 << 57
NOT_PMD_TABLE_BIT = (1 << 64) - 3
KERNEL_BIT_LEVEL3 = 1 << 56
KERNEL_BIT_LEVEL2 = 1 << 55
HOSTVISOR = 0

# Lock ids (docs/spec/model.md section 7) and the memory pools of stage-2 tables (section 8).
FLATMEM_ID, S2PAGE_ID, NPT_ID, INFO_ID = 0, 2, 5, 22
WAIT_BOUND = 10
POOL_BASE, POOL_SIZE = 65536, 33554432
PGD_LIMIT, PUD_LIMIT, PMD_LIMIT = 1052672, 9441280, 33554432

VCPU_MAX = 8
KERNEL_VCPU_MAX = 4


def is_int(v: int) -> bool:
    """0 <= v < 2^32."""
    return (v >= 0) & (v < 1 << 32)


def is_int64(v: int) -> bool:
    """0 <= v < 2^64."""
    return (v >= 0) & (v < 1 << 64)


def is_vmid(v: int) -> bool:
    """0 <= v <= 16."""
    return (v >= 0) & (v <= 16)


def is_vm(v: int) -> bool:
    """0 < v < 16."""
    return (v > 0) & (v < 16)


def is_vcpu(v: int) -> bool:
    """0 <= v < 8."""
    return (v >= 0) & (v < VCPU_MAX)


def is_reg(v: int) -> bool:
    """0 <= v < 256."""
    return (v >= 0) & (v < 256)


def is_addr(v: int) -> bool:
    """0 <= v < 2^48."""
    return (v >= 0) & (v < 1 << 48)


def is_gfn(v: int) -> bool:
    """0 <= v < 68719476736."""
    return (v >= 0) & (v < 68719476736)


def is_pfn(v: int) -> bool:
    """0 <= v < 268435456."""
    return (v >= 0) & (v < 268435456)


def phys_page(pte: int) -> int:
    """Return the physical address in a page table entry."""
    return pte & PHYS_MASK & PAGE_MASK


# The field of the Coq record for each field of a context (docs/spec/model.md section 2).  The Coq export and
# counterexample tables use this order.
GPRS: tuple[str, ...] = tuple(f"x{i}" for i in range(31))
FP: tuple[str, ...] = (*(f"fp_q{i}" for i in range(32)), "fp_fpsr", "fp_fpcr")
STATES: tuple[str, ...] = ("pc", "pstate", "dirty", "flags", "esr_el1", "spsr_0")
TRAP_REGS: tuple[str, ...] = ("pmuselr_el0", "pmuserenr_el0", "mdcr_el2", "cptr_el2", "cnthctl_el2")
SYSTEM: tuple[str, ...] = (
    *("csselr_el1", "sctlr_el1", "cpacr_el1", "ttbr0_el1", "ttbr1_el1", "tcr_el1", "afsr0_el1", "afsr1_el1"),
    *("far_el1", "mair_el1", "vbar_el1", "contextidr_el1", "amair_el1", "cntkctl_el1", "par_el1", "tpidr_el1"),
    *("spsr_el1", "mdscr_el1", "sp_el0", "tpidr_el0", "tpidrro_el0", "spsr_el2", "vmpidr_el2", "mpidr_el1"),
    *("actlr_el1", "sp_el1", "elr_el1", "elr_el2", "vttbr_el2", "hcr_el2", "tpidr_el2", "esr_el2", "ec"),
    *("far_el2", "hpfar_el2"),
)
REGS: tuple[str, ...] = (*GPRS, *FP, *SYSTEM)
# Fields that only the kernel's context has: SPSR by mode, and slots of sys_regs[] without a name in the proof.
KERNEL_ONLY: tuple[str, ...] = (
    *("spsr_abt", "spsr_und", "spsr_irq", "spsr_fiq", "sys_regs_0", "zcr_el1", "mdccint_el1", "disr_el1"),
    *(f"sys_regs_{i}" for i in range(26, 61)),
)
RECORD_OF: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(REGS, "regs")
    | dict.fromkeys(STATES, "states")
    | dict.fromkeys(TRAP_REGS, "trap_regs")
    | dict.fromkeys(KERNEL_ONLY, "kernel")
)
CTXT_FIELDS: tuple[str, ...] = (*REGS, *STATES, *TRAP_REGS, *KERNEL_ONLY)

# Index table of get_shadow_ctxt / set_shadow_ctxt in the proof (docs/spec/model.md section 2.2).  An index that is not
# here (31, 34, 37..40, 69 and others) reads as 0 and ignores writes.
SHADOW_FIELD: Mapping[int, str] = MappingProxyType(
    {i: f"x{i}" for i in range(31)}
    | {32: "pc", 33: "pstate", 35: "elr_el1", 36: "spsr_el1"}
    | {41: "far_el2", 42: "hpfar_el2", 43: "hcr_el2", 44: "ec", 45: "dirty", 46: "flags"}
    | {47: "mpidr_el1", 48: "csselr_el1", 49: "sctlr_el1", 50: "actlr_el1", 51: "cpacr_el1"}
    | {52: "ttbr0_el1", 53: "ttbr1_el1", 54: "tcr_el1", 55: "esr_el1", 56: "afsr0_el1", 57: "afsr1_el1"}
    | {58: "far_el1", 59: "mair_el1", 60: "vbar_el1", 61: "contextidr_el1", 62: "tpidr_el0", 63: "tpidrro_el0"}
    | {64: "tpidr_el1", 65: "amair_el1", 66: "cntkctl_el1", 67: "par_el1", 68: "mdscr_el1"}
    | {70: "elr_el2", 71: "spsr_0", 72: "esr_el2"}
)
PC, PSTATE, ELR_EL1, FAR_EL2, HPFAR_EL2, EC, DIRTY, FLAGS = 32, 33, 35, 41, 42, 44, 45, 46
SYSREGS_START = 47
MPIDR_EL1, ACTLR_EL1, ESR_EL1, SPSR_0, ESR_EL2 = 47, 50, 55, 71, 72

# The same table in the kernel: 0..40 are one flat array, 41..46 separate fields, then sys_regs[index - 47].
KERNEL_FLAT: tuple[str, ...] = (
    *GPRS,
    *("sp_el0", "pc", "pstate", "sp_el1", "elr_el1"),
    *("spsr_el1", "spsr_abt", "spsr_und", "spsr_irq", "spsr_fiq"),
)
KERNEL_OWN: tuple[str, ...] = ("far_el2", "hpfar_el2", "hcr_el2", "ec", "dirty", "flags")
KERNEL_SYS_REGS: tuple[str, ...] = (
    *("sys_regs_0", "mpidr_el1", "csselr_el1", "sctlr_el1", "actlr_el1", "cpacr_el1", "zcr_el1", "ttbr0_el1"),
    *("ttbr1_el1", "tcr_el1", "esr_el1", "afsr0_el1", "afsr1_el1", "far_el1", "mair_el1", "vbar_el1"),
    *("contextidr_el1", "tpidr_el0", "tpidrro_el0", "tpidr_el1", "amair_el1", "cntkctl_el1", "par_el1"),
    *("mdscr_el1", "mdccint_el1", "disr_el1"),
    *(f"sys_regs_{i}" for i in range(26, 61)),
)
KERNEL_FIELD: tuple[str, ...] = (*KERNEL_FLAT, *KERNEL_OWN, *KERNEL_SYS_REGS)
KERNEL_ESR_EL1 = 51  # V_ESR_EL1 = 41 + 10, in the kernel's numbering ACTLR_EL1
KERNEL_SPSR_0 = 8  # V_SPSR_0, which is x8
KERNEL_MPIDR_EL1, KERNEL_ACTLR_EL1 = 1, 4

# get_sys_reg_desc_val in the kernel: a table indexed by position, in an order that differs from the numbering.
KERNEL_REG_DESC: Mapping[int, int] = MappingProxyType(
    {3: 0x00C5_0078}
    | dict.fromkeys((2, 9, 11, 13, 15, 20, 21, 22, 23), 0)
    | dict.fromkeys((5, 6, 7, 8, 10, 12, 14, 16, 17, 18, 19, 24, 25), 2154950976315703518)
)


def ctxt_id(vmid: int, vcpuid: int) -> int:
    """Return the proof's index of a shadow context."""
    return vmid * 8 + vcpuid


def kernel_ctxt_id(vmid: int, vcpuid: int) -> int:
    """Return the kernel's index of a shadow context: vCPUs 4..7 alias the next VM's (docs/spec/model.md section 2)."""
    return vmid * 4 + vcpuid
