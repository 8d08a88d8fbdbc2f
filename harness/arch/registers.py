# SPDX-License-Identifier: Apache-2.0
"""List the registers of a guest's context: one row per register, read by the model, the probe, reports and documents.

Sources: shadow indices, the index table of the SeKVM Coq sources (docs/spec/model.md section 2.2); encodings, Arm ARM
D19 (``S<op0>_<op1>_C<n>_C<m>_<op2>``); ``sys_regs`` names, ``enum vcpu_sysreg`` in the kernel's
``arch/arm64/include/asm/kvm_host.h``; where VHE keeps a register, ``__vcpu_read_sys_reg_from_cpu`` in
``arch/arm64/include/asm/kvm_host.h`` and ``__sysreg_save_el1_state``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

MASK64: Final = (1 << 64) - 1


class Group(Enum):
    """The kind of a register; one class of a finding's signature."""

    GPR = "gpr"
    CORE = "core"
    EL1 = "el1"


class Vhe(Enum):
    """Where the guest's value is while a VHE host has the vCPU loaded."""

    MEMORY = "memory"  # in struct kvm_cpu_context, as on nVHE
    EL12 = "el12"  # in the CPU, under the EL12 alias
    DIRECT = "direct"  # in the CPU, under its own name


Encoding = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Register:
    """One register of the guest's context.

    ``shadow`` is the index of ``get_shadow_ctxt`` (None: the layer has no index for it); ``field`` is the
    field name of the Coq sources; ``core`` is the u64 slot in ``struct kvm_regs`` (None: not a core register);
    ``sys_reg`` names the slot of ``kvm_cpu_context.sys_regs``; ``encoding`` is (op0, op1, CRn, CRm, op2).
    ``live_before``: kernels from this version on keep it in memory whatever ``vhe`` says.  ``kept_by_reset``:
    UNKNOWN at reset (Arm ARM), and KVM_ARM_VCPU_INIT keeps the value (kvm_reset_vcpu).
    """

    name: str
    shadow: int | None
    group: Group
    core: int | None = None
    sys_reg: str | None = None
    encoding: Encoding | None = None
    vhe: Vhe = Vhe.MEMORY
    settable: bool = True
    live_before: tuple[int, int] | None = None
    kept_by_reset: bool = False

    @property
    def field(self) -> str:
        """The field name of the shadow context in the SeKVM Coq sources."""
        return self.name

    @property
    def one_reg(self) -> int:
        """The id that KVM_SET_ONE_REG takes (KVM API 4.68: core registers, arm64 system registers)."""
        base = 0x6030_0000_0000_0000  # KVM_REG_ARM64 | KVM_REG_SIZE_U64
        if self.core is not None:
            return base | 0x10_0000 | (self.core * 2)
        assert self.encoding is not None
        op0, op1, crn, crm, op2 = self.encoding
        return base | 0x13_0000 | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


def _sys(
    name: str,
    shadow: int,
    encoding: Encoding,
    vhe: Vhe = Vhe.MEMORY,
    *,
    core: int | None = None,
    settable: bool = True,
    live_before: tuple[int, int] | None = None,
) -> Register:
    # The banked core registers are not in KVM's reset table; every other system register is.
    kept = core is not None
    return Register(name, shadow, Group.EL1, core, name.upper(), encoding, vhe, settable, live_before, kept)


# Order matters: this is the order of VcpuState.values.
STATE: Final[tuple[Register, ...]] = (
    *(Register(f"x{i}", i, Group.GPR, core=i) for i in range(31)),
    Register("sp_el0", None, Group.CORE, core=31),
    Register("pc", 32, Group.CORE, core=32),
    Register("pstate", 33, Group.CORE, core=33),
    _sys("sp_el1", 34, (3, 4, 4, 1, 0), Vhe.DIRECT, core=34),
    _sys("elr_el1", 35, (3, 0, 4, 0, 1), Vhe.EL12, core=35),
    _sys("spsr_el1", 36, (3, 0, 4, 0, 0), Vhe.EL12, core=36),
    # The proof's mpidr_el1 is VMPIDR_EL2 on the CPU; KVM derives it from the vCPU id at reset.
    _sys("mpidr_el1", 47, (3, 0, 0, 0, 5), settable=False),
    # Since 6.3 KVM traps CSSELR_EL1 (HCR_EL2.TID2) and keeps it in memory ("KVM: arm64: Mask FEAT_CCIDX").
    _sys("csselr_el1", 48, (3, 2, 0, 0, 0), Vhe.DIRECT, live_before=(6, 3)),
    _sys("sctlr_el1", 49, (3, 0, 1, 0, 0), Vhe.EL12),
    _sys("actlr_el1", 50, (3, 0, 1, 0, 1), settable=False),
    _sys("cpacr_el1", 51, (3, 0, 1, 0, 2), Vhe.EL12),
    _sys("ttbr0_el1", 52, (3, 0, 2, 0, 0), Vhe.EL12),
    _sys("ttbr1_el1", 53, (3, 0, 2, 0, 1), Vhe.EL12),
    _sys("tcr_el1", 54, (3, 0, 2, 0, 2), Vhe.EL12),
    _sys("esr_el1", 55, (3, 0, 5, 2, 0), Vhe.EL12),
    _sys("afsr0_el1", 56, (3, 0, 5, 1, 0), Vhe.EL12),
    _sys("afsr1_el1", 57, (3, 0, 5, 1, 1), Vhe.EL12),
    _sys("far_el1", 58, (3, 0, 6, 0, 0), Vhe.EL12),
    _sys("mair_el1", 59, (3, 0, 10, 2, 0), Vhe.EL12),
    _sys("vbar_el1", 60, (3, 0, 12, 0, 0), Vhe.EL12),
    _sys("contextidr_el1", 61, (3, 0, 13, 0, 1), Vhe.EL12),
    _sys("tpidr_el0", 62, (3, 3, 13, 0, 2), Vhe.DIRECT),
    _sys("tpidrro_el0", 63, (3, 3, 13, 0, 3), Vhe.DIRECT),
    _sys("tpidr_el1", 64, (3, 0, 13, 0, 4), Vhe.DIRECT),
    _sys("amair_el1", 65, (3, 0, 10, 3, 0), Vhe.EL12),
    _sys("cntkctl_el1", 66, (3, 0, 14, 1, 0), Vhe.EL12),
    _sys("par_el1", 67, (3, 0, 7, 4, 0), Vhe.DIRECT),
    _sys("mdscr_el1", 68, (2, 0, 0, 2, 2)),
    _sys("mdccint_el1", 69, (2, 0, 0, 2, 0)),
)

BY_NAME: Final[Mapping[str, Register]] = MappingProxyType({r.name: r for r in STATE})
INDEX: Final[Mapping[str, int]] = MappingProxyType({r.name: i for i, r in enumerate(STATE)})
BY_ONE_REG: Final[Mapping[int, int]] = MappingProxyType({r.one_reg: i for i, r in enumerate(STATE)})
"""KVM_SET_ONE_REG id to index in STATE."""
NAMES: Final[tuple[str, ...]] = tuple(r.name for r in STATE)
SETTABLE: Final[tuple[Register, ...]] = tuple(r for r in STATE if r.settable)

# Further indices of get_shadow_ctxt / set_shadow_ctxt that are not guest registers (docs/spec/model.md section 2.2).
# 31, 34, 37..40, 69 and everything outside the table read as 0 and ignore writes in the proof levels.
SHADOW_ONLY: Final[Mapping[str, int]] = MappingProxyType(
    {"far_el2": 41, "hpfar_el2": 42, "hcr_el2": 43, "ec": 44, "dirty": 45, "flags": 46}
    | {"elr_el2": 70, "spsr_0": 71, "esr_el2": 72}
)
SHADOW_UNBACKED: Final[frozenset[int]] = frozenset({31, 34, 37, 38, 39, 40, 69})
