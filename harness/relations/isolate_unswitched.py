# SPDX-License-Identifier: Apache-2.0
"""Registers that the CPU keeps and KVM does not switch must not carry anything from one VM to another.

To a VM without an in-kernel GIC KVM may leave the CPU's own interface, and to any VM IMPLEMENTATION DEFINED registers.
Nobody says what a guest reads there first; but what it has read it reads again, until it writes.  Otherwise another VM
speaks to it (relation ``isolate``).  Source: Arm ARM, glossary, UNKNOWN: such a value holds nothing that its reader has
no right to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.arch import a64, exceptions, sysregs
from harness.guest.instruction_fetch import word_at
from harness.guest.predict_run import PredictedRun
from harness.guest.stage1 import is_on
from harness.layout import CONTEXTS, GIC_MACHINE, PROTECTED_MACHINE
from harness.protocol import OP_RESET
from harness.relations.divergence import Divergence
from harness.scenario.code_layout import Code
from harness.trace.events import Host, Trace

PLAIN = frozenset({"mrs", "msr", "mov", "movz", "movk"})
"""Instructions that go on to the next one, if they do not trap."""
WAITS = frozenset({a64.ISB, a64.WFI, a64.WFE})


class Use(NamedTuple):
    """What a run did with such a register; ``value``: what it read, None where it wrote (one may show in another)."""

    name: str
    value: int | None


def reads_any(code: Code) -> bool:
    """Whether some instruction reads such a register."""
    return any(_keeper(word) for word in code.values() if a64.mnemonic(word) == "mrs")


def _keeper(word: int) -> str:
    """Return the name of the register that an MRS or MSR is to, if it is one of these."""
    if a64.mnemonic(word) not in ("mrs", "msr"):
        return ""
    row = sysregs.BY_ENCODING.get(a64.system_register(word))
    return row.name if row is not None and row.name in sysregs.KEEPERS else ""


def uses(run: PredictedRun, code: Mapping[int, int]) -> tuple[Use, ...] | None:
    """Return what a run did with such registers; None: it did not go straight from its entry to its exit."""
    at, end = run.seen[exceptions.PC], run.target
    if at == end:
        return ()
    if (
        is_on(run.seen)
        or run.seen[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T
        or not at < end <= at + 4 * len(code)
    ):
        return None
    held: dict[int, str] = {}
    found: list[Use] = []
    for address in range(at, end, 4):
        word = word_at(code, address)
        mnemonic = a64.mnemonic(word) if word is not None else ""
        if word is None or (mnemonic not in PLAIN and word not in WAITS):
            return None
        name, target = _keeper(word), word & 31
        if name and mnemonic == "msr":
            found.append(Use(name, None))
            held = {register: kept for register, kept in held.items() if kept != name}
        elif mnemonic in PLAIN - {"msr"}:
            held.pop(target, None)
            if name and target != 31:
                held[target] = name
    return (*found, *(Use(name, run.exit.values[register]) for register, name in held.items()))


def compare_unswitched_registers(
    trace: Trace, followed: Mapping[int, PredictedRun], code: Code
) -> Iterator[Divergence]:
    """Yield what a guest reads otherwise than before, though it wrote nothing there, after another VM has run."""
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
        if done is None or any(value is None for _, value in done):
            forget(context)
        for name, value in done or ():
            if value is None:
                continue
            before, then = last.get((context, name), (value, others))
            last[context, name] = value, others
            if before != value and then != others:
                yield Divergence("isolate", name, before, value, run.exit.exit_class, index, run.entry.step)
