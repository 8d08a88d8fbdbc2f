# SPDX-License-Identifier: Apache-2.0
"""What the guest must have after what userspace did between an exit and the next entry: its actions, in order.

Part of relation ``host.*`` (:mod:`harness.relations.host`).  An access that userspace has completed is finished by the
next KVM_RUN (KVM API 5, KVM_EXIT_MMIO).
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
from harness.trace.rounds import EXCEPTION, EXIT_MMIO, Round, took_serror

WRITTEN_WHILE_PENDING = "a register of the exception written while it is pending"
NOT_REPORTED = "an MMIO access that did not reach userspace"
_MPIDR = INDEX["mpidr_el1"]
_SYNDROME = frozenset({exceptions.ESR, exceptions.FAR})
_DECIDES_EXCEPTION = frozenset({*exceptions.EXCEPTION, exceptions.VBAR, exceptions.SCTLR}) - _SYNDROME
_KEPT = tuple(i for i, r in enumerate(STATE) if r.kept_by_reset)


def serror_at_once(round_: Round) -> bool:
    """Whether an SError that was not masked was taken when userspace asked for it (docs/spec/kvm.md section 6)."""
    return round_.action.inject and took_serror(round_.exit, round_.hosts, round_.entry)


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
    """Apply what userspace did, in order, then the completion of the access that it left.

    Returns why the state is not determined, nothing where it is.
    """
    actions = _Actions(turn, round_)
    for host in round_.hosts:
        if host.op == OP_RESET:
            actions.reset(host)
        elif not host.error and (why := actions.apply(host)):
            return why
    return actions.enter()


@dataclass
class _Actions:
    """A turn of userspace on its way: what is left of the access that the exit made, and which exceptions there are.

    ``access``: the next KVM_RUN completes it.  ``aborted``: it would, but for an abort in its place (an erratum).
    ``waiting``: an abort that the next KVM_RUN enters; ``kept``: one that a reset left (an erratum).  ``excepted``: an
    exception was asked for since the last reset; ``unsettled``: since the last KVM_RUN, so that it may be entered
    already, or not.  ``either_vector``: VBAR_EL1 was written meanwhile.  ``serror``: what an SError that was perhaps
    taken left in registers.
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
    serror: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.access = self._is_left()
        if self.access and self.round.in_kernel:
            self._complete()  # before userspace had its turn
        self.serror_taken = serror_at_once(self.round)
        # What neither pends at the entry nor went with a run before it was taken at once, before the writes.
        self.at_once = not self.round.entry.pending & EXCEPTION and not self._ran_after_asking()

    def _is_left(self) -> bool:
        """Whether the exit made an access that is to be completed.

        Without a valid syndrome KVM_RUN fails, or exits (KVM API 5, KVM_EXIT_ARM_NISV): nothing is ever completed.
        """
        exit_, world = self.round.exit, self.round.world
        if exit_ is None or self.round.exit_class != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
            return False
        return is_mmio(exit_, world) and (IGNORES_SIZE in self.turn.errata or not is_beyond(exit_, world))

    @property
    def _reported(self) -> bool:
        """Whether userspace got a KVM_EXIT_MMIO."""
        return any(user.code == EXIT_MMIO for user in self.round.users)

    def _ran_after_asking(self) -> bool:
        """Whether KVM_RUN was called between an exception that userspace asked for and the entry (``OP_FINISH``).

        It enters no guest: an SError that was taken was so before.
        """
        ops = [host.op for host in self.round.hosts if not host.error]
        entered = (OP_ABORT,) if self.serror_taken else (OP_ABORT, OP_SERROR)
        asked = next((i for i, op in enumerate(ops) if op in entered), len(ops))
        return OP_FINISH in ops[asked:]

    def _complete(self) -> None:
        if self.round.exit is not None:
            complete(self.turn, self.round.exit, self.round.entry.mmio_data)
        self.access = False

    def apply(self, host: Host) -> str:
        """Apply an action that KVM accepted, but a reset; return why the state is not determined."""
        exit_, turn = self.round.exit, self.turn
        if host.op == OP_SET and (index := BY_ONE_REG.get(host.a)) is not None:
            return self._set(index, host.b)
        if host.op == OP_FINISH:
            self._run()
        elif host.op == OP_ABORT and exit_ is not None:
            return self._abort(exit_)
        elif host.op == OP_SERROR and not turn.values[exceptions.PSTATE] & exceptions.PSTATE_A:
            return self._serror()
        return ""

    def reset(self, host: Host) -> None:
        """Apply a reset: by KVM_ARM_VCPU_INIT (``host.asked``) or by another vCPU's CPU_ON."""
        turn, errata = self.turn, self.turn.errata
        keeps_banked = RESET_KEEPS_BANKED in errata
        if keeps_banked and self.round.users and not (self.excepted or self.was_reset):
            self._restore_banked()
        apply_reset(turn, self.round.world, keeps_banked)
        self.kept = host.asked and (self.waiting or self.kept) and RESET_KEEPS_ABORT in errata
        # What is left over of the access is completed once no exception pends.
        left = self.access or (self.aborted and self.kept)
        self.access = host.asked and left and RESET_COMPLETES in errata
        self.excepted = self.unsettled = self.waiting = self.aborted = self.either_vector = False
        self.was_reset = True
        self.serror = {}

    def _restore_banked(self) -> None:
        """Set the registers that a reset may keep to what the last return to userspace shows, or userspace wrote since.

        Whether an exception was entered before that, the record proves; the contract need not.  Of a second reset it is
        what the first one left, or userspace wrote since.
        """
        wrote: dict[int, int] = {}
        for host in self.round.hosts:
            if host.op == OP_RESET:
                break
            if host.op == OP_SET and not host.error and host.a in BY_ONE_REG:
                wrote[BY_ONE_REG[host.a]] = host.b
        for index in _KEPT:
            self.turn.put(index, wrote.get(index, self.round.users[-1].values[index]))
        for index, left in self.serror.items():
            self.turn.allowed[index] = frozenset({self.turn.values[index], left})

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
            # Of a pending exception these two may be there already, or come when it is entered.
            turn.allowed[index] = None if before is None else before | {value}
        # Of an exception that is pending the state is still that in which it will be taken.
        state = turn.values[exceptions.SPSR if pends else exceptions.PSTATE]
        if (state | turn.values[exceptions.PSTATE]) & exceptions.AARCH32:
            self._narrow()
        return ""

    def _allow_both_vectors(self, vbar: int) -> None:
        """Allow the vector by VBAR_EL1 as it was and as userspace writes it while an exception is pending.

        Whether KVM_SET_VCPU_EVENTS enters it or the next KVM_RUN, KVM API 4.32 does not say.
        """
        turn = self.turn
        others = turn.allowed.get(exceptions.PC) or frozenset({turn.values[exceptions.PC]})
        turn.allowed[exceptions.PC] = others | {exceptions.vector(vbar, turn.values[exceptions.SPSR])}
        self.either_vector = True

    def _narrow(self) -> None:
        """Allow what AArch32 state makes of its registers: it sees 32 bits of each, those above may be dropped."""
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

    def _abort(self, exit_: Switch) -> str:
        turn = self.turn
        if self.either_vector:
            return WRITTEN_WHILE_PENDING
        if self.waiting and self.round.seen[exceptions.ELR] == turn.values[exceptions.ELR]:
            return ""  # one may pend for both: what two before a run are, KVM API 4.32 does not say
        turn.take(contract.external_abort(tuple(turn.values), exit_))
        if exit_.values[exceptions.PSTATE] & exceptions.AARCH32:
            # IL: of its instruction, or 1 (Arm ARM D17.2.37, ISV is 0).
            esr = turn.values[exceptions.ESR]
            turn.allowed[exceptions.ESR] = frozenset({esr, esr | IL_BIT})
        sign_extend(turn)
        self.aborted = self.aborted or self.access
        self.access = self.kept = False  # one pends at the most
        self.excepted = self.unsettled = self.waiting = True
        return ""

    def _serror(self) -> str:
        """Apply an SError that is not masked."""
        turn = self.turn
        taken = exceptions.take_exception(tuple(turn.values), offset=exceptions.SERROR_OFFSET)
        if not self.serror_taken:
            # After a reset nothing shows whether it was taken before (docs/spec/kvm.md section 6).
            self.serror = {index: taken[index] for index in (exceptions.ELR, exceptions.SPSR)}
            return ""
        if self.either_vector:
            return WRITTEN_WHILE_PENDING
        if self.access and self._reported:
            # The access is done, only not finished: that comes first (KVM API 5, KVM_EXIT_MMIO).
            if SERROR_UNDOES not in turn.errata:
                self._complete()
                taken = exceptions.take_exception(tuple(turn.values), offset=exceptions.SERROR_OFFSET)
            self.access = self.waiting = False
        turn.take(taken)
        turn.allowed[exceptions.ESR] = None
        self.excepted = self.unsettled = True
        return ""

    def enter(self) -> str:
        """Apply what the KVM_RUN of the entry does first; return why the state is not determined."""
        if self.kept:  # it comes before what is left of the access
            self.turn.take(exceptions.take_exception(tuple(self.turn.values)))
            return ""
        if self.access:
            if not self._reported:
                return NOT_REPORTED
            self._complete()
        return ""
