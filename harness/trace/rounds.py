# SPDX-License-Identifier: Apache-2.0
"""Cut a trace into *rounds*, what the host does from an exit to the next entry, and *runs* of the guests between them.

A round is what the host does between two runs of a vCPU, ``E .. N``; the first has no E.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from harness import protocol
from harness.arch import exceptions, exits
from harness.arch.exceptions import State
from harness.arch.registers import BY_NAME, BY_ONE_REG, MASK64
from harness.protocol import OP_ABORT, OP_FINISH, OP_HELD, OP_RESET, OP_SERROR, OP_SET
from harness.trace import pending, psci
from harness.trace.environment import SCENARIO_VM, VmEnvironment
from harness.trace.events import ENTRY, EXIT, HOST, USER, Event, Host, Switch
from harness.trace.slot_timeline import SlotTimeline

INCREMENT_PC: Final = protocol.PENDING["increment_pc"]
EXCEPTION: Final = protocol.PENDING["exception"]
EXIT_INTR: Final = 10
EXIT_MMIO: Final = 6
PC_ID: Final = BY_NAME["pc"].one_reg
PSTATE_ID: Final = BY_NAME["pstate"].one_reg
VBAR_ID: Final = BY_NAME["vbar_el1"].one_reg
ELR_ID: Final = BY_NAME["elr_el1"].one_reg
NOTHING: Final[Mapping[int, int]] = MappingProxyType({})

IN_KERNEL: Final = "kernel:MMIO"
"""The outcome of an access to a device that KVM emulates itself."""

USER_INJECTED: Final = "asked"
"""The outcome where the guest took the exceptions that userspace asked for: an SError at once, several exceptions, or
one from another state than that of the exit."""


class KvmAction(NamedTuple):
    """KVM's action in a round: its outcome, and whether it advanced PC or injected an exception."""

    outcome: str
    skip: bool
    inject: bool


@dataclass(slots=True)  # one per exit: a frozen one takes five times as long to make
class Round:
    """What the host did with one vCPU: the exit (None before the first entry), what happened, the next entry.

    ``first`` is the index of the exit, or of the entry, among the events of the trace; ``world`` is the environment of
    the vCPU; ``other_vcpu_ran``: another vCPU ran in between.  The other fields are derived once: ``exit_class`` (FIRST
    before the first entry), ``label`` (the same, or RESET if the vCPU was reset in the round, where the exit matters
    little), ``reset`` (the vCPU was reset in this round, as it was before its first entry), ``host_wrote`` (the
    register writes that KVM accepted since the last reset, index in ``registers.STATE`` to value), ``action`` (KVM's
    action), ``guest_view`` (the guest's view after the entry).  ``unproven``: why the trace does not prove whether the
    vCPU was reset, or to which state; then nothing of the round can be compared.
    """

    first: int
    exit: Switch | None
    userspace_exits: tuple[Switch, ...]
    host_actions: tuple[Host, ...]
    entry: Switch
    world: VmEnvironment = SCENARIO_VM
    other_vcpu_ran: bool = False
    unproven: str = ""
    exit_class: str = field(init=False)
    label: str = field(init=False)
    reset: bool = field(init=False)
    host_wrote: Mapping[int, int] = field(init=False)
    action: KvmAction = field(init=False)
    guest_view: State = field(init=False)

    def __post_init__(self) -> None:
        exit_, hosts, entry = self.exit, self.host_actions, self.entry
        if exit_ is None:
            self.exit_class = self.label = "FIRST"
            self.reset = True
        else:
            self.exit_class = exits.exit_class(exit_.code, exit_.esr)
            self.reset = bool(hosts) and any(host.op == OP_RESET for host in hosts)
            self.label = "RESET" if self.reset else exit_.exit_class if exit_.forged else self.exit_class
        self.host_wrote = writes_of(hosts) if hosts else NOTHING
        self.action = _action(exit_, self.userspace_exits, hosts, entry, self.world)
        self.guest_view = (
            pending.apply_pending(entry.values, entry.pending, self.wide) if entry.pending else entry.values
        )

    @property
    def wide(self) -> bool:
        """Whether the instruction that trapped has 32 bits (ESR_EL2.IL), as each of A64 has."""
        return _wide(self.exit)

    @property
    def reported_mmio(self) -> bool:
        """Whether userspace got a KVM_EXIT_MMIO."""
        return any(user.code == EXIT_MMIO for user in self.userspace_exits)

    @property
    def in_kernel(self) -> bool:
        """Whether KVM emulated the access itself, whatever exception userspace asked for after it."""
        if self.action.outcome != USER_INJECTED:
            return self.action.outcome == IN_KERNEL
        return self.exit is not None and _in_kernel(self.exit, self.entry, self.world, self.action.skip)


def _wide(exit_: Switch | None) -> bool:
    return exit_ is None or bool(exit_.esr & exits.IL_BIT)


def was_aarch32(round_: Round) -> bool:
    """Whether the vCPU was in AArch32 state at some time in the round, at its exit or since userspace put it there.

    That state sees 32 bits of its registers, those above may be dropped (Arm ARM D1.20.2; set_core_reg in
    arch/arm64/kvm/guest.c).
    """
    came = (round_.exit or round_.entry).values[exceptions.PSTATE]
    put = any(
        h.op == OP_SET and h.a == PSTATE_ID and h.b & exceptions.AARCH32 and not h.error for h in round_.host_actions
    )
    return bool(came & exceptions.AARCH32) or put


def writes_of(hosts: Iterable[Host]) -> Mapping[int, int]:
    """Return the register writes that KVM accepted since the last reset: index in ``registers.STATE`` to value."""
    wrote: dict[int, int] = {}
    for host in hosts:
        if host.op == OP_RESET:
            wrote.clear()
        elif host.op == OP_SET and not host.error and host.a in BY_ONE_REG:
            wrote[BY_ONE_REG[host.a]] = host.b
    return wrote


def _exceptions(hosts: tuple[Host, ...]) -> tuple[int, ...]:
    """Return the exceptions that userspace asked for, in order: ``OP_ABORT``, ``OP_SERROR``."""
    return tuple(h.op for h in hosts if h.op in (OP_ABORT, OP_SERROR) and not h.error)


_DECIDE_ENTRY: Final = frozenset({PC_ID, PSTATE_ID, VBAR_ID})
"""The registers that decide the vector of an exception and its return address."""


def _entries(before: State, hosts: tuple[Host, ...]) -> Iterator[tuple[int, int]]:
    """Yield vector and PC of each exception that userspace asked for, by the registers at that time.

    One that pends is entered when KVM_RUN is called (``OP_FINISH``).
    """
    pc, pstate, vbar = before[exceptions.PC], before[exceptions.PSTATE], before[exceptions.VBAR]
    pends = False
    for host in hosts:
        if host.op == OP_RESET:
            pc, pstate, vbar = 0, exceptions.EL1H | exceptions.DAIF, 0
        elif host.error:
            continue
        elif host.op == OP_SET and host.a in _DECIDE_ENTRY:
            pc = host.b if host.a == PC_ID else pc
            pstate = host.b if host.a == PSTATE_ID else pstate
            vbar = host.b if host.a == VBAR_ID else vbar
        elif host.op in (OP_ABORT, OP_SERROR) or (host.op == OP_FINISH and pends):
            pends = host.op != OP_FINISH
            yield exceptions.vector(vbar, pstate), pc


def _rewritten(hosts: tuple[Host, ...]) -> bool:
    """Whether userspace wrote to the state that its exception is taken from: before it asked, or before KVM_RUN."""
    ops = [(h.op, h.a) for h in hosts if not h.error or h.op == OP_RESET]
    first = next((i for i, (op, _) in enumerate(ops) if op in (OP_ABORT, OP_SERROR)), len(ops))
    runs = [i for i, (op, _) in enumerate(ops) if op == OP_FINISH and i > first]
    entered = runs[0] if runs else first
    return any(op == OP_RESET or (op == OP_SET and a in _DECIDE_ENTRY) for op, a in ops[:entered])


def _injected(
    exit_: Switch, users: tuple[Switch, ...], hosts: tuple[Host, ...], entry: Switch, world: VmEnvironment
) -> bool:
    """Whether KVM gave the guest an exception on its way out to userspace, or when userspace asked for one."""
    before = exit_.values
    vector = exceptions.vector(before[exceptions.VBAR], before[exceptions.PSTATE])
    vectors, seen, came_from = {vector}, users, {before[exceptions.PC]}
    if hosts and (asked := _exceptions(hosts)):
        anew = tuple(_entries(before, hosts))
        vectors |= {at for at, _ in anew}
        vectors |= {at + exceptions.SERROR_OFFSET & MASK64 for at in vectors}
        seen = (*users, entry)
        # ELR_EL1 holds where the guest was, unless userspace writes over that, too.
        came_from |= {host.b for host in hosts if host.op == OP_SET and host.a in (PC_ID, ELR_ID)}
        came_from |= {pc for _, pc in anew}
        came_from.add(
            exceptions.state_after_instruction(before[exceptions.PC], before[exceptions.PSTATE], _wide(exit_))[0]
        )  # KVM may have done it before
        if len(asked) > 1:  # each may be taken at the vector of the one before
            nested = exceptions.vector(before[exceptions.VBAR], exceptions.EL1H)
            came_from |= {nested, *vectors}
            vectors |= {nested, nested + exceptions.SERROR_OFFSET & MASK64}
        if any(host.op == OP_FINISH for host in hosts):
            # Some kernels still complete the access, and PC advances from the vector.
            vectors |= {vector + 4 & MASK64 for vector in vectors}
        if any(host.op == OP_SET and host.a == PSTATE_ID and host.b & exceptions.AARCH32 for host in hosts):
            came_from |= {pc & 0xFFFF_FFFF for pc in came_from}  # the upper half may be dropped
        if _left_for_elsewhere(before, hosts, entry.values, came_from):
            return True
    if not any(u.values[exceptions.PC] in vectors for u in seen):
        return False
    # A vector outside the slots faults into itself: taking the exception once more changes nothing.
    again = before[exceptions.PC] == before[exceptions.ELR] == vector and world.slot(exit_.page) is None
    again = again and exits.exit_class(exit_.code, exit_.esr) == "IABT_LOW"
    return any(
        u.values[exceptions.PC] in vectors and u.values[exceptions.ELR] in came_from and (u.values != before or again)
        for u in seen
    )


def _given(
    exit_: Switch, users: tuple[Switch, ...], hosts: tuple[Host, ...], entry: Switch, world: VmEnvironment
) -> bool:
    """Whether KVM gave the guest an exception that userspace asked for, or an abort is pending at the entry."""
    if not _exceptions(hosts):
        return False
    resets = [i for i, host in enumerate(hosts) if host.op == OP_RESET]
    since = _exceptions(hosts[resets[-1] + 1 :] if resets else hosts)
    if OP_ABORT in since:
        return True
    if since == (OP_SERROR,) and not exit_.hcr & exceptions.HCR_VSE:
        return not entry.hcr & exceptions.HCR_VSE
    return _injected(exit_, users, hosts, entry, world)


_ASKED_EC: Final = frozenset(
    {exits.EC_BY_NAME["SERROR"], exits.EC_BY_NAME["DABT_LOW"], exceptions.same_el(exits.EC_BY_NAME["DABT_LOW"])}
)
"""Classes that ESR_EL1 has of the exceptions that userspace may ask for."""


def _left_for_elsewhere(before: State, hosts: tuple[Host, ...], after: State, came_from: Collection[int]) -> bool:
    """Whether userspace wrote PC over the vector of an exception that KVM took at once, or in KVM_RUN.

    Some kernels still complete the access after that, and PC advances from there.
    """
    ours = writes_of(hosts)
    if exceptions.PC not in ours:
        return False
    completed = any(host.op == OP_FINISH for host in hosts)
    if after[exceptions.PC] - ours[exceptions.PC] not in ((0, 4) if completed else (0,)):
        return False
    if (
        exceptions.ESR not in ours
        and after[exceptions.ESR] != before[exceptions.ESR]
        and exits.ec_of(after[exceptions.ESR]) in _ASKED_EC
    ):
        return True
    return (
        after[exceptions.ELR] in came_from
        and {exceptions.ELR, exceptions.SPSR}.isdisjoint(ours)
        and (after[exceptions.ELR], after[exceptions.SPSR]) != (before[exceptions.ELR], before[exceptions.SPSR])
    )


def _reason(user: Switch) -> str:
    """Name a return to userspace: by the error of KVM_RUN (EINTR is none), or by the exit reason."""
    if user.error and user.error != errno.EINTR:
        return f"fail:{errno.errorcode.get(user.error, user.error)}"
    return f"user:{exits.KVM_EXIT_REASONS.get(user.code, user.code)}"


def _in_kernel(exit_: Switch, entry: Switch, world: VmEnvironment, moved: bool) -> bool:
    """Whether KVM emulated the access itself: a device of its own is there, kvm_run shows it, and PC moved on."""
    if exits.exit_class(exit_.code, exit_.esr) != "DABT_LOW" or not moved:
        return False
    return world.in_kernel(exit_.address) and entry.mmio_addr == exit_.address


def took_serror(exit_: Switch | None, hosts: tuple[Host, ...], entry: Switch) -> bool:
    """Whether an SError that userspace asked for was taken at once, given that there was an exception.

    Then it is not pending at the entry; if another one is, and before the first entry, the syndrome decides.
    """
    asked = sum(host.op == OP_SERROR and not host.error for host in hosts)
    if exit_ is None or asked > 1 or exit_.hcr & exceptions.HCR_VSE:
        esr = pending.apply_pending(entry.values, entry.pending)[exceptions.ESR]
        return exits.ec_of(esr) == exits.EC_BY_NAME["SERROR"]
    return not entry.hcr & exceptions.HCR_VSE


def _action(
    exit_: Switch | None, users: tuple[Switch, ...], hosts: tuple[Host, ...], entry: Switch, world: VmEnvironment
) -> KvmAction:
    pending = entry.pending
    inject, moved = bool(pending & EXCEPTION), bool(pending & INCREMENT_PC)
    own = inject  # an exception that KVM gives the guest for this exit, or keeps pending
    if exit_ is None and (asked := _exceptions(hosts)):
        # Before it ever ran there is nothing that KVM itself could give it an exception for.
        inject = inject or (OP_SERROR in asked and took_serror(None, hosts, entry))
        # From 7.x on an abort is taken at once, too; its syndrome shows that.
        inject = inject or (OP_ABORT in asked and exits.ec_of(entry.values[exceptions.ESR]) in _ASKED_EC)
        return KvmAction(USER_INJECTED if inject else "resume", moved, inject)
    if not users and not world.devices:
        return KvmAction("inject" if inject else "resume", moved, inject)
    if exit_ is not None and users:
        own = own or _injected(exit_, users, (), entry, world)
        inject = own or _given(exit_, users, hosts, entry, world)
        states = exit_.values[exceptions.PSTATE], entry.values[exceptions.PSTATE]
        next_pcs = {
            exceptions.state_after_instruction(exit_.values[exceptions.PC], pstate, _wide(exit_))[0]
            for pstate in states
        }
        moved = moved or any(u.values[exceptions.PC] in next_pcs for u in users)
        # The KVM_RUN of OP_FINISH leaves no record.
        if any(host.op == OP_FINISH for host in hosts) and any(u.code == EXIT_MMIO for u in users):
            moved = moved or entry.values[exceptions.PC] in next_pcs or exceptions.PC in writes_of(hosts)
    reasons = [_reason(u) for u in users if u.code != EXIT_INTR or u.error == errno.ENOSYS]
    if inject:
        asked = _exceptions(hosts)
        at_once = OP_SERROR in asked and took_serror(exit_, hosts, entry)  # whatever else there was
        single = own and not at_once if OP_ABORT not in asked else asked == (OP_ABORT,) and not _rewritten(hosts)
        outcome = "inject" if single else USER_INJECTED
    elif reasons:
        outcome = reasons[0]
    elif world.devices and exit_ is not None and _in_kernel(exit_, entry, world, moved):
        outcome = IN_KERNEL
    else:
        outcome = "resume"
    return KvmAction(outcome, moved, inject)


@dataclass(slots=True)
class _RoundBuilder:
    """The host's actions on a vCPU since its last run."""

    first: int = 0
    exit: Switch | None = None
    world: VmEnvironment | None = None
    userspace_exits: list[Switch] = field(default_factory=list)
    host_actions: list[Host] = field(default_factory=list)
    other_vcpu_ran: bool = False
    answered: bool = False
    unproven: str = ""

    def act(self, host: Host) -> None:
        """Append a host action; after a reset the state is proven again."""
        self.host_actions.append(host)
        if host.op == OP_RESET:
            self.unproven = ""


def cut_rounds(events: Iterable[Event], slots: SlotTimeline) -> Iterator[Round]:
    """Cut a trace into rounds, each of one vCPU, in the order in which they end.

    ``events`` hold the guest's own registers (:func:`harness.trace.debug_state.undo_debug_state`).
    """
    turns: dict[int, _RoundBuilder] = {}
    last = None
    for i, event in enumerate(events):
        context = event.context
        if event.kind == EXIT and isinstance(event, Switch):
            # The environment at an exit is that of the round.
            turns[context] = _RoundBuilder(i, event, slots.environment(i, context))
            last = context
            continue
        turn = turns.get(context)
        if turn is None:
            turn = turns[context] = _RoundBuilder(i)
        if context != last:
            turn.other_vcpu_ran = last is not None
            last = context
        if isinstance(event, Host):
            if event.op != OP_HELD:
                turn.act(event)
            elif event.a == psci.X0_ID:
                _call_on(turns, turn, event)
        elif event.kind == USER:
            _call_on(turns, turn, event)
            turn.userspace_exits.append(event)
        elif event.kind == ENTRY:
            first = turn.first if turn.exit is not None else i
            world = turn.world or slots.environment(i, context)
            hosts = tuple(turn.host_actions)
            yield Round(
                first, turn.exit, tuple(turn.userspace_exits), hosts, event, world, turn.other_vcpu_ran, turn.unproven
            )
            del turns[context]
            _call_on(turns, turn, event)


def _call_on(turns: dict[int, _RoundBuilder], caller: _RoundBuilder, after: Event) -> None:
    """Record the effect of PSCI CPU_ON on another vCPU, if the caller's exit is one.

    ``after`` is the first record after that exit that shows x0, where KVM answers: a switch, or what the module kept
    before it wrote there (``OP_HELD``).  Without the latter a write of the host hides the answer.
    """
    exit_ = caller.exit
    if caller.answered or exit_ is None:
        return
    caller.answered = True
    asked = psci.called(exit_)
    if asked is None:
        return
    number, call = asked
    if isinstance(after, Switch) and 0 in writes_of(caller.host_actions):
        turns.setdefault(number, _RoundBuilder()).unproven = psci.OVERWRITTEN
    elif (after.values[0] if isinstance(after, Switch) else after.b) == psci.SUCCESS:
        named = turns.setdefault(number, _RoundBuilder())
        for action in psci.actions_of_cpu_on(exit_, call, number, after.step):
            named.act(action)


class GuestRun(NamedTuple):
    """One run of a guest: the index of its exit among the events, its entry, its exit."""

    event: int
    entry: Switch
    exit: Switch


def cut_runs(events: Iterable[Event]) -> Iterator[GuestRun]:
    """Yield each run of a guest; ``events`` as in :func:`cut_rounds`."""
    entries: dict[int, Switch] = {}
    for i, event in enumerate(events):
        if event.kind == HOST:
            continue
        assert isinstance(event, Switch)
        if event.kind == ENTRY:
            entries[event.context] = event
        elif event.kind == EXIT and (entry := entries.pop(event.context, None)) is not None:
            yield GuestRun(i, entry, event)
