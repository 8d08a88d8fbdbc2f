# SPDX-License-Identifier: Apache-2.0
"""Determine how KVM may end the handling of an exit: resume the guest, inject an exception, or return to userspace.

By the contract (:mod:`harness.relations.contract`), never by the behaviour of a kernel.  It uses no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from harness.arch import exceptions, exits
from harness.arch.exits import DABT, EXCEPTION_TRAP
from harness.arch.sysregs import ExpectedResult
from harness.guest.debug_stops import STOPS
from harness.protocol import OP_ABORT, OP_SERROR
from harness.relations import contract, forged_exits
from harness.relations.errata import IGNORES_SIZE, NONE
from harness.relations.forged_exits import Outcome
from harness.relations.mmio import is_beyond, is_mmio
from harness.trace.environment import PSCI_0_2, VmEnvironment
from harness.trace.events import Switch
from harness.trace.rounds import IN_KERNEL, USER_INJECTED, Round

RESUME: Final = frozenset({"resume"})
INJECT: Final = frozenset({"inject"})
_EITHER: Final = RESUME | INJECT
_MMIO: Final = frozenset({"user:MMIO"})
_UNDECODABLE: Final = frozenset({"fail:ENOSYS", "user:ARM_NISV"})
_DONATED: Final = RESUME | {"fail:EPERM"}
_FORGED: Final[Mapping[Outcome, frozenset[str]]] = MappingProxyType(
    {
        Outcome.UNDEFINED: INJECT,
        Outcome.UNDEFINED_OR_NOTHING: _EITHER,
        Outcome.UNDEFINED_OR_ACCESS: _EITHER,
    }
)
_OTHER_CODES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        # arch/arm64/kvm/handle_exit.c handle_exit; KVM API 5, KVM_EXIT_FAIL_ENTRY and KVM_EXIT_INTERNAL_ERROR.
        "IRQ": RESUME,
        "IL": frozenset({"user:FAIL_ENTRY", "fail:EINVAL"}),
    }
)
_SYSTEM_EVENTS: Final = ("PSCI_SYSTEM_OFF", "PSCI_SYSTEM_RESET")
"""Calls that end in KVM_EXIT_SYSTEM_EVENT (KVM API 5); SYSTEM_RESET2 and SYSTEM_OFF2 do so where they are valid."""


def expected_outcomes(round_: Round, errata: frozenset[str] = NONE) -> frozenset[str] | None:
    """Return the outcomes (:class:`harness.trace.rounds.KvmAction`) that the contract allows; None: not determined.

    ``errata`` are the rules of :mod:`harness.relations.errata` that are switched on.
    """
    exit_ = round_.exit
    allowed = RESUME if exit_ is None else _of_exit(round_, exit_, errata)
    asked = {host.op for host in round_.host_actions if not host.error} & {OP_ABORT, OP_SERROR}
    if allowed is None or not asked:
        return allowed
    return allowed | {USER_INJECTED} | (INJECT if OP_ABORT in asked else frozenset())


def _of_exit(round_: Round, exit_: Switch, errata: frozenset[str]) -> frozenset[str] | None:
    kind, world = round_.exit_class, round_.world
    if exit_.values[exceptions.PSTATE] & exceptions.AARCH32:
        return None
    if exit_.code != EXCEPTION_TRAP:
        return _OTHER_CODES.get(kind)
    row = forged_exits.kind_of(exit_.esr) if exit_.forged and world.has_no_optional_feature else None
    if row is not None and row.outcome is not Outcome.ACCESS:
        return _FORGED[row.outcome]
    if kind in ("HVC64", "HVC32", "SMC64", "SMC32"):
        return _of_call(exit_, world, secure=kind.startswith("SMC"))
    if kind == "WFX":
        return RESUME
    if kind == "SYS64":
        return _of_system_register(exit_, world)
    if kind in ("IABT_LOW", "DABT_LOW"):
        beyond = is_beyond(exit_, world) and IGNORES_SIZE not in errata
        return INJECT if beyond else _of_abort(round_, exit_)
    if kind in STOPS and exit_.debugged and not exit_.forged:
        return frozenset({"user:DEBUG"})
    return None


def _of_call(exit_: Switch, world: VmEnvironment, *, secure: bool) -> frozenset[str] | None:
    """Return those of a call (DEN 0022, DEN 0028; KVM API 5, KVM_EXIT_SYSTEM_EVENT)."""
    if world.chose_call(*exit_.values[:2]) or not world.features & PSCI_0_2:
        return None
    function = exits.SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF)
    ends = function is not None and function.name.startswith(_SYSTEM_EVENTS)
    if not ends or function is None:
        return RESUME
    certain = function.name in _SYSTEM_EVENTS and not secure
    return frozenset({"user:SYSTEM_EVENT"}) | (frozenset() if certain else RESUME)


def _of_system_register(exit_: Switch, world: VmEnvironment) -> frozenset[str] | None:
    access = contract.system_access(exit_.esr, world.gic)
    if access.expected is ExpectedResult.UNDEFINED:
        return INJECT if world.has_no_optional_feature else None
    return _EITHER if access.may_be_undefined(forged=bool(exit_.forged)) else RESUME


def _of_abort(round_: Round, exit_: Switch) -> frozenset[str] | None:
    """Return those of a stage-2 abort (KVM API 4.35 and 5, KVM_EXIT_MMIO and KVM_EXIT_ARM_NISV; Arm ARM D17.2.37)."""
    world, slot = round_.world, round_.world.slot(exit_.page)
    if slot is None and (contract.is_walk(exit_) or round_.exit_class == "IABT_LOW"):
        return INJECT
    if not is_mmio(exit_, world):
        if exit_.forged:
            return None  # KVM maps the page, as for an abort that the CPU reports
        return _DONATED if world.protected and world.is_aliased(exit_.page) else RESUME
    if world.in_kernel(exit_.address):
        # A coalesced store goes to userspace if the ring is full, one to an ioeventfd if its value is not the one that
        # is waited for (KVM API 4.116, 4.59).  A GIC takes all.
        others = _MMIO if DABT["WNR"].get(exit_.esr) and not world.gic else frozenset()
        return frozenset({IN_KERNEL}) | others if DABT["ISV"].get(exit_.esr) else None
    if DABT["ISV"].get(exit_.esr):
        return _MMIO
    if DABT["CM"].get(exit_.esr):
        return RESUME
    return INJECT if world.protected else _UNDECODABLE


def moves_on(round_: Round) -> bool | None:
    """Whether KVM must advance PC for the exit where nothing is injected; None: not determined."""
    exit_, kind = round_.exit, round_.exit_class
    if exit_ is None or exit_.values[exceptions.PSTATE] & exceptions.AARCH32:
        return None
    if kind in STOPS:
        return False
    if kind in ("SMC64", "WFX"):
        return True
    if kind == "DABT_LOW" and is_mmio(exit_, round_.world):
        return bool(DABT["ISV"].get(exit_.esr) or DABT["CM"].get(exit_.esr))
    return None
