# SPDX-License-Identifier: Apache-2.0
"""List the register values after a reset, by the Arm ARM and KVM_ARM_VCPU_INIT."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.arch import exceptions
from harness.arch.registers import INDEX

UNKNOWN_RESET = 0x1DE7_EC7E_DBAD_C0DE
"""The value that KVM writes to registers whose reset value is UNKNOWN (sys_regs.c, reset_unknown)."""
_RESET_TO_ZERO = (
    *("cpacr_el1", "tcr_el1", "vbar_el1", "contextidr_el1"),
    *("cntkctl_el1", "mdscr_el1", "mdccint_el1"),
)
_RESET_UNKNOWN = (
    *("csselr_el1", "ttbr0_el1", "ttbr1_el1", "esr_el1", "afsr0_el1", "afsr1_el1", "far_el1", "mair_el1"),
    *("tpidr_el0", "tpidrro_el0", "tpidr_el1", "par_el1"),
)
# KVM API 4.82 KVM_ARM_VCPU_INIT: general registers and PC 0, PSTATE EL1h with DAIF set; system registers by Arm ARM.
RESET_VALUES: Mapping[str, int] = MappingProxyType(
    {f"x{i}": 0 for i in range(31)}
    | {"sp_el0": 0, "pc": 0, "pstate": exceptions.EL1H | exceptions.DAIF, "sp_el1": 0, "elr_el1": 0, "spsr_el1": 0}
    | {"mpidr_el1": 0x8000_0000, "sctlr_el1": 0x00C5_0078}
    | dict.fromkeys(_RESET_TO_ZERO, 0)
    | dict.fromkeys(_RESET_UNKNOWN, UNKNOWN_RESET)
)
NOTHING_LEFT: frozenset[int] = frozenset({0, UNKNOWN_RESET})
"""The values that a register may hold after a reset that leaves it UNKNOWN; its value before the reset is not one."""
HOST_RESET: frozenset[str] = frozenset({"actlr_el1", "amair_el1"})
"""Registers that a reset sets from the host CPU: any value is correct."""
RESET_BY_INDEX: Mapping[int, int] = MappingProxyType({INDEX[name]: value for name, value in RESET_VALUES.items()})
HOST_RESET_INDEX: frozenset[int] = frozenset(INDEX[name] for name in HOST_RESET)
