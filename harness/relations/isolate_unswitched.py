# SPDX-License-Identifier: Apache-2.0
"""Check that registers that KVM does not context-switch leak no values between VMs.

KVM may leave the CPU's own interface to a VM without an in-kernel GIC, and IMPLEMENTATION DEFINED registers to any VM.
The value that a guest reads there first is not specified.  Until it writes, it must read the same value again: another
value comes from another VM (relation ``isolate``).  Source: Arm ARM, glossary, UNKNOWN: such a value holds nothing that
its reader has no right to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.arch import a64, exceptions, sysregs
from harness.arch.registers import MASK64
from harness.gic.departures import NONE, SHARED_INTERFACE
from harness.guest.instruction_fetch import word_at
from harness.guest.predict_run import PredictedRun
from harness.guest.stage1 import is_on
from harness.layout import CONTEXTS, GIC_MACHINE, PROTECTED_MACHINE
from harness.protocol import OP_RESET
from harness.relations import shared_interface
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.gic_list_registers import view
from harness.scenario.code_layout import Code
from harness.trace.events import USER, Host, Switch, Trace

PLAIN = frozenset({"mrs", "msr", "mov", "movz", "movk"})
"""Instructions that continue at the next one, if they do not trap."""
WAITS = frozenset({a64.ISB, a64.WFI, a64.WFE})


class Use(NamedTuple):
    """The use of such a register by a run.

    ``value``: the value read, None for a write (a write may change another register); ``written``: the value written,
    if it is known.
    """

    name: str
    value: int | None
    written: int | None = None


def reads_any(code: Code) -> bool:
    """Whether some instruction reads such a register."""
    return any(_keeper(word) for word in code.values() if a64.mnemonic(word) == "mrs")


def _keeper(word: int) -> str:
    """Return the name of the register that an MRS or MSR accesses, if it is one of these."""
    if a64.mnemonic(word) not in ("mrs", "msr"):
        return ""
    row = sysregs.BY_ENCODING.get(a64.system_register(word))
    return row.name if row is not None and row.name in sysregs.KEEPERS else ""


def uses(run: PredictedRun, code: Mapping[int, int]) -> tuple[Use, ...] | None:
    """Return the uses of such registers by a run, in order; None: it did not run straight from its entry to its exit.

    A read is left out if its destination register was written again.
    """
    at, end = run.seen[exceptions.PC], run.target
    if at == end:
        return ()
    if (
        is_on(run.seen)
        or run.seen[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T
        or not at < end <= at + 4 * len(code)
    ):
        return None
    held: dict[int, int] = {}  # which of ``found`` is in a general-purpose register
    changed: set[int] = set()
    found: list[Use | None] = []
    for address in range(at, end, 4):
        word = word_at(code, address)
        mnemonic = a64.mnemonic(word) if word is not None else ""
        if word is None or (mnemonic not in PLAIN and word not in WAITS):
            return None
        name, target = _keeper(word), word & 31
        if name and mnemonic == "msr":
            found.append(Use(name, None, 0 if target == a64.ZERO else None if target in changed else run.seen[target]))
        elif mnemonic in PLAIN - {"msr"}:
            changed.add(target)
            if target in held:
                found[held.pop(target)] = None
            if name and target != a64.ZERO:
                held[target] = len(found)
                found.append(Use(name, run.exit.values[target]))
    return tuple(use for use in found if use is not None)


def _last_reads(done: tuple[Use, ...]) -> Iterator[tuple[str, int]]:
    """Yield the values that a run read, without registers that it wrote later."""
    for position, (name, value, _) in enumerate(done):
        if value is not None and not any(use.name == name and use.value is None for use in done[position:]):
            yield name, value


def _writes_shared(code: Code) -> bool:
    """Whether some instruction writes a register of the CPU's own interface."""
    return any(_keeper(word) in shared_interface.NAMES for word in code.values() if a64.mnemonic(word) == "msr")


def compare_unswitched_registers(
    trace: Trace, followed: Mapping[int, PredictedRun], code: Code, departures: frozenset[str] = NONE
) -> Iterator[Divergence | Unchecked]:
    """Yield the registers that a guest reads as another value after another VM has run, without a write of its own.

    ``departures`` are those of :mod:`harness.gic.departures` that the kernel has.
    """
    if SHARED_INTERFACE in departures:
        yield from _compare_shared(trace, followed, code)
    last: dict[tuple[int, str], tuple[int, int]] = {}  # vCPU and name: what it read, and how often others had run
    runs = dict.fromkeys((context.machine for context in CONTEXTS), 0)

    def forget(context: int) -> None:
        for key in [key for key in last if key[0] == context]:
            del last[key]

    for index, event in enumerate(trace.events):
        context = event.context
        machine = CONTEXTS[context].machine
        run = followed.get(index)
        if isinstance(event, Host):
            if event.op == OP_RESET:
                forget(context)
            continue
        if run is None:
            continue
        runs[machine] += 1
        if machine in (PROTECTED_MACHINE, GIC_MACHINE):
            continue
        done = uses(run, code)
        others = sum(runs.values()) - runs[machine]
        if done is None or any(use.value is None for use in done):
            forget(context)
        for name, value in _last_reads(done or ()):
            if SHARED_INTERFACE in departures and name in shared_interface.NAMES:
                continue
            before, then = last.get((context, name), (value, others))
            last[context, name] = value, others
            if before != value and then != others:
                yield Divergence("isolate", name, before, value, run.exit.exit_class, index, run.entry.step)


def _compare_shared(trace: Trace, followed: Mapping[int, PredictedRun], code: Code) -> Iterator[Divergence | Unchecked]:
    """Yield the registers that VMs without a GIC read with another value than the interface that they share holds."""
    interface, writes = shared_interface.SharedInterface(), _writes_shared(code)
    vmcr = {lists.event: view(lists.values).vmcr for lists in trace.lists}
    for index, event in enumerate(trace.events):
        if CONTEXTS[event.context].machine == GIC_MACHINE:
            if event.kind == USER and index in vmcr:
                interface.loaded(vmcr[index])
            elif isinstance(event, Switch):
                interface.forget()
            continue
        run = followed.get(index)
        if run is None:
            continue
        done = uses(run, code)
        if done is None and writes:
            interface.forget()
        for name, value, written in done or ():
            if name not in shared_interface.NAMES:
                continue
            if value is None:
                interface.write(name, written)
                continue
            held, known = interface.read(name)
            if (held ^ value) & known:
                wanted = held & known | value & ~known
                yield Divergence("isolate", name, wanted, value, run.exit.exit_class, index, run.entry.step)
            elif known != MASK64:
                yield Unchecked(f"isolate.{name}", "what another VM may have left there", index)
            interface.observe(name, value)
