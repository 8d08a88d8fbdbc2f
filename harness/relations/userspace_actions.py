# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state after userspace's actions between an exit and the next entry, in order.

Part of relation ``host.*`` (:mod:`harness.relations.host`).  The actions are the host steps of a scenario: writes of
registers, resets, requests for an exception, a KVM_RUN with immediate_exit.  Two things may be pending meanwhile:

- the MMIO access of the exit: the next KVM_RUN writes the data to the register and advances PC (KVM API 5,
  KVM_EXIT_MMIO);
- an exception that userspace asked for with KVM_SET_VCPU_EVENTS (KVM API 4.32): an external abort (``OP_ABORT``) or an
  SError (``OP_SERROR``).  The API does not say whether it is taken in that ioctl or at the next KVM_RUN.  Where the
  trace does not show which, both results are allowed.
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
"""Reasons why the state is not determined."""
_MPIDR = INDEX["mpidr_el1"]
_SYNDROME = frozenset({exceptions.ESR, exceptions.FAR})
_DECIDES_EXCEPTION = frozenset({*exceptions.EXCEPTION, exceptions.VBAR, exceptions.SCTLR}) - _SYNDROME
_KEPT = tuple(i for i, r in enumerate(STATE) if r.kept_by_reset)


def serror_at_once(round_: Round) -> bool:
    """Whether an unmasked SError was taken in the ioctl that asked for it, as since 6.17 (docs/spec/kvm.md 6)."""
    return round_.action.inject and took_serror(round_.exit, round_.host_actions, round_.entry)


def apply_reset(state: ExpectedState, world: VmEnvironment, keeps_banked: bool = False) -> None:
    """Set the reset state (KVM API 4.82).

    Registers that are UNKNOWN at reset may hold 0 or the value that KVM gives to unknown ones, not the one from before
    the reset.  With ``keeps_banked`` (RESET_KEEPS_BANKED) they are not changed.
    """
    for index, value in reset_values.RESET_BY_INDEX.items():
        if not (keeps_banked and index in _KEPT):
            state.put(index, value)
    state.put(_MPIDR, world.mpidr)
    for index in reset_values.HOST_RESET_INDEX:
        state.allowed[index] = None
    for index in _KEPT if not keeps_banked else ():
        state.put(index, 0)
        state.allowed[index] = reset_values.NOTHING_LEFT


def apply_userspace(state: ExpectedState, round_: Round) -> str:
    """Apply userspace's actions in order, then complete the MMIO access if it is still pending.

    Returns the reason why the state is not determined; an empty text if it is.
    """
    actions = _Actions(state, round_)
    for host in round_.host_actions:
        if host.op == OP_RESET:
            actions.reset(host)
        elif not host.error and (why := actions.apply(host)):
            return why
    return actions.enter()


@dataclass
class _Actions:
    """What is pending while userspace's actions are applied to ``state``: the exit's MMIO access, and exceptions.

    ``state`` has an abort as taken from its request on, also while it may be pending in KVM; an SError only if the
    trace shows that it was taken in its ioctl.

    - ``access``: the MMIO access of the exit is pending; the next KVM_RUN completes it.
    - ``aborted``: userspace asked for an abort while the access was pending: it is not completed (with
      ABORTED_COMPLETES it is, in the KVM_RUN after the one that takes the abort).
    - ``waiting``: an abort is pending, and the next KVM_RUN takes it.
    - ``kept``: an abort is still pending after a reset (RESET_KEEPS_ABORT only).
    - ``at_once``: the trace shows that the exception was taken in the ioctl that asked for it.
    - ``serror_taken``: the same, of an SError.
    - ``excepted``: an exception was asked for since the last reset.
    - ``unsettled``: an exception was asked for since the last KVM_RUN or reset: it may be pending or taken.
    - ``either_vector``: VBAR_EL1 was written while ``unsettled``: PC is the old vector or the new one.
    - ``was_reset``: one of the actions before was a reset.
    - ``serror``: by index, ELR_EL1 and SPSR_EL1 as each SError sets them that may have been taken.
    """

    state: ExpectedState
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
            self._complete()  # KVM did the access itself, before it returned to userspace
        self.serror_taken = serror_at_once(self.round)
        # Only the ioctl or a KVM_RUN takes an exception.  If it is not pending at the entry, and there was no KVM_RUN
        # in between, the ioctl took it.
        self.at_once = not self.round.entry.pending & EXCEPTION and not self._ran_after_asking()

    def _is_left(self) -> bool:
        """Whether the exit is an MMIO access that a KVM_RUN must complete.

        Without a valid syndrome (ISV 0) KVM_RUN fails or returns KVM_EXIT_ARM_NISV (KVM API 5): it completes nothing.
        """
        exit_, world = self.round.exit, self.round.world
        if exit_ is None or self.round.exit_class != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
            return False
        return is_mmio(exit_, world) and (IGNORES_SIZE in self.state.errata or not is_beyond(exit_, world))

    def _ran_after_asking(self) -> bool:
        """Whether a KVM_RUN with immediate_exit (``OP_FINISH``) followed the request for an exception.

        Such a KVM_RUN does not enter the guest, so it takes an abort but no SError: an SError that was taken
        (``serror_taken``) was taken in its ioctl.
        """
        ops = [host.op for host in self.round.host_actions if not host.error]
        entered = (OP_ABORT,) if self.serror_taken else (OP_ABORT, OP_SERROR)
        asked = next((i for i, op in enumerate(ops) if op in entered), len(ops))
        return OP_FINISH in ops[asked:]

    def _complete(self) -> None:
        if self.round.exit is not None:
            complete(self.state, self.round.exit, self.round.entry.mmio_data)
        self.access = False

    def apply(self, host: Host) -> str:
        """Apply an action that KVM accepted, other than a reset; return why the state is not determined, or ``""``."""
        state = self.state
        if host.op == OP_SET and (index := BY_ONE_REG.get(host.a)) is not None:
            return self._set(index, host.b)
        if host.op == OP_FINISH:
            self._run()
        elif host.op == OP_ABORT:
            return self._abort(self.round.exit)
        elif host.op == OP_SERROR and not state.values[exceptions.PSTATE] & exceptions.PSTATE_A:
            return self._serror()
        return ""

    def reset(self, host: Host) -> None:
        """Apply a reset: by KVM_ARM_VCPU_INIT (``host.asked``) or by another vCPU's CPU_ON."""
        state, errata = self.state, self.state.errata
        keeps_banked = RESET_KEEPS_BANKED in errata
        if keeps_banked and self.round.userspace_exits and not (self.excepted or self.was_reset):
            self._restore_banked()
        apply_reset(state, self.round.world, keeps_banked)
        self.kept = host.asked and (self.waiting or self.kept) and RESET_KEEPS_ABORT in errata
        # With RESET_COMPLETES the access stays pending over the reset, also one that an abort replaced.  If the abort
        # stays pending, too (RESET_KEEPS_ABORT), KVM_RUN takes it first, then completes the access.
        left = self.access or self.aborted
        self.access = host.asked and left and RESET_COMPLETES in errata
        self.excepted = self.unsettled = self.waiting = self.aborted = self.either_vector = False
        self.was_reset = True
        self.serror = {}

    def _restore_banked(self) -> None:
        """Set the registers that a reset may keep to their values at the last return to userspace, or as written since.

        The registers recorded at that return already have the effect of an exception that was taken before it, so it
        need not be predicted.  Not called at a second reset: it keeps what ``state`` has.
        """
        wrote: dict[int, int] = {}
        for host in self.round.host_actions:
            if host.op == OP_RESET:
                break
            if host.op == OP_SET and not host.error and host.a in BY_ONE_REG:
                wrote[BY_ONE_REG[host.a]] = host.b
        for index in _KEPT:
            self.state.put(index, wrote.get(index, self.round.userspace_exits[-1].values[index]))
        for index, left in self.serror.items():
            self.state.allowed[index] = left | {self.state.values[index]}

    def _set(self, index: int, value: int) -> str:
        state, pends = self.state, self.unsettled and not self.at_once
        if pends and index in _DECIDES_EXCEPTION:
            if index != exceptions.VBAR:
                return WRITTEN_WHILE_PENDING
            self._allow_both_vectors(value)
        before = state.allowed.get(index, frozenset({state.values[index]}))
        state.put(index, value)
        self.serror.pop(index, None)
        if pends and index in _SYNDROME:
            # KVM may set ESR_EL1 and FAR_EL1 in the ioctl, so that the write replaces them, or when it takes the
            # exception, so that the write is lost.
            state.allowed[index] = None if before is None else before | {value}
        # While the exception is pending in KVM, PSTATE is still the one from which it will be taken: SPSR_EL1 here.
        pstate = state.values[exceptions.SPSR if pends else exceptions.PSTATE]
        if (pstate | state.values[exceptions.PSTATE]) & exceptions.AARCH32:
            self._narrow()
        return ""

    def _allow_both_vectors(self, vbar: int) -> None:
        """Allow the vector of the old VBAR_EL1, and of the one that userspace writes while an exception may be pending.

        KVM API 4.32 does not specify whether KVM_SET_VCPU_EVENTS or the next KVM_RUN takes the exception.
        """
        state = self.state
        others = state.allowed.get(exceptions.PC) or frozenset({state.values[exceptions.PC]})
        state.allowed[exceptions.PC] = others | {exceptions.vector(vbar, state.values[exceptions.SPSR])}
        self.either_vector = True

    def _narrow(self) -> None:
        """Allow 32-bit values in the registers of AArch32 state: the upper 32 bits of each may be dropped."""
        state = self.state
        for i in exceptions.AARCH32_STATE:
            others = state.allowed.get(i, frozenset())
            if others is not None:
                whole = others | {state.values[i]}
                state.allowed[i] = whole | {value & 0xFFFF_FFFF for value in whole}

    def _run(self) -> None:
        """Apply KVM_RUN that enters no guest (immediate_exit)."""
        if self.kept:
            self.state.take(exceptions.take_exception(tuple(self.state.values)))
            self.kept = False
            return
        if self.access:
            self._complete()
        # This run enters the exception, the next one completes the access.
        self.access = self.aborted and ABORTED_COMPLETES in self.state.errata
        self.waiting = self.aborted = self.unsettled = False

    def _abort(self, exit_: Switch | None) -> str:
        state = self.state
        if self.either_vector:
            return WRITTEN_WHILE_PENDING
        if self.waiting and self.round.guest_view[exceptions.ELR] == state.values[exceptions.ELR]:
            # A second abort before a KVM_RUN; KVM API 4.32 does not specify it.  ELR_EL1 at the entry shows that one
            # was taken for both requests.
            return ""
        state.take(contract.external_abort(tuple(state.values), exit_))
        if exit_ is None:  # before the first run there is no instruction, and no address that faulted
            state.allowed[exceptions.FAR] = None
        if exit_ is None or exit_.values[exceptions.PSTATE] & exceptions.AARCH32:
            # ESR_EL1.IL: by the size of the instruction, or 1, as with ISV 0 (Arm ARM D17.2.37).
            esr = state.values[exceptions.ESR]
            state.allowed[exceptions.ESR] = frozenset({esr, esr | IL_BIT})
        sign_extend(state)
        self.aborted = self.aborted or self.access
        self.access = self.kept = False  # the abort replaces both
        self.excepted = self.unsettled = self.waiting = True
        return ""

    def _serror(self) -> str:
        """Apply an SError that is not masked."""
        state = self.state
        taken = exceptions.take_exception(tuple(state.values), offset=exceptions.SERROR_OFFSET)
        if not self.serror_taken:
            # After a reset nothing shows whether it was taken before (docs/spec/kvm.md section 6).
            for index in (exceptions.ELR, exceptions.SPSR):
                self.serror[index] = self.serror.get(index, frozenset()) | {taken[index]}
            return ""
        if self.either_vector:
            return WRITTEN_WHILE_PENDING
        if self.access and self.round.reported_mmio:
            # Userspace has done the access: its completion comes first (KVM API 5, KVM_EXIT_MMIO).
            if SERROR_UNDOES not in state.errata:
                self._complete()
                taken = exceptions.take_exception(tuple(state.values), offset=exceptions.SERROR_OFFSET)
            self.access = self.waiting = False
        state.take(taken)
        state.allowed[exceptions.ESR] = None
        self.excepted = self.unsettled = True
        return ""

    def enter(self) -> str:
        """Apply what the entry's KVM_RUN does before it enters the guest; return why the state is not determined."""
        if self.kept:  # KVM takes the exception before it completes the access
            self.state.take(exceptions.take_exception(tuple(self.state.values)))
            return ""
        if self.access:
            if not self.round.reported_mmio:
                return NOT_REPORTED
            self._complete()
        return ""
