# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state that KVM must produce for an exit, before userspace acts: rules by exit class.

Part of relation ``host.*`` (:mod:`harness.relations.host`).  It uses no model.
"""

from __future__ import annotations

from typing import Final

from harness.arch import exceptions, exits
from harness.arch.exits import DABT, EXCEPTION_TRAP, FSC_EXTABT, FSC_TRANSLATION
from harness.arch.registers import INDEX
from harness.arch.sysregs import ExpectedResult
from harness.guest.debug_stops import STOPS
from harness.guest.stage1 import first_table
from harness.relations import contract, forged_exits
from harness.relations.errata import (
    IGNORES_SIZE,
    NO_VIRTUAL_ADDRESS,
    NO_WALK_ABORT,
    PVM_WALK,
    SIGN_EXTENDED,
    SMALL_TABLE,
)
from harness.relations.expected_state import ExpectedState, skip
from harness.relations.forged_exits import Outcome
from harness.relations.mmio import is_beyond, is_mmio
from harness.trace.environment import PSCI_0_2, VmEnvironment
from harness.trace.events import Switch
from harness.trace.rounds import USER_INJECTED, Round

_BEYOND: Final = (FSC_EXTABT, *range(FSC_TRANSLATION + 4))
"""Statuses that an abort for an address outside a VM's space may have: external, address size, translation
(D17.2.37)."""
_UPPER_HALF: Final = 0xFFFF_FFFF << 32


def _call(state: ExpectedState, exit_: Switch, world: VmEnvironment) -> None:
    for index in (1, 2, 3):
        expected = contract.call_result(exit_, index)
        state.put(index, expected if expected is not None else exit_.values[index])
        if expected is None:
            state.allowed[index] = None
    results = contract.call_status(exit_, world.vcpus)
    state.put(0, min(results) if results else 0)
    state.allowed[0] = results


def _secure_call(state: ExpectedState, exit_: Switch, world: VmEnvironment) -> None:
    skip(state)
    for index, allowed in enumerate(contract.secure_call_results(exit_, world.vcpus)):
        state.put(index, min(allowed) if allowed else exit_.values[index])
        state.allowed[index] = allowed


def _system_register(state: ExpectedState, exit_: Switch, injected: bool, gic: bool) -> None:
    access = contract.system_access(exit_.esr, gic)
    expected = access.expected
    either = access.may_be_undefined(forged=bool(exit_.forged))
    if expected is ExpectedResult.UNDEFINED or (injected and either):
        _undefined(state, exit_)
        return
    index = INDEX[access.row.name] if expected is ExpectedResult.STATE and access.row is not None else None
    _emulate(state, exit_, access, index)


def _emulate(state: ExpectedState, exit_: Switch, access: contract.SystemAccess, index: int | None) -> None:
    """Apply an access to a register of the recorded state, or to one that is not recorded (``index`` None)."""
    skip(state)
    if access.is_read:
        if access.rt != 31:
            state.put(access.rt, 0 if index is None else exit_.values[index])
            if index is None and access.expected is not ExpectedResult.ZERO:
                state.allowed[access.rt] = None
    elif index is not None:
        state.put(index, exit_.values[access.rt] if access.rt != 31 else 0)


def _undefined(state: ExpectedState, exit_: Switch) -> None:
    state.values[:] = contract.undefined_state(exit_)
    if exit_.forged:  # no CPU reports such a trap with IL clear: both values are correct
        state.allowed[exceptions.ESR] = frozenset({0, exits.IL_BIT})


def _forged(state: ExpectedState, round_: Round, exit_: Switch) -> bool:
    """Apply what KVM requires for an exit that no CPU reports; False: the rules of its class decide."""
    kind = forged_exits.kind_of(exit_.esr)
    if kind is None or exit_.code != EXCEPTION_TRAP or kind.outcome is Outcome.ACCESS:
        return False
    if round_.action.inject or kind.outcome is Outcome.UNDEFINED:
        _undefined(state, exit_)
    elif kind.outcome is Outcome.UNDEFINED_OR_ACCESS:
        access = contract.system_access(exit_.esr)
        assert access.row is not None
        _emulate(state, exit_, access, INDEX[access.row.name])
    return True


def apply_exit(state: ExpectedState, round_: Round, exit_: Switch) -> str:
    """Apply what KVM must do before it runs the guest again or returns; return why if that is not determined."""
    kind = round_.exit_class
    if exit_.values[exceptions.PSTATE] & exceptions.AARCH32 and kind not in ("IRQ", "IABT_LOW", "DABT_LOW"):
        return "a guest in AArch32 state"
    if (
        exit_.forged
        and round_.world.has_no_optional_feature
        and not round_.world.protected
        and _forged(state, round_, exit_)
    ):
        return ""
    if kind in ("HVC64", "HVC32"):  # HVC32 can only be forged here
        if not round_.world.features & PSCI_0_2:
            return "a call of a vCPU without PSCI 0.2"
        if round_.world.chose_call(*exit_.values[:2]):
            return "a call of a VM whose userspace chose its firmware"
        _call(state, exit_, round_.world)
    elif kind in ("SMC64", "SMC32"):  # likewise
        if round_.world.chose_call(*exit_.values[:2]):
            return "a call of a VM whose userspace chose its firmware"
        _secure_call(state, exit_, round_.world)
    elif kind == "WFX":
        skip(state)
    elif kind == "SYS64":
        if (
            not round_.world.has_no_optional_feature
            and contract.system_access(exit_.esr).expected is ExpectedResult.UNDEFINED
        ):
            return "a system register of a feature that the vCPU may have"
        _system_register(state, exit_, round_.action.inject, round_.world.gic)
    elif kind in ("IABT_LOW", "DABT_LOW"):
        return _abort(state, exit_, kind, round_)
    elif kind in STOPS and exit_.debugged and not exit_.forged:
        pass  # userspace handles it
    elif kind != "IRQ":
        return f"no rule for exit class {kind}"
    return ""


def _abort(state: ExpectedState, exit_: Switch, kind: str, round_: Round) -> str:
    world = round_.world
    slot = world.slot(exit_.page)
    if is_beyond(exit_, world) and IGNORES_SIZE not in state.errata:
        if not round_.action.inject or round_.action.outcome == USER_INJECTED or round_.reported_mmio:
            return "an address beyond the guest's physical address space"
        # The kind of fault is not specified; it is an abort, with the virtual address in FAR_EL1 (Arm ARM D17.2.40).
        state.values[:] = contract.abort_state(exit_)
        syndrome = state.values[exceptions.ESR] & ~DABT["FSC"].mask
        state.allowed[exceptions.ESR] = frozenset(
            syndrome | status | wnr for status in _BEYOND for wnr in (0, DABT["WNR"].mask)
        )
        if NO_VIRTUAL_ADDRESS in state.errata:
            state.put(exceptions.FAR, exit_.address)
        sign_extend(state)
        return ""
    if contract.is_walk(exit_) and slot is None:
        if _walk_abort_never_comes(exit_, world, state.errata):
            return ""
        state.values[:] = contract.abort_state(exit_)
        allowed = contract.walk_abort_syndromes(exit_, state.walk_level)
        state.values[exceptions.ESR], state.allowed[exceptions.ESR] = min(allowed), allowed
        if NO_WALK_ABORT in state.errata:
            state.put(exceptions.ESR, min(allowed) & ~DABT["FSC"].mask | FSC_EXTABT)
        sign_extend(state)
        return ""
    undecodable = not exit_.esr & (DABT["ISV"].mask | DABT["CM"].mask) and is_mmio(exit_, world)
    if (kind == "IABT_LOW" and slot is None) or (undecodable and world.protected):
        # Only the guest itself may read a protected VM's instruction: KVM injects an abort (KVM API 5,
        # KVM_EXIT_ARM_NISV; io_mem_abort in arch/arm64/kvm/mmio.c).
        state.values[:] = contract.abort_state(exit_)
        sign_extend(state)
    return ""


def _walk_abort_never_comes(exit_: Switch, world: VmEnvironment, errata: frozenset[str]) -> bool:
    """Whether a kernel with the errata does not find the level of a stage-1 walk, and injects nothing.

    It looks for the granule of the entry that faulted among the tables, each by the address at which it begins.
    Source: match_s1_desc, walk_s1 and inject_abt64 in arch/arm64/kvm of 7.3.4.
    """
    if errata.isdisjoint((SMALL_TABLE, PVM_WALK)):
        return False
    begins, granule = first_table(exit_.values, exit_.far)
    if granule is None:
        return False
    if begins >> granule != exit_.page >> granule:
        return world.protected and PVM_WALK in errata  # the first table cannot be read
    return SMALL_TABLE in errata and bool(begins & (1 << granule) - 1)


def sign_extended(esr: int, errata: frozenset[str]) -> int:
    """Return ESR_EL1 of an injected abort; with the erratum on, the exception class is shifted as an int."""
    return esr | _UPPER_HALF if SIGN_EXTENDED in errata else esr


def sign_extend(state: ExpectedState) -> None:
    """Apply :func:`sign_extended` to ESR_EL1 and to its allowed values."""
    if SIGN_EXTENDED not in state.errata:
        return
    others = state.allowed.get(exceptions.ESR, frozenset())
    state.values[exceptions.ESR] = sign_extended(state.values[exceptions.ESR], state.errata)
    if others is not None:
        state.allowed[exceptions.ESR] = frozenset(sign_extended(value, state.errata) for value in others)
