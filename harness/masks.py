# SPDX-License-Identifier: Apache-2.0
"""Bits that a register may lose on its way through the CPU: RES0 and implementation-defined ones, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from harness import arch
from harness.errors import SetupError
from harness.registers import INDEX, MASK64, STATE, Vhe


@dataclass(frozen=True, slots=True)
class Mask:
    """``bits`` of ``register`` that need not come back as they were put in on ``cpus`` (all when empty)."""

    register: str
    bits: int
    cpus: frozenset[str]
    reason: str
    source: str


V8_0_PSTATE = arch.NZCV | arch.IL | arch.DAIF | arch.MODE
V8_2_PSTATE = V8_0_PSTATE | arch.UAO | arch.PAN | arch.SSBS
VBAR_RES0 = 0x7FF
SCTLR_MTE = 0x7F << 37
_PSTATE = "PSTATE bits that the CPU lacks are RES0; SS is cleared where no step is armed"
_PSTATE_SOURCE = "Arm ARM C5.2.18 and AArch64.DebugExceptionReturnSS"

MASKS: tuple[Mask, ...] = (
    Mask("csselr_el1", MASK64 & ~0xF, frozenset(), "RES0 bits of CSSELR_EL1", "Arm ARM D17.2.31; TnD needs MTE"),
    Mask("afsr0_el1", MASK64, frozenset(), "AFSR0_EL1 is IMPLEMENTATION DEFINED", "Arm ARM D17.2.15; RAZ/WI here"),
    Mask("afsr1_el1", MASK64, frozenset(), "AFSR1_EL1 is IMPLEMENTATION DEFINED", "Arm ARM D17.2.17; RAZ/WI here"),
    Mask("amair_el1", MASK64, frozenset(), "AMAIR_EL1 is IMPLEMENTATION DEFINED", "Arm ARM D17.2.24; RAZ/WI here"),
    Mask(
        "sctlr_el1",
        SCTLR_MTE,
        frozenset({"cortex-a72", "cortex-a76"}),
        "SCTLR_EL1 bits of the memory tagging extension are RES0 without it",
        "Arm ARM D17.2.118: ITFSB, TCF0, TCF, ATA0, ATA",
    ),
    Mask("vbar_el1", VBAR_RES0, frozenset(), "RES0 bits of VBAR_EL1", "Arm ARM D17.2.153: [10:0]"),
    Mask(
        "mdccint_el1",
        MASK64,
        frozenset(),
        "emulator: reading MDCCINT_EL1 gives what was in the register",
        "QEMU target/arm/debug_helper.c: MDCCINT_EL1 is ARM_CP_NOP",
    ),
    Mask("pstate", MASK64 & ~V8_0_PSTATE, frozenset({"cortex-a72"}), _PSTATE, f"{_PSTATE_SOURCE}; Armv8.0"),
    Mask("pstate", MASK64 & ~V8_2_PSTATE, frozenset({"cortex-a76"}), _PSTATE, f"{_PSTATE_SOURCE}; Armv8.2 with SSBS"),
)

PA_BITS: Mapping[str, int] = MappingProxyType({"cortex-a72": 44, "cortex-a76": 40})
"""Physical address size: ID_AA64MMFR0_EL1.PARange of the CPU models (their technical reference manuals)."""


@dataclass(frozen=True)
class Cpu:
    """What a CPU model keeps and can address: ``masks`` by index in ``registers.STATE``."""

    name: str
    pa_bits: int
    masks: Mapping[int, Mask]

    @cached_property
    def lossy(self) -> Mapping[int, int]:
        """The bits that registers lose while VHE keeps them in the CPU, by index."""
        live = (INDEX[r.name] for r in STATE if r.vhe is not Vhe.MEMORY)
        return {index: self.masks[index].bits for index in live if index in self.masks}

    def mask(self, index: int) -> tuple[int, str]:
        """Return the bits of a register that ``switch.*`` does not compare, and why."""
        mask = self.masks.get(index)
        return (0, "") if mask is None else (mask.bits, mask.reason)


def cpu_model(name: str) -> Cpu:
    """Return the row of a CPU model.  SetupError: nobody wrote down its address size yet."""
    if name not in PA_BITS:
        raise SetupError(f"CPU model {name}: not in harness/masks.py; known are {', '.join(PA_BITS)}")
    return Cpu(name, PA_BITS[name], {INDEX[m.register]: m for m in MASKS if not m.cpus or name in m.cpus})
