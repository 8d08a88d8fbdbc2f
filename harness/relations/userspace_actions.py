# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state after userspace's actions between an exit and the next entry, in order.

Part of relation ``host.*`` (:mod:`harness.relations.host`).  The next KVM_RUN finishes an access that userspace has
completed (KVM API 5, KVM_EXIT_MMIO).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.arch import exceptions, reset_values
from harness.arch.exits import DABT, IL_BIT
from harness.arch.registers import BY_ONE_REG, INDEX, STATE
from harness.protocol import OP_ABORT, OP_FINISH, OP_RESET, OP_SERROR, OP_SET
from harness.relations import contract
from harness.relations.errata import (
    ABORTED_COMPLETES,
    IGNORES_SIZE,
    RESET_COMPLETES,
    RESET_KEEPS_ABORT,
    RESET_KEEPS_BANKED,
    SERROR_UNDOES,
)
from harness.relations.exit_handling import sign_extend
from harness.relations.expected_state import ExpectedState
from harness.relations.mmio import complete, is_beyond, is_mmio
from harness.trace.environment import VmEnvironment
from harness.trace.events import Host, Switch
from harness.trace.rounds import EXCEPTION, Round, took_serror

WRITTEN_WHILE_PENDING = "a register of the exception written while it is pending"
NOT_REPORTED = "an MMIO access that did not reach userspace"
_MPIDR = INDEX["mpidr_el1"]
_SYNDROME = frozenset({exceptions.ESR, exceptions.FAR})
_DECIDES_EXCEPTION = frozenset({*exceptions.EXCEPTION, exceptions.VBAR, exceptions.SCTLR}) - _SYNDROME
_KEPT = tuple(i for i, r in enumerate(STATE) if r.kept_by_reset)


def serror_at_once(round_: Round) -> bool:
    """Whether an SError that was not masked was taken when userspace asked for it (docs/spec/kvm.md section 6)."""
    return round_.action.inject and took_serror(round_.exit, round_.host_actions, round_.entry)


def apply_reset(turn: ExpectedState, world: VmEnvironment, keeps_banked: bool = False) -> None:
    """Set the reset state (KVM API 4.82); with ``keeps_banked`` without the registers that a reset may keep."""
    for index, value in reset_values.RESET_BY_INDEX.items():
        if not (keeps_banked and index in _KEPT):
            turn.put(index, value)
    turn.put(_MPIDR, world.mpidr)
    for index in reset_values.HOST_RESET_INDEX:
        turn.allowed[index] = None
    for index in _KEPT if not keeps_banked else ():
        turn.put(index, 0)
        turn.allowed[index] = reset_values.NOTHING_LEFT


def apply_userspace(turn: ExpectedState, round_: Round) -> str:
    """Apply userspace's actions in order, then the completion of the access that is left.

    Returns why the state is not determined, an empty text if it is.
    """
    actions = _Actions(turn, round_)
    for host in round_.host_actions:
        if host.op == OP_RESET:
            actions.reset(host)
        elif not host.error and (why := actions.apply(host)):
            return why
    return actions.enter()


@dataclass
class _Actions:
    """The state while userspace's actions are applied: the rest of the exit's access, and the exceptions.

    - ``access``: the next KVM_RUN completes the access of the exit.
    - ``aborted``: an abort took the access's place (with ABORTED_COMPLETES it is completed one KVM_RUN later).
    - ``at_once``: what userspace asked for was taken when it asked, before it wrote anything else.
    - ``waiting``: an abort that the next KVM_RUN enters; ``kept``: one that a reset left (RESET_KEEPS_ABORT).
    - ``excepted``: an exception was asked for since the last reset.
    - ``unsettled``: one was asked for since the last KVM_RUN: it may be entered already, or not.
    - ``either_vector``: VBAR_EL1 was written since then, so that the vector is the old one or the new one.
    - ``serror``: the values of ELR_EL1 and SPSR_EL1 after each SError that may have been taken.
    """

    turn: ExpectedState
    round: Round
    access: bool = field(init=False)
    at_once: bool = field(init=False)
    serror_taken: bool = field(init=False)
    aborted: bool = False
    waiting: bool = False
    kept: bool = False
    excepted: bool = False
    unsettled: bool = False
    either_vector: bool = False
    was_reset: bool = False
    serror: dict[int, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.access = self._is_left()
        if self.access and self.round.in_kernel:
            self._complete()  # before userspace acts
        self.serror_taken = serror_at_once(self.round)
        # An exception that is not pending at the entry, without a KVM_RUN before it, was taken at once, before the
        # writes.
        self.at_once = not self.round.entry.pending & EXCEPTION and not self._ran_after_asking()

    def _is_left(self) -> bool:
        """Whether the exit has an access that must be completed.

        Without a valid syndrome KVM_RUN fails, or exits (KVM API 5, KVM_EXIT_ARM_NISV): nothing is ever completed.
        """
        exit_, world = self.round.exit, self.round.world
        if exit_ is None or self.round.exit_class != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
            return False
        return is_mmio(exit_, world) and (IGNORES_SIZE in self.turn.errata or not is_beyond(exit_, world))

    def _ran_after_asking(self) -> bool:
        """Whether KVM_RUN was called between an exception that userspace asked for and the entry (``OP_FINISH``).

        It enters no guest: an SError that was taken was taken before.
        """
        ops = [host.op for host in self.round.host_actions if not host.error]
        entered = (OP_ABORT,) if self.serror_taken else (OP_ABORT, OP_SERROR)
        asked = next((i for i, op in enumerate(ops) if op in entered), len(ops))
        return OP_FINISH in ops[asked:]

    def _complete(self) -> None:
        if self.round.exit is not None:
            complete(self.turn, self.round.exit, self.round.entry.mmio_data)
        self.access = False

    def apply(self, host: Host) -> str:
        """Apply an action that KVM accepted, but a reset; return why the state is not determined."""
        turn = self.turn
        if host.op == OP_SET and (index := BY_ONE_REG.get(host.a)) is not None:
            return self._set(index, host.b)
        if host.op == OP_FINISH:
            self._run()
        elif host.op == OP_ABORT:
            return self._abort(self.round.exit)
        elif host.op == OP_SERROR and not turn.values[exceptions.PSTATE] & exceptions.PSTATE_A:
            return self._serror()
        return ""

    def reset(self, host: Host) -> None:
        """Apply a reset: by KVM_ARM_VCPU_INIT (``host.asked``) or by another vCPU's CPU_ON."""
        turn, errata = self.turn, self.turn.errata
        keeps_banked = RESET_KEEPS_BANKED in errata
        if keeps_banked and self.round.userspace_exits and not (self.excepted or self.was_reset):
            self._restore_banked()
        apply_reset(turn, self.round.world, keeps_banked)
        self.kept = host.asked and (self.waiting or self.kept) and RESET_KEEPS_ABORT in errata
        # The rest of the access is completed once no exception is pending.
        left = self.access or (self.aborted and self.kept)
        self.access = host.asked and left and RESET_COMPLETES in errata
        self.excepted = self.unsettled = self.waiting = self.aborted = self.either_vector = False
        self.was_reset = True
        self.serror = {}

    def _restore_banked(self) -> None:
        """Set the registers that a reset may keep to their values at the last return to userspace, or as written since.

        The record proves whether an exception was entered before that; the contract need not.  At a second reset the
        values are those that the first one left, or userspace wrote since.
        """
        wrote: dict[int, int] = {}
        for host in self.round.host_actions:
            if host.op == OP_RESET:
                break
            if host.op == OP_SET and not host.error and host.a in BY_ONE_REG:
                wrote[BY_ONE_REG[host.a]] = host.b
        for index in _KEPT:
            self.turn.put(index, wrote.get(index, self.round.userspace_exits[-1].values[index]))
        for index, left in self.serror.items():
            self.turn.allowed[index] = left | {self.turn.values[index]}

    def _set(self, index: int, value: int) -> str:
        turn, pends = self.turn, self.unsettled and not self.at_once
        if pends and index in _DECIDES_EXCEPTION:
            if index != exceptions.VBAR:
                return WRITTEN_WHILE_PENDING
            self._allow_both_vectors(value)
        before = turn.allowed.get(index, frozenset({turn.values[index]}))
        turn.put(index, value)
        self.serror.pop(index, None)
        if pends and index in _SYNDROME:
            # Of a pending exception these two may be set already, or when it is entered.
            turn.allowed[index] = None if before is None else before | {value}
        # While an exception is pending the state is still the one from which it will be taken.
        state = turn.values[exceptions.SPSR if pends else exceptions.PSTATE]
        if (state | turn.values[exceptions.PSTATE]) & exceptions.AARCH32:
            self._narrow()
        return ""

    def _allow_both_vectors(self, vbar: int) -> None:
        """Allow the vector by the old VBAR_EL1, and by the one that userspace writes while an exception is pending.

        KVM API 4.32 does not specify whether KVM_SET_VCPU_EVENTS enters the exception or the next KVM_RUN.
        """
        turn = self.turn
        others = turn.allowed.get(exceptions.PC) or frozenset({turn.values[exceptions.PC]})
        turn.allowed[exceptions.PC] = others | {exceptions.vector(vbar, turn.values[exceptions.SPSR])}
        self.either_vector = True

    def _narrow(self) -> None:
        """Allow 32-bit values in the registers of AArch32 state: the upper 32 bits of each may be dropped."""
        turn = self.turn
        for i in exceptions.AARCH32_STATE:
            others = turn.allowed.get(i, frozenset())
            if others is not None:
                whole = others | {turn.values[i]}
                turn.allowed[i] = whole | {value & 0xFFFF_FFFF for value in whole}

    def _run(self) -> None:
        """Apply KVM_RUN that enters no guest (immediate_exit)."""
        if self.kept:
            self.turn.take(exceptions.take_exception(tuple(self.turn.values)))
            self.kept = False
            return
        if self.access:
            self._complete()
        # This run enters the exception, the next one completes the access.
        self.access = self.aborted and ABORTED_COMPLETES in self.turn.errata
        self.waiting = self.aborted = self.unsettled = False

    def _abort(self, exit_: Switch | None) -> str:
        turn = self.turn
        if self.either_vector:
            return WRITTEN_WHILE_PENDING
        if self.waiting and self.round.guest_view[exceptions.ELR] == turn.values[exceptions.ELR]:
            return ""  # one may be pending for both: KVM API 4.32 does not specify two before a run
        turn.take(contract.external_abort(tuple(turn.values), exit_))
        if exit_ is None:  # of no instruction: nothing says where
            turn.allowed[exceptions.FAR] = None
        if exit_ is None or exit_.values[exceptions.PSTATE] & exceptions.AARCH32:
            # IL: of its instruction, or 1 (Arm ARM D17.2.37, ISV is 0).
            esr = turn.values[exceptions.ESR]
            turn.allowed[exceptions.ESR] = frozenset({esr, esr | IL_BIT})
        sign_extend(turn)
        self.aborted = self.aborted or self.access
        self.access = self.kept = False  # at most one is pending
        self.excepted = self.unsettled = self.waiting = True
        return ""

    def _serror(self) -> str:
        """Apply an SError that is not masked."""
        turn = self.turn
        taken = exceptions.take_exception(tuple(turn.values), offset=exceptions.SERROR_OFFSET)
        if not self.serror_taken:
            # After a reset nothing shows whether it was taken before (docs/spec/kvm.md section 6).
            for index in (exceptions.ELR, exceptions.SPSR):
                self.serror[index] = self.serror.get(index, frozenset()) | {taken[index]}
            return ""
        if self.either_vector:
            return WRITTEN_WHILE_PENDING
        if self.access and self.round.reported_mmio:
            # Userspace has done the access: its completion comes first (KVM API 5, KVM_EXIT_MMIO).
            if SERROR_UNDOES not in turn.errata:
                self._complete()
                taken = exceptions.take_exception(tuple(turn.values), offset=exceptions.SERROR_OFFSET)
            self.access = self.waiting = False
        turn.take(taken)
        turn.allowed[exceptions.ESR] = None
        self.excepted = self.unsettled = True
        return ""

    def enter(self) -> str:
        """Apply the first work of the entry's KVM_RUN; return why the state is not determined."""
        if self.kept:  # it comes before the rest of the access
            self.turn.take(exceptions.take_exception(tuple(self.turn.values)))
            return ""
        if self.access:
            if not self.round.reported_mmio:
                return NOT_REPORTED
            self._complete()
        return ""
