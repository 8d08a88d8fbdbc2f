# SPDX-License-Identifier: Apache-2.0
"""Predict a run of the guest, from an entry to the next exit, once for all relations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from harness.arch import exceptions
from harness.arch.cpu_models import Cpu
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.guest import el2_errata, el2_refusals
from harness.guest.context import GuestContext
from harness.guest.debug_stops import class_of, steps_between
from harness.guest.debugger import Debugger
from harness.guest.instruction_fetch import (
    as_code,
    fetched,
    is_call,
    may_be_call,
    may_be_handled_at_el2,
    why_fetch_unknown,
)
from harness.guest.memory import Memory, RunMemory
from harness.guest.mmu import CODE_CHANGED, UNALIGNED_DEVICE, half_stored
from harness.guest.stage1 import is_on
from harness.guest.stage1_faults import walk_level
from harness.guest.syndrome import accesses, touch
from harness.guest.walk import MAX_WALK, Goal, GuestPath, comes_back, walk
from harness.layout import VECTORS
from harness.trace import pending
from harness.trace.events import Switch
from harness.trace.rounds import GuestRun

RUNS_ON: Final = "an interrupt in a guest that runs on by itself"
ANSWERED: Final = "a call that EL2 may have handled without an exit: the guest may have executed it more than once"
IN_AARCH32: Final = "a guest in AArch32 state"
STEP_SHOWS: Final = "SPSR_EL1.SS of an exception that the guest took while userspace stepped it"
LATER_PASS: Final = "a load or store at which the guest traps when it executes it again, with a GIC"
RACE: Final = "which interrupt came first, the guest's or the host's"


class PredictedRun(NamedTuple):
    """What the guest's code does between ``entry`` and ``exit``, by the architecture."""

    event: int
    """The index of the exit in the trace."""
    entry: Switch
    exit: Switch
    seen: State
    """The guest's state after the entry."""
    call: bool
    """Whether an HVC ended the run, whose preferred return address is that of the next instruction."""
    target: int
    """The address of the instruction that ended the run."""
    path: GuestPath
    """How the guest reached that instruction; its state is None where that is not determined."""
    debugger: Debugger | None = None
    """How userspace debugs the guest, if it does."""
    walk_level: int | None = None
    """The level of the table entry in no memory slot at which a stage-1 walk ended the run."""
    refused: tuple[str, ...] = ()
    """The accesses that EL2 rejected on the path (:mod:`harness.guest.el2_refusals`)."""


def undetermined_bits(index: int, path: GuestPath, stepped: bool, cpu: Cpu) -> tuple[int, str]:
    """Return the bits of a register that the CPU does not keep or that are unknown after a path, and why.

    ``stepped``: userspace stepped the guest.
    """
    mask, reason = cpu.mask(index)
    bits, why = path.unknown.get(index, (0, reason))
    return (mask | bits | exceptions.SS, STEP_SHOWS) if stepped and index == exceptions.SPSR else (mask | bits, why)


def _agrees(path: GuestPath, run: GuestRun, call: bool, cpu: Cpu) -> bool:
    """Whether a path leads to the observed state, undetermined bits apart; ``call``: its PC is after an HVC."""
    if path.state is None:
        return False
    observed, stepped = run.exit.values, run.entry.stepped
    left = (
        (*path.state[: exceptions.PC], observed[exceptions.PC], *path.state[exceptions.PC + 1 :])
        if call
        else path.state
    )
    return left == observed or not any(
        (want ^ got) & ~undetermined_bits(i, path, stepped, cpu)[0]
        for i, (want, got) in enumerate(zip(left, observed, strict=True))
        if want != got
    )


def _unless_refused(
    path: GuestPath,
    follow: Callable[[Mapping[int, str]], GuestPath],
    agrees: Callable[[GuestPath], bool],
    code: Mapping[int, int],
    known: Mapping[int, str],
) -> tuple[GuestPath, tuple[str, ...]]:
    """Return the path of a protected guest that leads to the observed state, and the accesses that EL2 rejected on it.

    ``path`` is that with those ``known`` beforehand; it is returned if no rejections lead to the observed state.
    ``follow`` returns the path with some accesses rejected.
    """
    if not path.certain or agrees(path):
        return path, ()
    others = (word for word in code.values() if word not in known)
    found = el2_refusals.find_refusals(others, lambda some: follow({**known, **some}), agrees)
    if found is None:
        return path, ()
    refusals, otherwise = found
    return otherwise, tuple(el2_refusals.name(word, how) for word, how in refusals.items())


def _unless_later_pass(path: GuestPath, goal: Goal, follow: Callable[[Goal], GuestPath], on: GuestContext) -> GuestPath:
    """Return the path to the pass over a load or store at which it trapped; ``path`` is that to the first one.

    An access to RAM does not trap.  A guest that branches back to it may trap there with another address.
    ``goal`` has the address of the access that trapped (FAR_EL2).  ``follow`` walks to a goal.
    """
    if path.state is None or goal.accessed is None:
        return path
    word = fetched(path.state, goal.address, on)
    if word is None or accesses(path.state, word, goal.accessed):
        return path
    if on.gic is not None:  # a second walk would use its interface twice
        return GuestPath(None, why=LATER_PASS, certain=False, stopped=goal.address)
    later = follow(goal)
    return path if later.state is None else later


def _stopped_store(path: GuestPath, word: int | None, memory: Memory) -> None:
    """Enter that a store at which a watchpoint stopped may have been made in part (Arm ARM D2.10, B2.2)."""
    if path.state is None or word is None or is_on(path.state) or (access := touch(path.state, word)) is None:
        memory.mark_unknown()
    elif access.is_store:
        homes = (memory.home(access.address + more & -8) for more in (0, 8, 15))
        memory.stored({home: None for home in homes if home is not None})


def _find_call(seen: State, exit_: Switch, context: GuestContext) -> tuple[bool, str]:
    """Return whether an instruction that trapped was an HVC, and why that is unknown; an empty text where it is known.

    ``seen`` is the state in which the run began.
    """
    protected, before = as_code(context.code).protected, (exit_.values[exceptions.PC] - 4) & MASK64
    why = why_fetch_unknown(exit_.values, before, context)
    return is_call(seen, fetched(exit_.values, before, context), exit_, protected), why


def _undetermined(run: GuestRun, seen: State, context: GuestContext, hcr: int, why: str) -> GuestPath | None:
    """Return the path of a run that cannot be followed, with the reason; None: it can be.

    ``hcr`` has the virtual interrupts that are pending.  ``why``: it is unknown whether an HVC ended the run.
    """
    pstate, gic = seen[exceptions.PSTATE], context.gic
    if context.memory.code_changed and as_code(context.code).protected:
        return GuestPath(None, why=CODE_CHANGED, certain=False)
    if why:
        return GuestPath(None, why=why, certain=False)
    if pstate & exceptions.AARCH32:
        return GuestPath(None, why=IN_AARCH32, certain=False)
    if (gic is None and not hcr & exceptions.HCR_VIRTUAL) or run.exit.trapped:
        return None  # no interrupt is pending, or none ended the run
    if (hcr & exceptions.HCR_VIRTUAL and exceptions.unmasked(pstate, hcr)) or (
        gic is not None and not gic.quiet(pstate)
    ):
        return GuestPath(None, why=RACE, certain=False, stopped=seen[exceptions.PC])
    return None


def _follow(
    run: GuestRun, seen: State, context: GuestContext, hcr: int, target: int
) -> tuple[GuestPath, tuple[str, ...]]:
    """Return the guest's path from ``seen`` to ``target``, where the run ended, and the accesses that EL2 rejected.

    Where the architecture or EL2 leaves a choice, it is the path that leads to the observed state, if one does.
    """
    _, entry, exit_ = run
    code, cpu, debugger, trapped = context.code, context.cpu, context.debugger, exit_.trapped
    protected, call = as_code(code).protected, target != exit_.values[exceptions.PC]
    # An instruction traps in the mode that it runs in: in another mode, the guest comes back to this address.
    steps, mode = (0, MAX_WALK), exit_.values[exceptions.PSTATE] & exceptions.MODE if trapped else None
    if debugger is not None and debugger.steps and not exit_.forged:
        steps = steps_between(entry, exit_)
    goal = Goal(target, steps, mode)
    known = el2_errata.rejected(code.values(), context.errata) if protected else el2_refusals.NONE
    path = walk(seen, goal, context, hcr, known)
    if path.why == UNALIGNED_DEVICE and path.state is None and context.gic is None:
        # The architecture has an alignment fault there, and QEMU up to 8.2 has none: the observed state proves which of
        # the two it was.  If neither path leads to it, the result stays undetermined.
        made = walk(seen, goal, replace(context, cpu=replace(cpu, aligns_device=False)), hcr, known)
        path = made if _agrees(made, run, call, cpu) else path
    if trapped and class_of(exit_) == "DABT_LOW" and not exit_.forged and not _agrees(path, run, call, cpu):
        there, to = goal._replace(accessed=exit_.far), partial(walk, seen, context=context, hcr=hcr, refusals=known)
        path = _unless_later_pass(path, there, to, context)
    if not trapped and path.state is not None and not _agrees(path, run, call, cpu) and comes_back(path, context):
        # For example a guest whose vector faults takes one exception after the other until the interrupt comes.
        return GuestPath(None, why=RUNS_ON, certain=False), ()
    if protected and context.gic is None:
        agrees = partial(_agrees, run=run, call=call, cpu=cpu)
        return _unless_refused(path, partial(walk, seen, goal, context, hcr), agrees, code, known)
    return path, ()


def _enter_unknown(exit_: Switch, path: GuestPath, target: int, context: GuestContext) -> None:
    """Enter in memory and GIC interface that it is not determined what the guest did on a path without a state."""
    context.memory.mark_unknown()
    # If it was interrupted at this address, it did no more to the interface.
    came_to = exit_.values[exceptions.ELR] if target in VECTORS else target
    if context.gic is not None and path.stopped != came_to:
        context.gic.mark_unknown("the guest's path could not be determined")


def predict_run(run: GuestRun, context: GuestContext) -> PredictedRun:
    """Predict one run of the guest, by executing its code from the entry to where the exit was seen.

    What the guest may have stored is entered in ``context.memory``, and what it did to the interface of its GIC in
    ``context.gic``.  The records are those of :func:`harness.trace.debug_state.undo_debug_state`.
    """
    event, entry, exit_ = run
    memory, gic, debugger = context.memory, context.gic, context.debugger
    seen = pending.apply_pending(entry.values, entry.pending) if entry.pending else entry.values
    observed, trapped, protected = exit_.values, exit_.trapped, as_code(context.code).protected
    call, why = False, ""
    if trapped and may_be_call(seen, exit_, protected):  # most cannot be one: their code is not looked up
        call, why = _find_call(seen, exit_, context)
    if debugger is not None and class_of(exit_) == "HVC64" and not exit_.forged:
        call = True
    target = (observed[exceptions.PC] - 4) & MASK64 if call else observed[exceptions.PC]
    hcr = el2_errata.loaded(entry.hcr, protected, context.errata)
    refusals: tuple[str, ...] = ()
    path = _undetermined(run, seen, context, hcr, why)
    if path is None:
        path, refusals = _follow(run, seen, context, hcr, target)
        state = path.state
        memory.stored(path.stored)
        if gic is not None and state is not None and not _agrees(path, run, call, context.cpu):
            gic.mark_unknown("the guest did otherwise than it should")  # its acknowledges, for example
        if call and state is not None and state[0] != observed[0] and may_be_handled_at_el2(state):
            path = GuestPath(None, why=ANSWERED, certain=False)
    if debugger is not None and class_of(exit_) == "WATCHPT_LOW":
        _stopped_store(path, fetched(seen, target, context), memory)
    level = None
    if path.state is None:
        _enter_unknown(exit_, path, target, context)
    elif trapped and is_on(path.state):
        level = walk_level(seen, path.state, exit_, RunMemory.after(memory, path.stored), context.cpu)
        word = fetched(path.state, target, context)
        memory.stored(half_stored(path.state, word, RunMemory(memory), context.cpu) if word is not None else {})
    return PredictedRun(event, entry, exit_, seen, call, target, path, debugger, level, refusals)
