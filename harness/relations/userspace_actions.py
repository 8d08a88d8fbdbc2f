# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state after userspace's actions between an exit and the next entry, in order.

Part of relation ``host.*`` (:mod:`harness.relations.host`).  The actions are the host steps of a scenario: writes of
registers, resets, requests for an exception, a KVM_RUN with immediate_exit.  Two things may be pending meanwhile:

- the MMIO access of the exit: the next KVM_RUN writes the data to the register and advances PC (KVM API 5,
  KVM_EXIT_MMIO);
- an exception that userspace asked for with KVM_SET_VCPU_EVENTS (KVM API 4.32): an external abort (``OP_ABORT``) or an
  SError (``OP_SERROR``).  The API does not say whether it is taken in that ioctl or at the next KVM_RUN.  So there is
  one result for each order in which KVM may do it (:class:`Order`), and each is correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from harness.arch import exceptions, reset_values
from harness.arch.exits import DABT, IL_BIT
from harness.arch.registers import BY_ONE_REG, INDEX, STATE
from harness.protocol import LINES, OP_ABORT, OP_FINISH, OP_IRQ_LINE, OP_RESET, OP_SERROR, OP_SET
from harness.relations import contract
from harness.relations.errata import (
    ABORTED_COMPLETES,
    CPU_ON_KEEPS_SERROR,
    IGNORES_SIZE,
    RESET_COMPLETES,
    RESET_KEEPS_ABORT,
    RESET_KEEPS_BANKED,
    RESET_KEEPS_SERROR,
    SERROR_UNDOES,
)
from harness.relations.exit_handling import sign_extend
from harness.relations.expected_state import ExpectedState
from harness.relations.mmio import complete, is_beyond, is_mmio
from harness.trace.environment import VmEnvironment
from harness.trace.events import Host, Switch
from harness.trace.rounds import EXCEPTION, Round

NOT_REPORTED: Final = "an MMIO access that did not reach userspace"
"""Why the state is not determined."""
_MPIDR: Final = INDEX["mpidr_el1"]
_SYNDROME: Final = frozenset({exceptions.ESR, exceptions.FAR})
_KEPT: Final = tuple(i for i, r in enumerate(STATE) if r.kept_by_reset)


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


class Order(NamedTuple):
    """Whether KVM takes an exception that userspace asks for in that ioctl; otherwise it is pending.

    The next KVM_RUN takes a pending abort, the guest a pending SError.
    """

    abort_at_once: bool = False
    serror_at_once: bool = False


_ONE: Final = (Order(),)


def orders_of(round_: Round) -> tuple[Order, ...]:
    """Return the orders in which KVM may have done a round's actions: one if userspace asked for no exception."""
    if not round_.host_actions:  # most rounds
        return _ONE
    ops = [host.op for host in round_.host_actions if not host.error]
    if OP_ABORT not in ops and OP_SERROR not in ops:
        return _ONE
    aborts = _aborts_at_once(ops, round_) if OP_ABORT in ops else (False,)
    serrors = _serrors_at_once(ops, round_) if OP_SERROR in ops else (False,)
    return tuple(Order(abort, serror) for serror in serrors for abort in aborts)


def _after_last(ops: Sequence[int], op: int) -> Sequence[int]:
    return ops[len(ops) - ops[::-1].index(op) :]


def _aborts_at_once(ops: Sequence[int], round_: Round) -> tuple[bool, ...]:
    """Return what the trace leaves possible: a pending abort that no KVM_RUN took is pending at the entry."""
    ended = not {OP_FINISH, OP_RESET, OP_SERROR}.isdisjoint(_after_last(ops, OP_ABORT))
    return (False, True) if ended or round_.entry.pending & EXCEPTION else (True,)


def _serrors_at_once(ops: Sequence[int], round_: Round) -> tuple[bool, ...]:
    """Return what the trace leaves possible: one that was not taken at once is pending until a reset.

    That KVM takes an SError at once, as since 6.17, says docs/spec/kvm.md section 6.
    """
    if OP_RESET in _after_last(ops, OP_SERROR):
        return (False, True)
    was_pending = round_.exit is None or bool(round_.exit.hcr & exceptions.HCR_VSE)
    if was_pending or ops.count(OP_SERROR) > 1:
        return (False, True)
    return (not round_.entry.hcr & exceptions.HCR_VSE,)


def apply_userspace(state: ExpectedState, round_: Round, order: Order) -> str:
    """Apply userspace's actions in one order, then complete the MMIO access if it is still pending.

    Returns the reason why the state is not determined; an empty text if it is.
    """
    if not round_.host_actions and round_.exit_class != "DABT_LOW":
        return ""
    actions = _Actions(state, round_, order)
    for host in round_.host_actions:
        if host.op == OP_RESET:
            actions.reset(host)
        elif not host.error:
            actions.apply(host)
    return actions.enter()


@dataclass(slots=True)
class _Actions:
    """What is pending while userspace's actions are applied to ``state``.

    - ``access``: the MMIO access of the exit is pending; the next KVM_RUN completes it, unless it takes an abort.
    - ``replaced``: an abort that is pending took the place of the access: it is not completed (with ABORTED_COMPLETES
      it is, in the KVM_RUN after the one that takes the abort).
    - ``abort``: an abort is pending.  Its syndrome is in ESR_EL1 and FAR_EL1 already.
    - ``excepted``: an exception was taken since the last reset.
    - ``was_reset``: one of the actions before was a reset.
    """

    state: ExpectedState
    round: Round
    order: Order
    access: bool = field(init=False)
    replaced: bool = False
    abort: bool = False
    excepted: bool = False
    was_reset: bool = False

    def __post_init__(self) -> None:
        self.access = self._is_left()
        if self.access and self.round.in_kernel:
            self._complete()  # KVM did the access itself, before it returned to userspace

    def _is_left(self) -> bool:
        """Whether the exit is an MMIO access that a KVM_RUN must complete.

        Without a valid syndrome (ISV 0) KVM_RUN fails or returns KVM_EXIT_ARM_NISV (KVM API 5): it completes nothing.
        """
        exit_, world = self.round.exit, self.round.world
        if exit_ is None or self.round.exit_class != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
            return False
        return is_mmio(exit_, world) and (IGNORES_SIZE in self.state.errata or not is_beyond(exit_, world))

    def _complete(self) -> None:
        if self.round.exit is not None:
            complete(self.state, self.round.exit, self.round.entry.mmio_data)
        self.access = False

    def apply(self, host: Host) -> None:
        """Apply an action that KVM accepted, other than a reset."""
        if host.op == OP_SET and (index := BY_ONE_REG.get(host.a)) is not None:
            self._set(index, host.b)
        elif host.op == OP_FINISH:
            self._run()
        elif host.op == OP_ABORT:
            self._abort(self.round.exit)
        elif host.op == OP_SERROR:
            self._serror()
        elif host.op == OP_IRQ_LINE:
            self._line(exceptions.HCR_VI if host.a == LINES["irq"] else exceptions.HCR_VF, bool(host.b))

    def reset(self, host: Host) -> None:
        """Apply a reset: by KVM_ARM_VCPU_INIT (``host.asked``) or by another vCPU's CPU_ON."""
        errata = self.state.errata
        keeps_banked = RESET_KEEPS_BANKED in errata
        if keeps_banked and self.round.userspace_exits and not (self.excepted or self.was_reset):
            self._restore_banked()
        apply_reset(self.state, self.round.world, keeps_banked)
        self.access = host.asked and (self.access or self.replaced) and RESET_COMPLETES in errata
        self.abort = host.asked and self.abort and RESET_KEEPS_ABORT in errata
        self.replaced = self.excepted = False
        self.was_reset = True
        # A pending SError is cleared, a line keeps its last level (KVM API 4.25, 4.32).
        keeps_serror = (RESET_KEEPS_SERROR if host.asked else CPU_ON_KEEPS_SERROR) in errata
        self.state.hcr &= exceptions.HCR_VSE if keeps_serror else 0
        self.state.hcr_certain = exceptions.HCR_VSE

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

    def _set(self, index: int, value: int) -> None:
        state = self.state
        before = state.allowed.get(index, frozenset({state.values[index]}))
        state.put(index, value)
        if self.abort and index in _SYNDROME:
            # KVM may set ESR_EL1 and FAR_EL1 in the ioctl, so that the write replaces them, or when it takes the
            # exception, so that the write is lost.
            state.allowed[index] = None if before is None else before | {value}
        if state.values[exceptions.PSTATE] & exceptions.AARCH32:
            self._narrow()

    def _narrow(self) -> None:
        """Allow 32-bit values in the registers of AArch32 state: the upper 32 bits of each may be dropped."""
        state = self.state
        for i in exceptions.AARCH32_STATE:
            others = state.allowed.get(i, frozenset())
            if others is not None:
                whole = others | {state.values[i]}
                state.allowed[i] = whole | {value & 0xFFFF_FFFF for value in whole}

    def _run(self) -> None:
        """Apply a KVM_RUN before it enters the guest: it takes the pending abort, or completes the access."""
        if self.abort:
            self._take_abort()
            self.access = self.access or (self.replaced and ABORTED_COMPLETES in self.state.errata)
            self.replaced = False
        elif self.access:
            self._complete()

    def _take_abort(self) -> None:
        """Enter the pending abort from the state of now; its syndrome stays as it is."""
        state = self.state
        syndrome = {index: state.allowed[index] for index in _SYNDROME if index in state.allowed}
        state.take(exceptions.take_exception(tuple(state.values)))
        state.allowed.update(syndrome)
        self.abort, self.excepted = False, True

    def _abort(self, exit_: Switch | None) -> None:
        state = self.state
        after = contract.external_abort(tuple(state.values), exit_)
        for index in _SYNDROME:
            state.put(index, after[index])
        if exit_ is None:  # before the first run there is no instruction, and no address that faulted
            state.allowed[exceptions.FAR] = None
        if exit_ is None or exit_.values[exceptions.PSTATE] & exceptions.AARCH32:
            # ESR_EL1.IL: by the size of the instruction, or 1, as with ISV 0 (Arm ARM D17.2.37).
            esr = state.values[exceptions.ESR]
            state.allowed[exceptions.ESR] = frozenset({esr, esr | IL_BIT})
        sign_extend(state)
        if self.order.abort_at_once:
            self._take_abort()
        else:
            self.abort = True
            self.replaced = self.replaced or self.access
        self.access = False

    def _line(self, bit: int, level: bool) -> None:
        """Apply KVM_IRQ_LINE (KVM API 4.25)."""
        state = self.state
        state.hcr = state.hcr | bit if level else state.hcr & ~bit
        state.hcr_certain |= bit

    def _serror(self) -> None:
        """Apply an SError; one that is masked is pending, and changes no register."""
        state = self.state
        if not self.order.serror_at_once or state.values[exceptions.PSTATE] & exceptions.PSTATE_A:
            state.hcr |= exceptions.HCR_VSE
            return
        if self.access and self.round.reported_mmio:
            # Userspace has done the access: its completion comes first (KVM API 5, KVM_EXIT_MMIO).
            if SERROR_UNDOES not in state.errata:
                self._complete()
            self.access = False
        state.take(exceptions.take_exception(tuple(state.values), offset=exceptions.SERROR_OFFSET))
        state.allowed[exceptions.ESR] = None
        self.abort = self.replaced = False  # it replaces both
        self.excepted = True

    def enter(self) -> str:
        """Apply what the entry's KVM_RUN does before it enters the guest; return why the state is not determined."""
        if self.access and not self.abort and not self.round.reported_mmio:
            return NOT_REPORTED
        self._run()
        return ""
