# SPDX-License-Identifier: Apache-2.0
"""State what KVM must do for the guest, from the specifications, never from the behaviour of a kernel.

Sources: Arm DEN 0022 (PSCI), Arm DEN 0028 (SMCCC), Arm ARM DDI 0487, the KVM API document
(Documentation/virt/kvm/api.rst).  Each function returns the required value, or None where nothing is specified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from harness.arch import exceptions, exits, sysregs
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.trace.events import Switch
from harness.trace.psci import (
    AFFINITY,
    ALREADY_ON,
    HIBERNATE_OFF,
    INTERNAL_FAILURE,
    INVALID_PARAMETERS,
    NOT_SUPPORTED,
    SUCCESS,
)

VENDOR_UID: Final[tuple[int, int, int, int]] = (0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D)
"""KVM's vendor UID (include/linux/arm-smccc.h, ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_0..3)."""

_UID_CALL: Final = 0x8600_FF01
# Results in x1..x3 that depend on entropy or time (Arm DEN 0098; Documentation/virt/kvm/arm/ptp_kvm.rst).
_FREE_RESULTS: Final = frozenset({0x8400_0052, 0x8400_0053, 0xC400_0053, 0x8600_0001})
_RESET2_64: Final = 0xC400_0012
_RESET2_32: Final = 0x8400_0012


def call_result(exit_: Switch, index: int) -> int | None:
    """Return the required value of x1, x2 or x3 (``index``) after an SMCCC call; None: any value is correct.

    SMCCC 1.1 uses x1..x3 for results; KVM returns 0 in those that a call does not define.
    """
    function = exit_.values[0] & 0xFFFF_FFFF
    if function == _UID_CALL:
        return VENDOR_UID[index]
    if function in _FREE_RESULTS:
        return None
    if function in (_RESET2_32, _RESET2_64) and _reset_type_known(exit_.values[1] & 0xFFFF_FFFF):
        return exit_.values[index] & (MASK64 if function == _RESET2_64 else 0xFFFF_FFFF)
    return 0


# x0 of calls whose result does not depend on arguments.
_STATUS: Final[Mapping[str, frozenset[int]]] = MappingProxyType(
    {
        # KVM_REG_ARM_PSCI_VERSION: 1.1 up to 6.12, 1.3 in 7.x (docs/spec/kvm.md section 3).
        "PSCI_VERSION": frozenset({0x10001, 0x10002, 0x10003}),
        **dict.fromkeys(("PSCI_CPU_SUSPEND32", "PSCI_CPU_SUSPEND64", "PSCI_CPU_OFF"), frozenset({SUCCESS})),
        "PSCI_MIGRATE_INFO_TYPE": frozenset({2}),
        **dict.fromkeys(
            ("PSCI_MIGRATE32", "PSCI_MIGRATE64", "PSCI_MIGRATE_INFO_UP_CPU32", "PSCI_MIGRATE_INFO_UP_CPU64"),
            frozenset({NOT_SUPPORTED}),
        ),
        **dict.fromkeys(("PSCI_SYSTEM_OFF", "PSCI_SYSTEM_RESET"), frozenset({INTERNAL_FAILURE})),
        # Needs KVM_CAP_ARM_SYSTEM_SUSPEND, which is not enabled.
        **dict.fromkeys(("PSCI_SYSTEM_SUSPEND32", "PSCI_SYSTEM_SUSPEND64"), frozenset({NOT_SUPPORTED})),
        # "Optional; pKVM protected guests only" (Documentation/virt/kvm/arm/hypercalls.rst).
        **dict.fromkeys(
            (f"VENDOR_HYP_KVM_{name}" for name in ("HYP_MEMINFO", "MEM_SHARE", "MEM_UNSHARE")),
            frozenset({NOT_SUPPORTED}),
        ),
        "SMCCC_VERSION": frozenset({0x10001}),
        "VENDOR_HYP_CALL_UID": frozenset({VENDOR_UID[0]}),
        "TRNG_VERSION": frozenset({0x10000}),  # DEN 0098
    }
)
# x0 depends on the host's CPU, features or entropy.
_FREE_STATUS: Final = frozenset(
    {"SMCCC_ARCH_FEATURES", "SMCCC_ARCH_WORKAROUND_1", "SMCCC_ARCH_WORKAROUND_2", "SMCCC_ARCH_WORKAROUND_3"}
    | {"HV_PV_TIME_FEATURES", "HV_PV_TIME_ST", "VENDOR_HYP_KVM_FEATURES", "VENDOR_HYP_KVM_PTP"}
    | {"TRNG_FEATURES", "TRNG_GET_UUID", "TRNG_RND32", "TRNG_RND64"}
)
# Functions that PSCI_FEATURES must report in PSCI 1.1 (DEN 0022 5.1 and 5.15), and optional ones.
_MUST_KNOW: Final = (
    *("PSCI_VERSION", "PSCI_CPU_SUSPEND32", "PSCI_CPU_SUSPEND64", "PSCI_CPU_OFF", "PSCI_CPU_ON32", "PSCI_CPU_ON64"),
    *("PSCI_AFFINITY_INFO32", "PSCI_AFFINITY_INFO64", "PSCI_SYSTEM_OFF", "PSCI_SYSTEM_RESET", "PSCI_FEATURES"),
    "SMCCC_VERSION",
)
_MAY_KNOW: Final = ("PSCI_MIGRATE_INFO_TYPE", "PSCI_SYSTEM_RESET2_32", "PSCI_SYSTEM_RESET2_64")
# DEN 0022 5.4.3 (SUCCESS, ALREADY_ON, INVALID_PARAMETERS, ON_PENDING, INTERNAL_FAILURE, INVALID_ADDRESS), 5.7.2 (ON,
# OFF, ON_PENDING, INVALID_PARAMETERS).
_CPU_ON_RESULTS: Final = frozenset({SUCCESS, *(MASK64 + 1 - n for n in (4, 2, 5, 6, 9))})
_AFFINITY_RESULTS: Final = frozenset({0, 1, 2, INVALID_PARAMETERS})


def call_status(exit_: Switch, vcpus: int = 1) -> frozenset[int] | None:
    """Return the values that x0 may hold after an SMCCC call; None: any (DEN 0022, DEN 0028).

    If there are several ``vcpus``, a call about another one may return any result of the function: the other one keeps
    running.
    """
    function = exits.SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF)
    if function is None:
        return frozenset({NOT_SUPPORTED})
    name = function.name
    if name in _FREE_STATUS:
        return None
    if name in _STATUS:
        return _STATUS[name]
    width = MASK64 if function.fid >> 30 & 1 else 0xFFFF_FFFF  # SMC64 calls take 64-bit arguments
    x1, x2 = (exit_.values[i] & width for i in (1, 2))
    if vcpus > 1 and name.startswith(("PSCI_CPU_ON", "PSCI_AFFINITY_INFO")):
        return _CPU_ON_RESULTS if name.startswith("PSCI_CPU_ON") else _AFFINITY_RESULTS
    if name.startswith("PSCI_CPU_ON"):
        return frozenset({INVALID_PARAMETERS if x1 else ALREADY_ON})
    if name.startswith("PSCI_AFFINITY_INFO"):
        return frozenset({_affinity_info(x1, x2)})
    if name.startswith("PSCI_SYSTEM_RESET2"):
        known = _reset_type_known(x1 & 0xFFFF_FFFF)
        return frozenset({INTERNAL_FAILURE if known else INVALID_PARAMETERS})
    if name.startswith("PSCI_SYSTEM_OFF2"):
        # Since PSCI 1.3 (DEN 0022F 5.11): type HIBERNATE_OFF, for which 0 stands too, and a cookie of 0.
        known = x1 & 0xFFFF_FFFF in (0, HIBERNATE_OFF) and not x2
        # KVM treats the type as 32 bits wide, like that of SYSTEM_RESET2; if the upper half is set, both are correct.
        others = {INVALID_PARAMETERS} if x1 >> 32 else set()
        return frozenset({NOT_SUPPORTED, INTERNAL_FAILURE if known else INVALID_PARAMETERS, *others})
    assert name == "PSCI_FEATURES"
    asked = exits.SMCCC_BY_FID.get(x1)
    if asked is not None and asked.name.startswith("PSCI_SYSTEM_OFF2"):
        return frozenset({HIBERNATE_OFF, NOT_SUPPORTED})  # the types that exist
    if asked is not None and asked.name in _MUST_KNOW:
        return frozenset({SUCCESS})
    if asked is not None and asked.name in _MAY_KNOW:
        return frozenset({SUCCESS, NOT_SUPPORTED})
    return frozenset({NOT_SUPPORTED})


def _affinity_info(target: int, level: int) -> int:
    """Return ON for the one vCPU, at any level that contains it; else invalid (DEN 0022 5.7)."""
    if level > 3 or target & ~AFFINITY:
        return INVALID_PARAMETERS
    return INVALID_PARAMETERS if target >> 8 * level else SUCCESS


def _reset_type_known(reset_type: int) -> bool:
    """Whether a type is SYSTEM_WARM_RESET or vendor-specific (DEN 0022 5.11: bit 31); others are INVALID_PARAMETERS."""
    return reset_type == 0 or reset_type >> 31 == 1


_EC_IABT: Final = exits.EC_BY_NAME["IABT_LOW"]
_EC_DABT: Final = exits.EC_BY_NAME["DABT_LOW"]


def _il(exit_: Switch) -> int:
    """Return ESR_EL1.IL of an exception that KVM injects for an exit.

    It is that of the exit's syndrome (kvm_vcpu_trap_il_is32bit): 1 for A64, unless the syndrome was forged.
    """
    as_seen = exit_.forged or exit_.values[exceptions.PSTATE] & exceptions.AARCH32
    return exit_.esr & exits.IL_BIT if as_seen else exits.IL_BIT


def _from_el0(state: State) -> bool:
    """Whether the guest is at EL0, in AArch64 or, as the one AArch32 mode that it can have, in User mode."""
    return state[exceptions.PSTATE] & exceptions.MODE in (exceptions.EL0T, exceptions.AARCH32)


def external_abort(state: State, exit_: Switch | None) -> State:
    """Return ``state`` after the external data abort that userspace asked for.

    None: the vCPU never ran, so that IL and FAR_EL1, here 0, are of no instruction.
    Source: docs/spec/kvm.md section 1 EXC; KVM API 4.32.
    """
    ec = _EC_DABT + (not _from_el0(state))
    il, far = (0, 0) if exit_ is None else (_il(exit_), exit_.far)
    return exceptions.take_exception(state, ec << exits.EC_SHIFT | il | exits.FSC_EXTABT, far)


def abort_state(exit_: Switch) -> State:
    """Return the state after the external abort that KVM must inject for an access that it cannot emulate.

    Source: docs/spec/kvm.md section 1 EXC.  ESR_EL1: the class of the abort, from a lower level if the guest was at
    EL0, IL, and FSC 0x10, or 0x14 for a stage-1 walk, whose level is to be added (:func:`walk_abort_syndromes`).
    """
    data = exits.ec_of(exit_.esr) == _EC_DABT
    ec = _EC_DABT if data else _EC_IABT
    if not _from_el0(exit_.values):
        ec += 1
    status = exits.FSC_WALK_EXTABT if is_walk(exit_) else exits.FSC_EXTABT
    return exceptions.take_exception(exit_.values, ec << exits.EC_SHIFT | _il(exit_) | status, exit_.far)


def is_walk(exit_: Switch) -> bool:
    """Whether a stage-1 walk faulted at stage 2 (Arm ARM D17.2.37, S1PTW)."""
    return bool(exits.DABT["S1PTW"].get(exit_.esr))


def walk_abort_syndromes(exit_: Switch, level: int | None = None) -> frozenset[int]:
    """Return the correct syndromes of an external abort on a stage-1 walk: one per level.

    Source: docs/spec/kvm.md section 2 S1PTW; Arm ARM D17.2.37, FSC 0b0101LL.  The guest's tables give the ``level``;
    None: they are unknown.
    """
    esr = abort_state(exit_)[exceptions.ESR]
    return frozenset(esr | level for level in (range(4) if level is None else (level,)))


def undefined_state(exit_: Switch) -> State:
    """Return the state after the undefined-instruction exception that KVM must inject (EC 0 with IL)."""
    return exceptions.take_exception(exit_.values, _il(exit_))


def step_waits(stepped: bool, before: int, pstate: int) -> bool:
    """Whether the guest still has its own PSTATE.SS of ``before``, while userspace stepped it.

    Its own steps are suspended meanwhile (arch/arm64/kvm/debug.c, kvm_arm_setup_debug up to 6.12): neither the API nor
    the architecture specifies whether they continue from before or from after the work that KVM did for the guest.
    Since 6.14 KVM saves the bit and restores it unchanged (kvm_vcpu_load_debug, kvm_vcpu_put_debug).
    """
    return stepped and bool(before & pstate & exceptions.SS)


@dataclass(frozen=True, slots=True)
class SystemAccess:
    """A trapped access to a system register: the table's row (None: it has none), Rt, and whether it is a read.

    ``gic``: the VM has an in-kernel GICv3.
    """

    row: sysregs.SysReg | None
    rt: int
    is_read: bool
    gic: bool = False

    def may_be_undefined(self, *, forged: bool) -> bool:
        """Whether KVM may give the guest the access or an undefined-instruction exception.

        So for a ``forged`` trap of a timer's register, too (:data:`harness.arch.sysregs.TIMERS`).
        """
        is_timer = self.row is not None and self.row.name in sysregs.TIMERS
        return self.expected is sysregs.ExpectedResult.EITHER or (forged and is_timer)

    @property
    def expected(self) -> sysregs.ExpectedResult:
        """The result that the guest must get; a register without a row may exist or not."""
        if self.row is None:
            return sysregs.ExpectedResult.EITHER
        if self.gic and self.row.gic is not None:
            return self.row.gic[0 if self.is_read else 1]
        return self.row.read if self.is_read else self.row.write


@lru_cache(maxsize=1 << 12)
def system_access(esr: int, gic: bool = False) -> SystemAccess:
    """Return the access of an exit of class SYS64 (Arm ARM D17.2.37, ISS encoding for MSR, MRS, System instruction)."""
    encoding = esr >> 20 & 3, esr >> 14 & 7, esr >> 10 & 15, esr >> 1 & 15, esr >> 17 & 7
    return SystemAccess(sysregs.BY_ENCODING.get(encoding), esr >> 5 & 31, bool(esr & 1), gic)


def secure_call_results(exit_: Switch, vcpus: int = 1) -> tuple[frozenset[int] | None, ...]:
    """Return the values that x0..x3 may hold after an SMC; None: any value.

    Up to 6.3 KVM rejects every SMC: x0 is -1, the rest is unchanged; from 6.4 on an SMC with immediate 0 is a call like
    HVC, any other is rejected (handle_smc in arch/arm64/kvm/handle_exit.c of 6.1 and of 6.12).
    """
    refused = tuple(frozenset({value}) for value in (NOT_SUPPORTED, *exit_.values[1:4]))
    if exit_.esr & 0xFFFF:
        return refused
    status = call_status(exit_, vcpus)
    results: list[frozenset[int] | None] = [None if status is None else status | refused[0]]
    for index in (1, 2, 3):
        value = call_result(exit_, index)
        results.append(None if value is None else refused[index] | {value})
    return tuple(results)
