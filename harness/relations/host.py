# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state that KVM must produce at an entry, and compare it: relation ``host.*``.

The expected state starts as the exit's registers.  The rules of :mod:`harness.relations.contract` for that exit apply
first, then userspace's actions in order, then the completion of an MMIO access, which the next ``KVM_RUN`` performs.
No model is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness import protocol
from harness.arch import exceptions, reset_values
from harness.arch.exceptions import State
from harness.arch.exits import DABT, IL_BIT
from harness.arch.registers import BY_ONE_REG, INDEX, NAMES, STATE
from harness.guest.predict_run import STEP_SHOWS
from harness.protocol import OP_ABORT, OP_FINISH, OP_IRQ_LINE, OP_RESET, OP_SERROR, OP_SET
from harness.relations import contract
from harness.relations.divergence import Divergence, Unchecked, different
from harness.relations.errata import (
    ABORTED_COMPLETES,
    CPU_ON_KEEPS_SERROR,
    IGNORES_SIZE,
    NONE,
    RESET_COMPLETES,
    RESET_KEEPS_ABORT,
    RESET_KEEPS_BANKED,
    RESET_KEEPS_SERROR,
    SERROR_UNDOES,
)
from harness.relations.exit_handling import apply_exit, sign_extend
from harness.relations.expected_state import ExpectedState
from harness.relations.mmio import complete, is_beyond, is_mmio
from harness.trace.environment import VmEnvironment
from harness.trace.rounds import EXCEPTION, EXIT_MMIO, Round, took_serror

WRITTEN_WHILE_PENDING = "a register of the exception written while it is pending"
STEP_WAITS = "the guest's own PSTATE.SS while userspace steps it"
OS_LOCK = "what the OS Lock hides of MDSCR_EL1"
PARTIAL = frozenset({STEP_WAITS, OS_LOCK, STEP_SHOWS})
"""Reasons that concern some bits of one register; any other reason means that the whole state is undetermined."""
_MPIDR = INDEX["mpidr_el1"]
_SYNDROME = frozenset({exceptions.ESR, exceptions.FAR})
_DECIDES_EXCEPTION = frozenset({*exceptions.EXCEPTION, exceptions.VBAR, exceptions.SCTLR}) - _SYNDROME
_KEPT = tuple(i for i, r in enumerate(STATE) if r.kept_by_reset)


def _narrow(turn: ExpectedState) -> None:
    """Allow 32-bit values in the registers of AArch32 state: the upper 32 bits of each may be dropped."""
    for i in exceptions.AARCH32_STATE:
        others = turn.allowed.get(i, frozenset())
        if others is not None:
            whole = others | {turn.values[i]}
            turn.allowed[i] = whole | {value & 0xFFFF_FFFF for value in whole}


def _reset(turn: ExpectedState, world: VmEnvironment, keeps_banked: bool = False) -> None:
    for index, value in reset_values.RESET_BY_INDEX.items():
        if not (keeps_banked and index in _KEPT):
            turn.put(index, value)
    turn.put(_MPIDR, world.mpidr)
    for index in reset_values.HOST_RESET_INDEX:
        turn.allowed[index] = None
    for index in _KEPT if not keeps_banked else ():
        turn.put(index, 0)
        turn.allowed[index] = reset_values.NOTHING_LEFT


def _as_userspace_saw_them(turn: ExpectedState, round_: Round) -> None:
    """Set the registers that a reset may keep to their values at the last return to userspace, or as written since.

    The record proves whether an exception was entered before that; the contract need not.  At a second reset the values
    are those that the first one left, or userspace wrote since.
    """
    wrote: dict[int, int] = {}
    for host in round_.hosts:
        if host.op == OP_RESET:
            break
        if host.op == OP_SET and not host.error and host.a in BY_ONE_REG:
            wrote[BY_ONE_REG[host.a]] = host.b
    for index in _KEPT:
        turn.put(index, wrote.get(index, round_.users[-1].values[index]))


def _ran_after_asking(round_: Round, serror_taken: bool) -> bool:
    """Whether KVM_RUN was called between an exception that userspace asked for and the entry (``OP_FINISH``).

    It enters no guest: an SError that was taken (``serror_taken``) was taken before.
    """
    ops = [host.op for host in round_.hosts if not host.error]
    entered = (OP_ABORT,) if serror_taken else (OP_ABORT, OP_SERROR)
    asked = next((i for i, op in enumerate(ops) if op in entered), len(ops))
    return OP_FINISH in ops[asked:]


def serror_at_once(round_: Round) -> bool:
    """Whether an SError that was not masked was taken when userspace asked for it (docs/spec/kvm.md section 6)."""
    return round_.action.inject and took_serror(round_.exit, round_.hosts, round_.entry)


def _allow_both_vectors(turn: ExpectedState, vbar: int) -> None:
    """Allow the vector by the old VBAR_EL1, and by the one that userspace writes while an exception is pending.

    KVM API 4.32 does not specify whether KVM_SET_VCPU_EVENTS enters the exception or the next KVM_RUN.
    """
    pc = turn.values[exceptions.PC]
    others = turn.allowed.get(exceptions.PC) or frozenset({pc})
    turn.allowed[exceptions.PC] = others | {exceptions.vector(vbar, turn.values[exceptions.SPSR])}


def _userspace(turn: ExpectedState, round_: Round) -> str:
    """Apply userspace's actions in order, then the completion of the access; return why if that is not determined."""
    exit_ = round_.exit
    # Without a valid syndrome KVM_RUN fails, or exits (KVM API 5, KVM_EXIT_ARM_NISV): nothing is ever completed.
    access = exit_ is not None and round_.exit_class == "DABT_LOW" and bool(DABT["ISV"].get(exit_.esr))
    access = access and exit_ is not None and is_mmio(exit_, round_.world)
    access = access and exit_ is not None and (IGNORES_SIZE in turn.errata or not is_beyond(exit_, round_.world))
    if access and exit_ is not None and round_.in_kernel:
        complete(turn, exit_, round_.entry.mmio_data)  # before userspace acts
        access = False
    told = any(user.code == EXIT_MMIO for user in round_.users)
    excepted = waiting = aborted = kept = was_reset = either_vector = False
    serror: dict[int, int] = {}  # what an SError that was perhaps taken left in registers
    serror_taken = serror_at_once(round_)
    # An exception that neither pends at the entry nor went with a run before it was taken at once, before the writes.
    at_once = not round_.entry.pending & EXCEPTION and not _ran_after_asking(round_, serror_taken)
    for host in round_.hosts:
        if host.op == OP_RESET:
            if RESET_KEEPS_BANKED in turn.errata and round_.users and not (excepted or was_reset):
                _as_userspace_saw_them(turn, round_)
                for register, left in serror.items():
                    turn.allowed[register] = frozenset({turn.values[register], left})
            serror = {}
            _reset(turn, round_.world, RESET_KEEPS_BANKED in turn.errata)
            kept = host.asked and (waiting or kept) and RESET_KEEPS_ABORT in turn.errata
            # The rest of the access is completed once no exception is pending.
            access = host.asked and (access or (aborted and kept)) and RESET_COMPLETES in turn.errata
            excepted = waiting = aborted = either_vector = False
            was_reset = True
        elif host.error:
            continue
        elif host.op == OP_SET and (index := BY_ONE_REG.get(host.a)) is not None:
            if excepted and not at_once and index in _DECIDES_EXCEPTION:
                if index != exceptions.VBAR:
                    return WRITTEN_WHILE_PENDING
                _allow_both_vectors(turn, host.b)
                either_vector = True
            # Of a pending exception these two may be set already, or when it is entered: that is not specified.
            either = excepted and not at_once and index in _SYNDROME
            before = turn.allowed.get(index, frozenset({turn.values[index]}))
            turn.put(index, host.b)
            serror.pop(index, None)
            if either:
                turn.allowed[index] = None if before is None else before | {host.b}
            if turn.values[exceptions.PSTATE] & exceptions.AARCH32:
                _narrow(turn)
        elif host.op == OP_FINISH and kept:
            turn.take(exceptions.take_exception(tuple(turn.values)))
            kept = False
        elif host.op == OP_FINISH:
            if exit_ is not None and access:
                complete(turn, exit_, round_.entry.mmio_data)
            # This run enters the exception, the next one completes the access.
            access = aborted and ABORTED_COMPLETES in turn.errata
            waiting = aborted = False
        elif host.op == OP_ABORT and exit_ is not None:
            if either_vector:
                return WRITTEN_WHILE_PENDING
            if waiting and round_.seen[exceptions.ELR] == turn.values[exceptions.ELR]:
                continue  # one may be pending for both: KVM API 4.32 does not specify two before a run
            turn.take(contract.external_abort(tuple(turn.values), exit_))
            if (
                exit_.values[exceptions.PSTATE] & exceptions.AARCH32
            ):  # IL: of its instruction, or 1 (Arm ARM D17.2.37, ISV is 0)
                turn.allowed[exceptions.ESR] = frozenset(
                    {turn.values[exceptions.ESR], turn.values[exceptions.ESR] | IL_BIT}
                )
            sign_extend(turn)
            aborted = aborted or access
            access, excepted, waiting, kept = False, True, True, False  # at most one is pending
        elif host.op == OP_SERROR and serror_taken and not turn.values[exceptions.PSTATE] & exceptions.PSTATE_A:
            if either_vector:
                return WRITTEN_WHILE_PENDING
            if access and exit_ is not None and told:
                # Userspace has done the access: its completion comes first (KVM API 5, KVM_EXIT_MMIO).
                if SERROR_UNDOES not in turn.errata:
                    complete(turn, exit_, round_.entry.mmio_data)
                access = waiting = False
            turn.take(exceptions.take_exception(tuple(turn.values), offset=exceptions.SERROR_OFFSET))
            turn.allowed[exceptions.ESR] = None
            excepted = True
        elif host.op == OP_SERROR and not turn.values[exceptions.PSTATE] & exceptions.PSTATE_A:
            # After a reset nothing shows whether it was taken before (docs/spec/kvm.md section 6).
            entered = exceptions.take_exception(tuple(turn.values), offset=exceptions.SERROR_OFFSET)
            serror = {index: entered[index] for index in (exceptions.ELR, exceptions.SPSR)}
    if kept:  # a pending exception comes before the rest of the access
        turn.take(exceptions.take_exception(tuple(turn.values)))
        access = False
    if access and exit_ is not None:
        if not told:
            return "an MMIO access that did not reach userspace"
        complete(turn, exit_, round_.entry.mmio_data)
    return ""


def expected_entry_state(
    round_: Round, walk_level: int | None = None, errata: frozenset[str] = NONE
) -> tuple[State, Mapping[int, frozenset[int] | None]] | str:
    """Return the registers required at the entry, and per index the other correct values (None: any).

    A text is the reason why they are not determined.  ``walk_level``: of the table entry at which a stage-1 walk met no
    memory.
    """
    exit_ = round_.exit
    turn = ExpectedState(list((exit_ or round_.entry).values), walk_level, errata)
    if exit_ is None:
        _reset(turn, round_.world)
    else:
        reason = apply_exit(turn, round_, exit_)
        if reason and not round_.reset:  # after a reset it does not matter
            return reason
    return _userspace(turn, round_) or (tuple(turn.values), turn.allowed)


def expected_virtual_interrupts(round_: Round, errata: frozenset[str] = NONE) -> tuple[int, int]:
    """Return the virtual interrupts that must be pending in HCR_EL2 at the entry, and which bits are certain.

    A reset clears a pending SError; a line keeps its last level (KVM API 4.25, 4.32).
    """
    hcr = round_.exit.hcr if round_.exit is not None else 0
    certain = exceptions.HCR_VIRTUAL
    for host in round_.hosts:
        if host.op == OP_RESET:
            keeps = (RESET_KEEPS_SERROR if host.asked else CPU_ON_KEEPS_SERROR) in errata
            hcr, certain = hcr & exceptions.HCR_VSE if keeps else 0, exceptions.HCR_VSE
        elif host.op == OP_SERROR and not host.error:
            hcr |= exceptions.HCR_VSE
            if round_.action.inject:
                certain &= ~exceptions.HCR_VSE
        elif host.op == OP_IRQ_LINE and not host.error:
            bit = exceptions.HCR_VI if host.a == protocol.LINES["irq"] else exceptions.HCR_VF
            hcr, certain = hcr | bit if host.b else hcr & ~bit, certain | bit
    return hcr & exceptions.HCR_VIRTUAL, certain


def _step_waits(round_: Round, pstate: int) -> bool:
    """Call :func:`harness.relations.contract.step_waits`; userspace may have begun to step only after the exit."""
    exit_, wrote = round_.exit, round_.host_wrote.get(exceptions.PSTATE, 0)
    if exit_ is None or round_.reset:
        return False
    stepped = exit_.stepped or round_.entry.stepped
    return contract.step_waits(stepped, exit_.values[exceptions.PSTATE] | wrote, pstate)


def compare_entry_state(
    round_: Round, lossy: Mapping[int, int], walk_level: int | None = None, errata: frozenset[str] = NONE
) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of relation ``host.*``.

    ``lossy``: bits that the CPU does not keep, by index; ``walk_level`` and ``errata`` as in
    :func:`expected_entry_state`.
    """
    pending, certain = expected_virtual_interrupts(round_, errata)
    if (pending ^ round_.entry.hcr) & certain:
        found = round_.entry.hcr & exceptions.HCR_VIRTUAL
        yield Divergence("host", "hcr_el2", pending, found, round_.label, round_.first, round_.entry.step)
    result = expected_entry_state(round_, walk_level, errata)
    if isinstance(result, str):
        yield Unchecked("host", result)
        return
    expected, allowed = result
    seen = round_.seen
    for i in different(expected, seen):
        want, got = expected[i], seen[i]
        if not (want ^ got) & ~lossy.get(i, 0):
            continue
        if i == exceptions.MDSCR and exceptions.os_locked(want, got):
            yield Unchecked("host", OS_LOCK)
            continue
        if (
            i == exceptions.SPSR
            and not (want ^ got) & ~exceptions.SS
            and round_.exit is not None
            and round_.exit.stepped
        ):
            yield Unchecked("host", STEP_SHOWS)
            continue
        if i == exceptions.PSTATE and want ^ got == exceptions.SS and _step_waits(round_, got):
            yield Unchecked("host", STEP_WAITS)
            continue
        if i in allowed:
            others = allowed[i]
            if others is None or got in others:
                continue
        yield Divergence("host", NAMES[i], want, got, round_.label, round_.first, round_.entry.step)
