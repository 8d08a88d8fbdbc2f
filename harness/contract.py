# SPDX-License-Identifier: Apache-2.0
"""What KVM owes the guest, written from the specifications, never from what a kernel was seen to do.

Sources: Arm DEN 0022 (PSCI), Arm DEN 0028 (SMCCC), Arm ARM DDI 0487, the KVM API document
(Documentation/virt/kvm/api.rst).  Each function returns the value that is owed, or None where nothing is promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness import arch, exits
from harness.arch import State
from harness.registers import INDEX, MASK64
from harness.trace import Switch

UNKNOWN_RESET = 0x1DE7_EC7E_DBAD_C0DE
"""What KVM puts into registers whose reset value the architecture leaves UNKNOWN (sys_regs.c, reset_unknown)."""

VENDOR_UID: tuple[int, int, int, int] = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
"""KVM's vendor UID (include/linux/arm-smccc.h, ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_0..3)."""

_UID_CALL = 0x8600_FF01
# Results in x1..x3 that depend on entropy or time (Arm DEN 0098; Documentation/virt/kvm/arm/ptp_kvm.rst).
_FREE_RESULTS = frozenset({0x8400_0052, 0x8400_0053, 0xC400_0053, 0x8600_0001})
_RESET2_64 = 0xC400_0012
_RESET2_32 = 0x8400_0012


def call_result(exit_: Switch, index: int, observed: int) -> int | None:
    """Return what x1, x2 or x3 (``index``) owes after an SMCCC call, None if nothing is promised.

    SMCCC 1.1 gives x1..x3 to results; what a call does not define, KVM returns as 0.  ``observed`` is returned where
    any value will do.
    """
    function = exit_.values[0] & 0xFFFF_FFFF
    if index not in (1, 2, 3):
        return None
    if function == _UID_CALL:
        return VENDOR_UID[index]
    if function in _FREE_RESULTS:
        return observed
    if function in (_RESET2_32, _RESET2_64) and _reset_type_known(exit_.values[1] & 0xFFFF_FFFF):
        return exit_.values[index] & (MASK64 if function == _RESET2_64 else 0xFFFF_FFFF)
    return 0


def _reset_type_known(reset_type: int) -> bool:
    """SYSTEM_WARM_RESET, or a vendor's own (DEN 0022 5.11: bit 31); any other is INVALID_PARAMETERS."""
    return reset_type == 0 or reset_type >> 31 == 1


def mmio_data(exit_: Switch, data: int) -> int | None:
    """Return what a load that trapped as MMIO owes its register for ``data``; None without a valid syndrome.

    The access's low bytes, sign- or zero-extended, to 32 (upper half zero) or 64 bits: Arm ARM C6.2 LDR*, syndrome
    D17.2.37 ISS encoding for a Data Abort.
    """
    if not exits.DABT["ISV"].get(exit_.esr):
        return None
    bits = 8 << exits.DABT["SAS"].get(exit_.esr)
    value = data & ((1 << bits) - 1)
    if exits.DABT["SSE"].get(exit_.esr) and value >> (bits - 1):
        value -= 1 << bits
    return value & (MASK64 if exits.DABT["SF"].get(exit_.esr) else 0xFFFF_FFFF)


_EC_IABT, _EC_DABT = exits.EC_BY_NAME["IABT_LOW"], exits.EC_BY_NAME["DABT_LOW"]


def abort_state(exit_: Switch) -> State:
    """Return the state after the external abort that KVM owes for an access it cannot serve (kvm.md, EXC).

    ESR_EL1: the class of the abort, from a lower level if the guest was at EL0, IL, and FSC 0x10.
    """
    data = (exit_.esr & exits.EC_MASK) >> exits.EC_SHIFT == _EC_DABT
    ec = _EC_DABT if data else _EC_IABT
    if exit_.values[arch.PSTATE] & arch.MODE != arch.EL0T:
        ec += 1
    esr = ec << exits.EC_SHIFT | exits.IL_BIT | exits.FSC_EXTABT
    return arch.take_exception(exit_.values, esr, exit_.far)


def undefined_state(exit_: Switch) -> State:
    """Return the state after the undefined-instruction exception that KVM owes (EC 0 with IL)."""
    return arch.take_exception(exit_.values, exits.IL_BIT)


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
    | {"sp_el0": 0, "pc": 0, "pstate": arch.EL1H | arch.DAIF, "sp_el1": 0, "elr_el1": 0, "spsr_el1": 0}
    | {"mpidr_el1": 0x8000_0000, "sctlr_el1": 0x00C5_0078}
    | dict.fromkeys(_RESET_TO_ZERO, 0)
    | dict.fromkeys(_RESET_UNKNOWN, UNKNOWN_RESET)
)
HOST_RESET: frozenset[str] = frozenset({"actlr_el1", "amair_el1"})
"""Registers that a reset takes from the host CPU: any value will do."""

RESET_BY_INDEX: Mapping[int, int] = MappingProxyType({INDEX[name]: value for name, value in RESET_VALUES.items()})
HOST_RESET_INDEX: frozenset[int] = frozenset(INDEX[name] for name in HOST_RESET)
