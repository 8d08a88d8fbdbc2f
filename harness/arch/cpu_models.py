# SPDX-License-Identifier: Apache-2.0
"""Describe QEMU's CPU models as rows: address sizes, features, and the register bits that a CPU does not keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from harness.arch import exceptions
from harness.arch.registers import INDEX, MASK64, STATE, Vhe
from harness.errors import SetupError


@dataclass(frozen=True, slots=True)
class Mask:
    """``bits`` of ``register`` that need not read back as written on ``cpus`` (all when empty).

    ``res0``: each of them is RES0; it reads back as written or as 0 (Arm ARM glossary, RES0).
    """

    register: str
    bits: int
    cpus: frozenset[str]
    reason: str
    source: str
    res0: bool = False


V8_0 = frozenset({"cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72"})
V8_2 = frozenset({"cortex-a76", "neoverse-n1"})
V8_0_PSTATE = exceptions.NZCV | exceptions.IL | exceptions.DAIF | exceptions.MODE
V8_2_PSTATE = V8_0_PSTATE | exceptions.UAO | exceptions.PAN | exceptions.SSBS
VBAR_RES0 = 0x7FF
SCTLR_MTE = 0x7F << 37
_PSTATE = "PSTATE bits that the CPU lacks are RES0; SS is cleared where no step is armed"
_PSTATE_SOURCE = "Arm ARM C5.2.18 and AArch64.DebugExceptionReturnSS"

_RES0 = (
    "RES0 on each CPU model of CPUS: Cortex-A35 TRM 100236, A53 TRM DDI 0500, A57 TRM DDI 0488, A72 TRM 100095, "
    "A76 TRM 100798, Neoverse N1 TRM 100616, the register's page; max: QEMU target/arm/helper.c, ARM_CP_CONST"
)

MASKS: tuple[Mask, ...] = (
    Mask("csselr_el1", MASK64 & ~0xF, frozenset(), "RES0 bits of CSSELR_EL1", "Arm ARM D17.2.31; TnD needs MTE", True),
    Mask("afsr0_el1", MASK64, frozenset(), "AFSR0_EL1 is IMPLEMENTATION DEFINED", f"Arm ARM D17.2.15; {_RES0}", True),
    Mask("afsr1_el1", MASK64, frozenset(), "AFSR1_EL1 is IMPLEMENTATION DEFINED", f"Arm ARM D17.2.17; {_RES0}", True),
    Mask("amair_el1", MASK64, frozenset(), "AMAIR_EL1 is IMPLEMENTATION DEFINED", f"Arm ARM D17.2.24; {_RES0}", True),
    Mask(
        "sctlr_el1",
        SCTLR_MTE,
        frozenset(),
        "SCTLR_EL1 bits of the memory tagging extension are RES0 without it",
        "Arm ARM D17.2.118: ITFSB, TCF0, TCF, ATA0, ATA; no target has tag memory (-M virt,mte=on)",
        True,
    ),
    Mask("vbar_el1", VBAR_RES0, frozenset(), "RES0 bits of VBAR_EL1", "Arm ARM D17.2.153: [10:0]", True),
    Mask(
        "mdccint_el1",
        MASK64,
        frozenset(),
        "emulator: reading MDCCINT_EL1 gives what was in the register",
        "QEMU target/arm/debug_helper.c: MDCCINT_EL1 is ARM_CP_NOP",
    ),
    Mask(
        "mdscr_el1",
        exceptions.OS_LOCK_HIDES,
        frozenset(),
        "MDSCR_EL1.SS, KDE and MDE while the guest's OS Lock is set; RES0 bits 63:32",
        "arch/arm64/kvm/debug.c kvm_arm_setup_debug; Arm ARM D17.3.20",
    ),
    Mask("pstate", MASK64 & ~V8_0_PSTATE, V8_0, _PSTATE, f"{_PSTATE_SOURCE}; Armv8.0"),
    Mask("pstate", MASK64 & ~V8_2_PSTATE, V8_2, _PSTATE, f"{_PSTATE_SOURCE}; Armv8.2 with SSBS"),
    Mask(
        "pstate",
        MASK64 & ~(V8_2_PSTATE | exceptions.DIT),
        frozenset({"max"}),
        f"{_PSTATE}; BTYPE changes with every instruction where there is FEAT_BTI",
        f"{_PSTATE_SOURCE}; Arm ARM D8.4.6 (BTYPE)",
    ),
)


@dataclass(frozen=True, slots=True)
class Model:
    """A CPU model of QEMU: physical address size (ID_AA64MMFR0_EL1.PARange), whether it has VHE, and the source.

    ``features`` are those that change what a guest may see between two traps; ``granules`` the sizes of stage-1 pages,
    as bits of address (TGran4, TGran16, TGran64 of the same register).
    """

    pa_bits: int
    vhe: bool
    source: str
    features: frozenset[str] = frozenset()
    granules: frozenset[int] = frozenset({12, 16})


ALL_GRANULES = frozenset({12, 14, 16})
BTI, IDST, NMI = "FEAT_BTI", "FEAT_IDST", "FEAT_NMI"


CPUS: Mapping[str, Model] = MappingProxyType(
    {
        "cortex-a35": Model(40, False, "Cortex-A35 TRM (100236), ID_AA64MMFR0_EL1: 0x1122"),
        "cortex-a53": Model(40, False, "Cortex-A53 TRM (DDI 0500), ID_AA64MMFR0_EL1: 0x1122"),
        "cortex-a57": Model(44, False, "Cortex-A57 TRM (DDI 0488), ID_AA64MMFR0_EL1: 0x1124"),
        "cortex-a72": Model(44, False, "Cortex-A72 TRM (100095), ID_AA64MMFR0_EL1: 0x1124"),
        "cortex-a76": Model(
            40, True, "Cortex-A76 TRM (100798), ID_AA64MMFR0_EL1: 0x101122, ID_AA64MMFR1_EL1.VH", granules=ALL_GRANULES
        ),
        "neoverse-n1": Model(
            48, True, "Neoverse N1 TRM (100616), ID_AA64MMFR0_EL1: 0x101125, ID_AA64MMFR1_EL1.VH", granules=ALL_GRANULES
        ),
        "max": Model(
            52,
            True,
            "no real CPU; QEMU target/arm/cpu64.c, aarch64_max_initfn: PARANGE 6, FEAT_NMI from 9.1 on",
            frozenset({BTI, IDST, NMI}),
            ALL_GRANULES,
        ),
    }
)
"""The CPU models that targets may have."""


@dataclass(frozen=True)
class Cpu:
    """A CPU model with the bits that it does not keep: ``masks`` by index in ``registers.STATE``.

    ``aligns_device``: an unaligned access to Device memory is an alignment fault (Arm ARM B2.7.2); the emulator may
    make the access.
    """

    name: str
    pa_bits: int
    masks: Mapping[int, Mask]
    features: frozenset[str] = frozenset()
    granules: frozenset[int] = frozenset({12, 16})
    aligns_device: bool = True

    @cached_property
    def lossy(self) -> Mapping[int, int]:
        """The bits that registers lose while VHE keeps them in the CPU, by index."""
        live = (INDEX[r.name] for r in STATE if r.vhe is not Vhe.MEMORY)
        return {index: self.masks[index].bits for index in live if index in self.masks}

    def zeroed(self, index: int, put: int, back: int) -> bool | None:
        """Whether a register read back as written, except RES0 bits that read as 0.

        None: other bits differ, or the bits that the CPU does not keep may have any value.
        """
        mask = self.masks.get(index)
        if mask is None or not mask.res0 or (put ^ back) & ~mask.bits:
            return None
        return not back & ~put

    def mask(self, index: int) -> tuple[int, str]:
        """Return the bits of a register that ``switch.*`` does not compare, and why."""
        mask = self.masks.get(index)
        return (0, "") if mask is None else (mask.bits, mask.reason)


def cpu_model(name: str) -> Cpu:
    """Return the row of a CPU model.  SetupError: there is no row for it."""
    if name not in CPUS:
        raise SetupError(f"CPU model {name}: not in harness/arch/cpu_models.py; known are {', '.join(CPUS)}")
    masks = {INDEX[m.register]: m for m in MASKS if not m.cpus or name in m.cpus}
    row = CPUS[name]
    return Cpu(name, row.pa_bits, masks, row.features, row.granules)
