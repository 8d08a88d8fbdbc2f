# SPDX-License-Identifier: Apache-2.0
"""Collect the divergent sites of a trace, each with the data that a report shows: pure, recomputed from the trace.

A *site* is one round (relations ``save.*``, ``restore.*``, ``host.*``) or one run of the guest (``switch.*``).  Its
rows are registers, its sentences the divergences without a register.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from harness import protocol
from harness.arch import exceptions, exits, registers
from harness.arch.a64 import disassemble
from harness.arch.registers import INDEX, NAMES
from harness.findings.checked import ExplainedDivergence
from harness.guest.instruction_fetch import is_call, word_at
from harness.layout import CODE, PROTECTED_VCPUS, REGIONS, VECTORS
from harness.model.prediction import Prediction
from harness.model.replay import predict
from harness.protocol import MMIO_WRITE
from harness.report.esr import Syndrome, decode
from harness.scenario import memory_slots
from harness.scenario.code_layout import code_of, placed
from harness.scenario.scenario import Scenario, format_step
from harness.trace import pending
from harness.trace.events import ENTRY, EXIT, Host, Switch, Trace
from harness.trace.indexed import index_trace
from harness.trace.rounds import KvmAction, Round

ROUND_COLUMNS = ("before", "host", "predicted", "observed")
ROUND_RELATIONS = frozenset({"save", "restore", "host"})
WITHOUT_COLUMN = frozenset({"save", "host", "flush", "sync"})
RUN_COLUMNS = ("entry", "expected", "observed")
_ONE_REG: Mapping[int, str] = {r.one_reg: r.name for r in registers.STATE}
_OP_NAMES: Mapping[int, str] = {number: name for name, (number, _) in protocol.OPS.items()}


@dataclass(frozen=True, slots=True)
class StepSite:
    """The place of a trap of the guest: address, the scenario's step there (None: not in its code), the instruction.

    ``text`` is the line of the step; outside the code, the step that the agent was running.
    """

    address: int
    step: int | None
    text: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Row:
    """One register: its values in the order of the site's columns (None: not recorded), and its divergences.

    ``bits`` has a one for each bit in which the last two columns differ.
    """

    register: str
    values: tuple[int | None, ...]
    judged: tuple[ExplainedDivergence, ...]

    @property
    def bits(self) -> int:
        """The bits in which expected and observed value differ."""
        expected, observed = self.values[-2:]
        return 0 if expected is None or observed is None else expected ^ observed


@dataclass(frozen=True, slots=True)
class Site:
    """One site of a trace.

    ``event`` indexes the trace; ``place`` is None before the first exit; ``host`` are the host's actions, one sentence
    for each; ``action``, ``prediction`` are None for a run of the guest.  ``sentences`` are the divergences that are
    not about a register's values.
    """

    event: int
    place: StepSite | None
    exit_class: str
    syndrome: Syndrome | None
    pending: tuple[str, ...]
    action: KvmAction | None
    prediction: Prediction | None
    host: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    sentences: tuple[ExplainedDivergence, ...]

    @property
    def where(self) -> str:
        """The site in a few words."""
        if self.place is None:
            return "before the first entry"
        return f"{self.place.address:#x}" if self.place.step is None else f"step {self.place.step}"

    @property
    def judged(self) -> tuple[ExplainedDivergence, ...]:
        """All divergences of the site."""
        return (*self.sentences, *(j for row in self.rows for j in row.judged))


def place_of(scenario: Scenario, entry: Switch, exit_: Switch) -> StepSite:
    """Return the place of the instruction that ended the run of the guest from ``entry`` to ``exit_``."""
    code = code_of(scenario, exit_.context in PROTECTED_VCPUS)
    address = exit_.values[exceptions.PC]
    before = word_at(code, address - 4)
    if exit_.trapped and is_call(pending.apply_pending(entry.values, entry.pending), before, exit_, code.protected):
        address -= 4  # the preferred return address of a call is the next instruction
    # Several steps can run in one KVM_RUN: the record has the number of the last one; the address is exact.  Another VM
    # may have a step at the same address.
    index = next((p.step for p in placed(scenario) if p.address == address and address in code), None)
    if index is not None:
        step = scenario.steps[index]
        return StepSite(address, index, format_step(step), disassemble(code[address], address))
    at = exit_.step
    text = f"at step {at}: {format_step(scenario.steps[at])}" if at < len(scenario.steps) else ""
    if address in CODE:
        return StepSite(address, None, text, "the trap after the last step")
    if address in VECTORS:
        return StepSite(address, None, text, f"the trap at the EL1 vectors + {address - VECTORS.base:#x}")
    region = next((r for r in REGIONS if address in r), None)
    return StepSite(address, None, text, f"no code, in {region.name}" if region else "no code")


def pending_names(pending: int) -> tuple[str, ...]:
    """Name KVM's pending flags."""
    return tuple(name for name, bit in protocol.PENDING.items() if pending & bit)


def host_sentence(host: Host) -> str:
    """Describe an action of userspace in one sentence, with its errno if it failed."""
    name = _OP_NAMES.get(host.op, f"operation {host.op}")
    match name:
        case "set":
            text = f"set {_ONE_REG.get(host.a, f'register {host.a:#x}')} = {host.b:#x}"
        case "complete":
            text = f"complete the read with {host.a:#x}"
        case "mp_state":
            text = f"set MP state {host.a}"
        case "irq_line":
            line = next((line for line, number in protocol.LINES.items() if number == host.a), f"{host.a:#x}")
            text = f"{'raise' if host.b else 'lower'} the {line} line"
        case "gic_line":
            kind = "SPI" if host.a < protocol.GIC_LINES["ppi"] else "PPI"
            text = f"{'raise' if host.b else 'lower'} {kind} {host.a & 0xFFFF} of the GIC"
        case "debug":
            way = next((way for way, number in protocol.DEBUG_WAYS.items() if number == host.a), f"{host.a:#x}")
            text = f"debug the guest: {way.replace('_', ' and ')}"
        case "breakpoint" | "watchpoint":
            number, control = host.b >> 32, host.b & 0xFFFF_FFFF
            text = f"{'set' if control else 'remove'} {name} {number} at {host.a:#x}"
            text += f", control {control:#x}" if control else ""
        case "serror":
            text = "inject an SError" + (f" of syndrome {host.a:#x}" if host.b else "")
        case "slot":
            slot = memory_slots.unpack(host.a, host.b)
            text = f"memory slot {slot.number}: {slot.kind}, {slot.base:#x} to {slot.end:#x}, home {slot.home:#x}"
        case "drop_slot":
            text = f"delete memory slot {memory_slots.unpack(host.a, host.b).number}"
        case "abort":
            text = "inject an external abort"
        case "finish":
            text = "KVM_RUN with immediate_exit"
        case _:
            text = name
    if host.error:
        text += f" (failed: {errno.errorcode.get(host.error, host.error)})"
    return text if host.asked else f"{text} (by the agent)"


def user_sentence(user: Switch) -> str:
    """Describe why KVM_RUN returned."""
    reason = exits.KVM_EXIT_REASONS.get(user.code, f"exit reason {user.code}")
    if reason == "MMIO":
        size, write = user.mmio_size, bool(user.mmio_len & MMIO_WRITE)
        data = f" of {user.mmio_bytes:#x}" if write else ""
        return f"KVM_RUN returned MMIO: {'write' if write else 'read'}{data}, {size} bytes at {user.mmio_addr:#x}"
    if reason == "DEBUG" and not user.error:
        return f"KVM_RUN returned DEBUG: syndrome {user.mmio_addr:#x}, address {user.mmio_data:#x}"
    return f"KVM_RUN returned {reason}" + (f" ({errno.errorcode.get(user.error, user.error)})" if user.error else "")


def host_sentences(round_: Round) -> tuple[str, ...]:
    """Describe the host's part of a round: returns to userspace, userspace's actions, and registers that KVM wrote."""
    said = [user_sentence(user) for user in round_.userspace_exits]
    said += map(host_sentence, round_.host_actions)
    if round_.exit is not None and not round_.reset:
        ours = round_.host_wrote
        before, after = round_.exit.values, round_.entry.values
        wrote = [f"{NAMES[i]} = {v:#x}" for i, v in enumerate(after) if v != before[i] and i not in ours]
        if wrote:
            said.append(f"KVM wrote {', '.join(wrote)}")
    return tuple(said)


def sites(scenario: Scenario, trace: Trace, level: str, judged: Iterable[ExplainedDivergence]) -> tuple[Site, ...]:
    """Group divergences by their place in the trace, in the order of the trace."""
    indexed = index_trace(trace)
    rounds = {r.first: r for r in indexed.rounds}
    runs = {index: (entry, exit_) for index, entry, exit_ in indexed.runs}
    # A run of the guest ends with the exit that begins the next round: the run is listed first.
    wanted: dict[tuple[int, bool], list[ExplainedDivergence]] = {}
    for item in judged:
        at = item.divergence.event
        if at not in rounds and at not in runs:
            at = _begin(trace, at)
        is_round = at in rounds and (at not in runs or item.divergence.relation in ROUND_RELATIONS)
        wanted.setdefault((at, is_round), []).append(item)
    return tuple(
        _round_site(scenario, rounds[at], runs.get(at), level, items)
        if is_round
        else _run_site(scenario, at, *runs[at], items)
        for (at, is_round), items in sorted(wanted.items())
    )


def _begin(trace: Trace, at: int) -> int:
    """Return the begin of an event's round: an exit, or the first entry of the vCPU."""
    context = trace.events[at].context
    here = [i for i, event in enumerate(trace.events) if event.context == context]
    exits_before = [i for i in here if i <= at and trace.events[i].kind == EXIT]
    return exits_before[-1] if exits_before else next(i for i in here if trace.events[i].kind == ENTRY)


def _round_site(
    scenario: Scenario, round_: Round, run: tuple[Switch, Switch] | None, level: str, items: list[ExplainedDivergence]
) -> Site:
    prediction = predict(round_, level)
    before = round_.exit.values if round_.exit else None
    host = round_.entry.values
    seen = pending.apply_pending(host, round_.entry.pending)

    def values(name: str) -> tuple[int | None, ...] | None:
        index = INDEX.get("spsr_el1" if name == "spsr_0" else name)
        if index is None:
            return None
        state = prediction.state
        said = prediction.spsr_0 if name == "spsr_0" else state[index] if state else None
        return before[index] if before else None, host[index], said, seen[index]

    rows, sentences = _rows(items, values)
    return Site(
        round_.first,
        place_of(scenario, *run) if run else None,
        round_.exit_class,
        decode(round_.exit) if round_.exit else None,
        pending_names(round_.entry.pending),
        round_.action,
        prediction,
        host_sentences(round_),
        ROUND_COLUMNS,
        rows,
        sentences,
    )


def _run_site(scenario: Scenario, event: int, entry: Switch, exit_: Switch, items: list[ExplainedDivergence]) -> Site:
    found = {j.divergence.register: j.divergence for j in items}

    def values(name: str) -> tuple[int | None, ...] | None:
        expected, observed = found[name].expected, found[name].observed
        if isinstance(expected, str) or isinstance(observed, str):
            return None
        return entry.get(name) if name in INDEX else None, expected, observed

    rows, sentences = _rows(items, values)
    pending = pending_names(entry.pending)
    exit_class = exits.exit_class(exit_.code, exit_.esr)
    where, why = place_of(scenario, entry, exit_), decode(exit_)
    return Site(event, where, exit_class, why, pending, None, None, (), RUN_COLUMNS, rows, sentences)


def _rows(
    items: list[ExplainedDivergence], values: Callable[[str], tuple[int | None, ...] | None]
) -> tuple[tuple[Row, ...], tuple[ExplainedDivergence, ...]]:
    """Split divergences into rows of registers, in the order of the register table, and the others."""
    by_register: dict[str, list[ExplainedDivergence]] = {}
    sentences: list[ExplainedDivergence] = []
    for item in items:
        divergence = item.divergence
        name = divergence.register.removeprefix("dirty.")
        # save.pc is about KVM's flag; the values of the others are in no column.
        shown = divergence.relation not in WITHOUT_COLUMN or name != divergence.register
        if shown and values(name) is not None:
            by_register.setdefault(name, []).append(item)
        else:
            sentences.append(item)
    order = sorted(by_register, key=lambda name: INDEX.get(name, len(NAMES)))
    return tuple(Row(name, values(name) or (), tuple(by_register[name])) for name in order), tuple(sentences)
