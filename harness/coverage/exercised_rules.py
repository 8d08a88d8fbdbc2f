# SPDX-License-Identifier: Apache-2.0
"""Determine which rules of the host's contract a run exercised: those that applied and were compared completely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness.arch import exceptions, exits, sysregs
from harness.arch.exits import DABT
from harness.arch.registers import INDEX
from harness.arch.sysregs import ExpectedResult
from harness.coverage.exercised_steps import executed, is_whole
from harness.findings.checked import Comparison
from harness.gic.registers import place
from harness.guest.debug_stops import STOPS
from harness.layout import GICD
from harness.protocol import LINES, OP_ABORT, OP_FINISH, OP_GIC_LINE, OP_IRQ_LINE, OP_RESET, OP_SERROR
from harness.relations import contract, guest_debug
from harness.relations.contract_rules import BY_NAME, RULES, SIZES, Rule, register_rule
from harness.relations.donated_memory import host_writes_to_donated_memory
from harness.relations.gic import PPI, SOME_UNKNOWN, line_fails
from harness.relations.gic_list_registers import STATE, view
from harness.relations.host import expected_entry_states
from harness.relations.memory_slots import may_succeed
from harness.relations.mmio import is_mmio, mmio_exit_of
from harness.relations.userspace_actions import orders_of
from harness.scenario import memory_slots
from harness.scenario.code_layout import placed
from harness.scenario.scenario import Scenario, Step
from harness.trace import psci
from harness.trace.events import ENTRY, USER, Host, Switch
from harness.trace.indexed import IndexedTrace
from harness.trace.rounds import IN_KERNEL, Round
from harness.trace.slot_timeline import OPS

_RESET = tuple(rule.name.removeprefix("reset.") for rule in RULES if rule.name.startswith("reset."))
_READ = "read from "
"""Prefix of the reason of a run that read a register which may hold any value: that is the rule itself."""


def exercised_rules(scenario: Scenario, indexed: IndexedTrace, compared: Iterable[Comparison]) -> frozenset[str]:
    """Return the names of exercised :data:`harness.relations.contract_rules.RULES`; ``compared``: all comparisons."""
    left_out: dict[tuple[str, int], list[str]] = {}
    for one in compared:
        reasons = left_out.setdefault((one.relation, one.event), [])
        if not is_whole(one) and one.left_out != SOME_UNKNOWN:  # the bits that are known were compared
            reasons.append(one.left_out)
    found: set[str] = set()
    for round_ in indexed.rounds:
        if left_out.get(("host", round_.first)) == []:
            found.update(_turn(round_))
    steps = {step.address: scenario.steps[step.step] for step in placed(scenario)}
    for index, entry, exit_ in indexed.runs:
        in_run = left_out.get(("switch", index))
        if in_run is not None and all(reason.startswith(_READ) for reason in in_run):
            found.update(_run(entry, exit_, steps, gic=indexed.slots.environment(index, entry.context).gic))
    found.update(_slots(indexed))
    if any(True for _ in host_writes_to_donated_memory(indexed)):
        found.add("protected.write")
    for shown in indexed.trace.lists:
        kind = indexed.events[shown.event].kind
        if kind in (ENTRY, USER) and any(lr & STATE for lr in view(shown.values).lr):
            found.add("gic.list.entry" if kind == ENTRY else "gic.list.user")
    return frozenset(found)


def rules_at(scenario: Scenario, indexed: IndexedTrace, event: int, register: str) -> tuple[Rule, ...]:
    """Return the rules about a register of the turn of the host, or else of the guest's run, that an event is of."""
    found: list[str] = []
    for round_ in indexed.rounds:
        if round_.first == event:
            written = INDEX.get(register) in round_.host_wrote
            found += [name for name in _turn(round_) if name != "host.set" or written]
    steps = {step.address: scenario.steps[step.step] for step in placed(scenario)}
    for index, entry, exit_ in indexed.runs:
        if index == event and not found:
            found += _run(entry, exit_, steps, gic=indexed.slots.environment(index, entry.context).gic)
    about = (name for name in found if not name.startswith("reset.") or name == f"reset.{register}")
    return tuple(BY_NAME[name] for name in dict.fromkeys(about) if name in BY_NAME)


def _turn(round_: Round) -> Iterator[str]:
    """Yield the rules of one round of the host, all of which were compared."""
    yield from _userspace(round_)
    exit_ = round_.exit
    if round_.reset:
        if not any(host.op in (OP_ABORT, OP_SERROR) for host in round_.host_actions):
            yield from (f"reset.{name}" for name in _RESET if INDEX[name] not in round_.host_wrote)
    elif exit_ is not None and not exit_.forged:
        yield from _exit(round_, exit_)


def _userspace(round_: Round) -> Iterator[str]:
    """Yield the rules of userspace's actions."""
    exit_ = round_.exit
    done = [host for host in round_.host_actions if not host.error]
    ops = {host.op for host in done}
    if round_.host_wrote:
        yield "host.set"
    if OP_ABORT in ops and not round_.reset:
        yield "host.abort"
    if OP_SERROR in ops and not round_.reset:
        if all(state.hcr & exceptions.HCR_VSE for state in expected_entry_states(round_)):
            yield "host.serror.pending"
        elif OP_ABORT not in ops and all(order.serror_at_once for order in orders_of(round_)):
            yield "host.serror.taken"
    if OP_FINISH in ops and mmio_exit_of(round_) is not None and OP_RESET not in ops:
        yield "host.finish"
    for host in done:
        if host.op == OP_IRQ_LINE:
            yield "host.line.irq" if host.a == LINES["irq"] else "host.line.fiq"
    if (
        OP_IRQ_LINE not in ops
        and not round_.reset
        and exit_ is not None
        and exit_.hcr & (exceptions.HCR_VI | exceptions.HCR_VF)
    ):
        yield "host.line.kept"
    for host in round_.host_actions:
        if host.op == OP_GIC_LINE and (fails := line_fails(host, round_.world.gic)) is not None:
            inputs = "spi" if host.a < PPI else "ppi"
            yield f"gic.line.{('none' if round_.world.gic else 'without') if fails else inputs}"


def _exit(round_: Round, exit_: Switch) -> Iterator[str]:
    """Yield the rules of the exit that a round began with."""
    kind = round_.exit_class
    if (exit_.debugged or round_.entry.debugged) and guest_debug.begins(round_) is not None:
        yield "debug.step_begins"
    if kind == "HVC64" and 0 not in round_.host_wrote:
        yield from _call(exit_, round_.world.vcpus)
    elif kind == "SMC64" and 0 not in round_.host_wrote:
        yield "smc.immediate" if exit_.esr & 0xFFFF else "smc.call"
    elif kind in ("WFX", "IRQ"):
        yield kind.lower()
    elif kind == "SYS64":
        access = contract.system_access(exit_.esr, round_.world.gic)
        if access.row is None:
            yield "sysreg.unknown"
        elif not access.is_read or access.rt not in round_.host_wrote:
            gic = round_.world.gic and access.row.gic is not None
            yield register_rule(access.row.name, is_read=access.is_read, gic=gic)
    elif kind in ("IABT_LOW", "DABT_LOW"):
        yield from _abort(round_, exit_, kind)
    elif kind in STOPS and exit_.debugged:
        yield f"debug.{kind.lower()}"


def _call(exit_: Switch, vcpus: int) -> Iterator[str]:
    """Yield the rules of a call that traps; those of its arguments, too."""
    function = exits.SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF)
    if function is None:
        yield "call.unknown"
        return
    name, status = function.name, contract.call_status(exit_, vcpus) or frozenset()
    yield f"call.{name}"
    if name.startswith("PSCI_CPU_ON"):
        alone = "already_on" if psci.ALREADY_ON in status else "invalid"
        yield f"call.cpu_on.{alone if vcpus == 1 else 'other'}"
    elif name.startswith("PSCI_AFFINITY_INFO") and vcpus == 1:
        yield f"call.affinity_info.{'on' if psci.SUCCESS in status else 'invalid'}"
    elif name.startswith(("PSCI_SYSTEM_RESET2", "PSCI_SYSTEM_OFF2")):
        which = "reset2" if "RESET2" in name else "off2"
        yield f"call.{which}.{'known' if psci.INTERNAL_FAILURE in status else 'invalid'}"
    elif name == "PSCI_FEATURES":
        if psci.HIBERNATE_OFF in status:
            yield "call.features.off2"
        elif len(status) == 2:
            yield "call.features.may"
        else:
            yield "call.features.must" if psci.SUCCESS in status else "call.features.none"


def _abort(round_: Round, exit_: Switch, kind: str) -> Iterator[str]:
    """Yield the rules of an access or a fetch that faulted at stage 2."""
    world = round_.world
    slot = world.slot(exit_.page)
    if exit_.page >> world.ipa_bits:
        return
    if world.in_kernel(exit_.address):
        if round_.action.outcome == IN_KERNEL and DABT["ISV"].get(exit_.esr):
            yield from _interrupt_controller(exit_)
    elif contract.is_walk(exit_):
        if slot is None:
            yield "abort.walk"
    elif kind == "IABT_LOW":
        if exit_.far % 4:
            return  # the emulator's: a PC alignment fault comes before (Arm ARM AArch64.CheckPCAlignment)
        yield "abort.fetch" if slot is None else "abort.mapped.fetch"
    elif not is_mmio(exit_, world):
        yield "abort.mapped.data"
    elif not DABT["ISV"].get(exit_.esr):
        if not DABT["CM"].get(exit_.esr):
            yield f"abort.no_syndrome{'.protected' if world.protected else ''}"
    elif mmio_exit_of(round_) is not None and not any(host.op == OP_ABORT for host in round_.host_actions):
        yield from _mmio(round_, exit_, read_only=slot is not None)


def _mmio(round_: Round, exit_: Switch, *, read_only: bool) -> Iterator[str]:
    """Yield the rules of an MMIO access that KVM reported to userspace."""
    log_size, target = DABT["SAS"].get(exit_.esr), DABT["SRT"].get(exit_.esr)
    is_store, size = DABT["WNR"].get(exit_.esr), SIZES[log_size]
    if log_size and exceptions.is_big_endian(exit_.values):
        yield f"mmio.{'store' if is_store else 'load'}.big_endian"
    if is_store:
        yield f"mmio.store.{size}"
        if read_only:
            yield "mmio.store.read_only"
    elif target == 31:
        yield "mmio.load.xzr"
    elif target not in round_.host_wrote:
        if DABT["SSE"].get(exit_.esr):
            yield f"mmio.load.signed_{size}_{64 if DABT['SF'].get(exit_.esr) else 32}"
        else:
            yield f"mmio.load.{size}"


def _interrupt_controller(exit_: Switch) -> Iterator[str]:
    """Yield the rules of an access to a register of the distributor or a redistributor."""
    yield "gic.access"
    where = place(exit_.address, 1 << DABT["SAS"].get(exit_.esr))
    if where.first < 0:
        return
    block = "gicd" if exit_.address in GICD else "gicr"
    yield f"{block}.{'write' if DABT['WNR'].get(exit_.esr) else 'read'}.{where.bank.name if where.bank else 'ctlr'}"


def _run(entry: Switch, exit_: Switch, steps: Mapping[int, Step], *, gic: bool) -> Iterator[str]:
    """Yield the rules of accesses to system registers that did not trap: the CPU must follow them."""
    if entry.values[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T:
        return
    texts = {address: " ".join((step.kind, *map(str, step.args))) for address, step in steps.items()}
    for text in executed(entry, exit_, texts):
        keyword, *args = text.split()
        if keyword in ("mrs", "msr"):
            row = sysregs.BY_NAME[args[keyword == "mrs"]]
            own = gic and row.gic is not None
            if own or (row.read if keyword == "mrs" else row.write) is not ExpectedResult.EITHER:
                yield register_rule(row.name, is_read=keyword == "mrs", gic=own)


def _slots(indexed: IndexedTrace) -> Iterator[str]:
    """Yield the rules of requests for memory slots, each compared by :mod:`harness.relations.memory_slots`."""
    timeline = indexed.slots
    for index, event in enumerate(indexed.events):
        if isinstance(event, Host) and event.op in OPS:
            there, environment = timeline.slots(index, event.context), timeline.environment(index, event.context)
            if rule := _slot(memory_slots.unpack(event.a, event.b), there, environment.protected):
                yield f"slot.{rule}"


def _slot(slot: memory_slots.Slot, there: Mapping[int, memory_slots.Slot], protected: bool) -> str:
    old = there.get(slot.number)
    if protected:
        return "protected.flags" if memory_slots.KINDS[slot.kind] else ""
    if not slot.size:
        return "deleted" if old is not None else ""
    if slot.end > memory_slots.IPA_LIMIT:
        return "beyond"
    if memory_slots.collides(slot, there.values()):
        return "overlaps"
    if old is None:
        return "new"
    if old.size != slot.size:
        return "resized"
    if may_succeed(slot, there) != frozenset({True}):
        return ""
    return "moved" if old.base != slot.base else "flags" if old.kind != slot.kind else ""
