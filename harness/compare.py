# SPDX-License-Identifier: Apache-2.0
"""Compare what was predicted with what was observed: pure, and without any model or VM.

The trace is cut into *rounds*.  A round is what the host does between two runs of the guest, ``E .. N``; the first
has no E.  Each round is compared with a :class:`Prediction` (relations ``save.*``, ``restore.*``); each run of the
guest, ``N .. E``, with the architecture alone (``switch.*``).  Every difference is a :class:`Divergence`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import ne
from types import MappingProxyType
from typing import NamedTuple

from harness import a64, arch, exits, protocol, syndrome
from harness.arch import State
from harness.execute import sources
from harness.guest import FROM_UNKNOWN, Walk, is_call, runs_on, walk, word_at
from harness.masks import Cpu
from harness.registers import BY_ONE_REG, INDEX, MASK64, NAMES
from harness.trace import ENTRY, EXIT, HOST, USER, Event, Host, Switch
from harness.world import SCENARIO, World

INCREMENT_PC, EXCEPTION = protocol.PENDING["increment_pc"], protocol.PENDING["exception"]
OP_SET, OP_RESET, OP_ABORT, OP_SERROR, OP_FINISH = (
    protocol.OPS[name][0] for name in ("set", "reset", "abort", "serror", "finish")
)
EXIT_INTR = 10
_POSITIONS = range(len(NAMES))
NOTHING: Mapping[int, int] = MappingProxyType({})
IN_KERNEL = "kernel:MMIO"
"""The outcome of an access to a device that KVM emulates itself."""


class Action(NamedTuple):
    """What KVM did in a round: its outcome, and whether it moved PC on or injected an exception."""

    outcome: str
    skip: bool
    inject: bool


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of the host: the exit (None before the first entry), what happened, the entry.

    ``first`` is the index of the exit, or of the entry, among the events of the trace; ``world`` is what surrounds the
    vCPU.  What follows from these is
    worked out once: ``exit_class`` (FIRST before the first entry), ``label`` (the same, but RESET where the vCPU was
    reset on the way: what the exit was matters little then), ``reset`` (the vCPU was reset in this turn, as it
    was before its first entry), ``host_wrote`` (the register writes that KVM took since the last reset, index in
    ``registers.STATE`` to value), ``action`` (what KVM did), ``seen`` (the guest's view after the entry).
    """

    first: int
    exit: Switch | None
    users: tuple[Switch, ...]
    hosts: tuple[Host, ...]
    entry: Switch
    world: World = SCENARIO
    exit_class: str = field(init=False)
    label: str = field(init=False)
    reset: bool = field(init=False)
    host_wrote: Mapping[int, int] = field(init=False)
    action: Action = field(init=False)
    seen: State = field(init=False)

    def __post_init__(self) -> None:
        derive, exit_, hosts, entry = object.__setattr__, self.exit, self.hosts, self.entry
        exit_class = "FIRST" if exit_ is None else exits.exit_class(exit_.code, exit_.esr)
        reset = exit_ is None or (bool(hosts) and any(host.op == OP_RESET for host in hosts))
        derive(self, "exit_class", exit_class)
        derive(self, "reset", reset)
        derive(self, "label", "FIRST" if exit_ is None else "RESET" if reset else exit_.exit_class)
        derive(self, "host_wrote", _host_wrote(hosts) if hosts else NOTHING)
        derive(self, "action", _action(exit_, self.users, hosts, entry, self.world))
        derive(self, "seen", arch.apply_pending(entry.values, entry.pending) if entry.pending else entry.values)


def _host_wrote(hosts: tuple[Host, ...]) -> Mapping[int, int]:
    wrote: dict[int, int] = {}
    for host in hosts:
        if host.op == OP_RESET:
            wrote.clear()
        elif host.op == OP_SET and not host.error and host.a in BY_ONE_REG:
            wrote[BY_ONE_REG[host.a]] = host.b
    return wrote


def _injected(exit_: Switch, users: tuple[Switch, ...], hosts: tuple[Host, ...], entry: Switch) -> bool:
    """Whether KVM gave the guest an exception on its way out to userspace, or when userspace asked for one."""
    before = exit_.values
    vector = arch.vector(before[arch.VBAR], before[arch.PSTATE])
    vectors, seen = {vector}, users
    if any(host.op in (OP_ABORT, OP_SERROR) and not host.error for host in hosts):
        vectors, seen = {vector, vector + arch.SERROR_OFFSET & MASK64}, (*users, entry)
    return any(
        u.values[arch.PC] in vectors and u.values[arch.ELR] == before[arch.PC] and u.values != before for u in seen
    )


def _reason(user: Switch) -> str:
    """How a return to userspace is called: the error that KVM_RUN failed with (EINTR is none), or the exit reason."""
    if user.error and user.error != errno.EINTR:
        return f"fail:{errno.errorcode.get(user.error, user.error)}"
    return f"user:{exits.KVM_EXIT_REASONS.get(user.code, user.code)}"


def _in_kernel(exit_: Switch, entry: Switch, world: World) -> bool:
    """Whether KVM emulated the access itself: a device of its own is there, and kvm_run shows the access."""
    address = (exit_.hpfar >> 4) << 12 | exit_.far & 0xFFF
    trapped = exits.exit_class(exit_.code, exit_.esr) == "DABT_LOW"
    return trapped and world.in_kernel(address) and entry.mmio_addr == address and bool(entry.pending & INCREMENT_PC)


def _action(
    exit_: Switch | None, users: tuple[Switch, ...], hosts: tuple[Host, ...], entry: Switch, world: World
) -> Action:
    inject, moved = bool(entry.pending & EXCEPTION), bool(entry.pending & INCREMENT_PC)
    if exit_ is not None and users:
        inject = inject or _injected(exit_, users, hosts, entry)
        behind = (exit_.values[arch.PC] + 4) & MASK64
        moved = moved or any(u.values[arch.PC] == behind for u in users)
        if any(host.op == OP_FINISH for host in hosts):  # its KVM_RUN leaves no record
            moved = moved or entry.values[arch.PC] == behind or arch.PC in _host_wrote(hosts)
    reasons = [_reason(u) for u in users if u.code != EXIT_INTR or u.error == errno.ENOSYS]
    if inject:
        outcome = "inject"
    elif reasons:
        outcome = reasons[0]
    elif world.devices and exit_ is not None and _in_kernel(exit_, entry, world):
        outcome = IN_KERNEL
    else:
        outcome = "resume"
    return Action(outcome, moved, inject)


class Prediction(NamedTuple):
    """What a level of the model says about a round.

    ``helper`` names what save chose (``none``: it had nothing to do; ``first``: there was no exit;
    ``sysreg``: the deployed code handles it without save; ``panic.restore``:
    it was restore that panicked); ``dirty`` is the flag word that save
    left, without the exceptions that KVM itself chose; ``state`` holds the restored registers, None after a panic;
    ``spsr_0`` the layer's second copy of SPSR_EL1.  ``undefined`` names the precondition that failed: then nothing
    else is said.
    """

    helper: str
    dirty: int = 0
    state: State | None = None
    spsr_0: int = 0
    undefined: str = ""
    path: tuple[tuple[str, bool], ...] = ()


class Divergence(NamedTuple):
    """One difference: relation with register (``restore.x3``), values, and where in the trace it was seen."""

    relation: str
    register: str
    expected: int | str
    observed: int | str
    exit_class: str
    event: int
    step: int
    helper: str = ""

    @property
    def name(self) -> str:
        """The relation as reports write it."""
        return f"{self.relation}.{self.register}" if self.register else self.relation


def beyond_judgement(round_: Round) -> str:
    """Say why nobody can tell what a forged exit owes; nothing where somebody can."""
    exit_ = round_.exit
    if exit_ is None or not exit_.forged or round_.exit_class not in ("IABT_LOW", "DABT_LOW"):
        return ""
    odd = exit_.esr & sum(exits.DABT[name].mask for name in ("EA", "CM", "S1PTW"))
    if odd or exit_.esr & exits.FSC_TYPE != exits.FSC_TRANSLATION:
        return "a forged abort that is no plain translation fault"
    return ""


def rounds(events: tuple[Event, ...]) -> Iterator[Round]:
    """Cut a trace into the turns of the host."""
    first, last_exit = 0, None
    users: list[Switch] = []
    hosts: list[Host] = []
    for i, event in enumerate(events):
        if isinstance(event, Host):
            hosts.append(event)
        elif event.kind == USER:
            users.append(event)
        elif event.kind == EXIT:
            first, last_exit, users, hosts = i, event, [], []
        elif event.kind == ENTRY:
            yield Round(first if last_exit is not None else i, last_exit, tuple(users), tuple(hosts), event)
            last_exit, users, hosts = None, [], []


def runs(events: tuple[Event, ...]) -> Iterator[tuple[int, Switch, Switch]]:
    """Yield each run of the guest: index of the exit, entry, exit."""
    entry: Switch | None = None
    for i, event in enumerate(events):
        if event.kind == HOST:
            continue
        assert isinstance(event, Switch)
        if event.kind == ENTRY:
            entry = event
        elif event.kind == EXIT and entry is not None:
            yield i, entry, event
            entry = None


ALLOWED: Mapping[str, frozenset[str]] = {
    # What KVM may do where the verified layer chose that helper (kvm.md, guest steps).
    "none": frozenset({"resume"}),
    "prep_wfx": frozenset({"resume"}),
    "prep_hvc": frozenset({"resume", "user:SYSTEM_EVENT", "user:HYPERCALL"}),
    "prep_abort": frozenset({"resume"}),
    "prep_abort.mmio": frozenset({"user:MMIO", IN_KERNEL}),
    "first": frozenset({"resume"}),
    "sysreg": frozenset({"resume"}),
    "panic": frozenset({"kill"}),
    "panic.restore": frozenset({"kill"}),
}

DIRTY_PC_FLAG, PENDING_EXCEPT_INJECT_FLAG = 1 << 32, 7 << 33
"""Flags of the layer's dirty word (model.md 2.1)."""


def different(a: State, b: State) -> list[int]:
    """Return where two tuples of one length differ."""
    return [] if a == b else list(compress(_POSITIONS, map(ne, a, b)))


def compare_round(round_: Round, prediction: Prediction) -> Iterator[Divergence]:
    """Yield the divergences of one turn of the host; relations ``save.*`` and ``restore.*``."""
    if prediction.undefined:
        return
    entry, done = round_.entry, round_.action

    def differ(relation: str, register: str, expected: int | str, observed: int | str) -> Divergence:
        where = (round_.label, round_.first, entry.step, prediction.helper)
        return Divergence(relation, register, expected, observed, *where)

    if done.outcome not in ALLOWED[prediction.helper]:
        yield differ("save", "class", prediction.helper, done.outcome)
    if prediction.state is None:
        return
    if round_.exit is not None and not round_.reset:
        before = round_.exit.values
        for i in different(before[:31], entry.values[:31]):
            if not prediction.dirty >> i & 1:
                yield differ("save", f"dirty.x{i}", 0, 1)
        # An exception of KVM's own is no divergence: these layers never ask for one (differential.md 2, step 4).
        if prediction.dirty & PENDING_EXCEPT_INJECT_FLAG and not done.inject:
            yield differ("save", "inject", 1, 0)
        skip = bool(prediction.dirty & DIRTY_PC_FLAG) or prediction.helper == "sysreg"
        if skip != done.skip and not done.inject:
            yield differ("save", "pc", int(skip), int(done.skip))
    seen = round_.seen
    for i in different(prediction.state, seen):
        yield differ("restore", NAMES[i], prediction.state[i], seen[i])
    if prediction.spsr_0 != seen[INDEX["spsr_el1"]]:
        yield differ("restore", "spsr_0", prediction.spsr_0, seen[INDEX["spsr_el1"]])


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Something that could not be compared, and why; counted and shown."""

    what: str
    why: str


def compare_run(
    index: int, entry: Switch, exit_: Switch, code: Mapping[int, int], cpu: Cpu
) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of one run of the guest; relation ``switch.*``."""
    seen = arch.apply_pending(entry.values, entry.pending)
    observed = exit_.values
    trapped = exit_.code & ~exits.EXIT_WITH_SERROR_BIT == exits.EXCEPTION_TRAP or exit_.forged != 0
    call = trapped and is_call(seen, code, exit_)
    target = (observed[arch.PC] - 4) & MASK64 if call else observed[arch.PC]
    if not trapped and entry.hcr & arch.HCR_VIRTUAL and arch.unmasked(seen[arch.PSTATE], entry.hcr):
        yield Unchecked("switch", "which interrupt came first, the guest's or the host's")
        return
    path = walk(seen, code, target, cpu, entry.hcr)
    where = (exit_.exit_class, index, entry.step)
    if path.state is None:
        if path.certain:
            yield Divergence("switch", "pc", path.why, target, *where)
        else:
            yield Unchecked("switch", path.why)
        return
    expected = path.state
    if not trapped and expected != observed and runs_on(expected, code, cpu):
        # Such as a guest whose vector faults: it takes one exception after the other until the interrupt comes.
        yield Unchecked("switch", "an interrupt in a guest that runs on by itself")
        return
    if trapped and expected[arch.SCTLR] & arch.SCTLR_M:
        yield Unchecked("switch", "fault registers with stage-1 translation on")
    elif exit_.forged:
        yield Unchecked("switch", "fault registers of a forged exit")
    elif trapped:
        yield from _compare_fault(path, word_at(code, target), exit_, where)
    if call:
        expected = (*expected[: arch.PC], observed[arch.PC], *expected[arch.PC + 1 :])
    for i in different(expected, observed):
        want, got = expected[i], observed[i]
        mask, reason = cpu.mask(i)
        bits, why = path.unknown.get(i, (0, reason))
        if (want ^ got) & ~(mask | bits):
            yield Divergence("switch", NAMES[i], want, got, *where)
        else:
            yield Unchecked("switch", why)


def _compare_fault(
    path: Walk, word: int | None, exit_: Switch, where: tuple[str, int, int]
) -> Iterator[Divergence | Unchecked]:
    """Compare the fault registers of a trap with what the instruction that trapped owes them."""
    assert path.state is not None
    is_fetch = (exit_.esr & exits.EC_MASK) >> exits.EC_SHIFT == exits.EC_BY_NAME["IABT_LOW"]
    access = a64.decode_access(word or 0)
    deciding = sources(word or 0) if access is None else {access.rn}
    if any(register in path.unknown for register in deciding):
        yield Unchecked("switch", FROM_UNKNOWN)
        return
    fault = syndrome.owed(path.state, word, is_fetch)
    if fault is None:
        return
    if (fault.esr ^ exit_.esr) & ~fault.esr_free:
        yield Divergence("switch", "esr_el2", fault.esr, exit_.esr, *where)
    if fault.far is not None and fault.far != exit_.far:
        yield Divergence("switch", "far_el2", fault.far, exit_.far, *where)
    if fault.hpfar is not None and fault.hpfar != exit_.hpfar:
        yield Divergence("switch", "hpfar_el2", fault.hpfar, exit_.hpfar, *where)
