# SPDX-License-Identifier: Apache-2.0
"""Predict a run of the guest, from an entry to the next exit, once for all relations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

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

RUNS_ON = "an interrupt in a guest that runs on by itself"
ANSWERED = "a call that EL2 may have handled without an exit: the guest may have executed it more than once"
IN_AARCH32 = "a guest in AArch32 state"
STEP_SHOWS = "SPSR_EL1.SS of an exception that the guest took while userspace stepped it"
LATER_PASS = "a load or store at which the guest traps when it executes it again, with a GIC"
RACE = "which interrupt came first, the guest's or the host's"


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


def _unless_unaligned(
    path: GuestPath, follow: Callable[[GuestContext], GuestPath], agrees: Callable[[GuestPath], bool], on: GuestContext
) -> GuestPath:
    """Return the path on which an unaligned access to Device memory was made, if it leads to the observed state.

    The architecture has an alignment fault there, and QEMU up to 8.2 has none: the observed state proves which of the
    two it was.  If neither path leads to it, the result stays undetermined.  ``follow`` walks on a CPU.
    """
    if path.state is not None or path.why != UNALIGNED_DEVICE or on.gic is not None:
        return path
    made = follow(replace(on, cpu=replace(on.cpu, aligns_device=False)))
    return made if agrees(made) else path


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


def predict_run(run: GuestRun, context: GuestContext) -> PredictedRun:
    """Predict one run of the guest, by executing its code from the entry to where the exit was seen.

    What the guest may have stored is entered in ``context.memory``, and what it did to the interface of its GIC in
    ``context.gic``.  The records are those of :func:`harness.trace.debug_state.undo_debug_state`.
    """
    event, entry, exit_ = run
    code, cpu, memory, gic, debugger = context.code, context.cpu, context.memory, context.gic, context.debugger
    seen = pending.apply_pending(entry.values, entry.pending) if entry.pending else entry.values
    observed = exit_.values
    call_address = (observed[exceptions.PC] - 4) & MASK64
    trapped, protected = exit_.trapped, as_code(code).protected
    call = trapped and may_be_call(seen, exit_, protected)  # most cannot: their code is not looked up
    why = why_fetch_unknown(observed, call_address, context) if call else ""
    call = call and is_call(seen, fetched(observed, call_address, context), exit_, protected)
    call = call or (debugger is not None and class_of(exit_) == "HVC64" and not exit_.forged)
    target = call_address if call else observed[exceptions.PC]
    pstate = seen[exceptions.PSTATE]
    hcr = el2_errata.loaded(entry.hcr, protected, context.errata)
    refusals: tuple[str, ...] = ()
    if memory.code_changed and protected:
        path = GuestPath(None, why=CODE_CHANGED, certain=False)
    elif why:  # was there an HVC?
        path = GuestPath(None, why=why, certain=False)
    elif pstate & exceptions.AARCH32:
        path = GuestPath(None, why=IN_AARCH32, certain=False)
    elif not trapped and (
        (hcr & exceptions.HCR_VIRTUAL and exceptions.unmasked(pstate, hcr))
        or (gic is not None and not gic.quiet(pstate))
    ):
        path = GuestPath(None, why=RACE, certain=False, stopped=seen[exceptions.PC])
    else:
        # An instruction traps in the mode that it runs in: in another mode, the guest comes back to this address.
        steps, mode = (0, MAX_WALK), observed[exceptions.PSTATE] & exceptions.MODE if trapped else None
        if debugger is not None and debugger.steps and not exit_.forged:
            steps = steps_between(entry, exit_)
        goal = Goal(target, steps, mode)
        known = el2_errata.rejected(code.values(), context.errata) if protected else el2_refusals.NONE
        path = walk(seen, goal, context, hcr, known)
        agrees = partial(_agrees, run=run, call=call, cpu=cpu)
        path = _unless_unaligned(path, partial(walk, seen, goal, hcr=hcr, refusals=known), agrees, context)
        if trapped and class_of(exit_) == "DABT_LOW" and not exit_.forged and not agrees(path):
            there, to = goal._replace(accessed=exit_.far), partial(walk, seen, context=context, hcr=hcr, refusals=known)
            path = _unless_later_pass(path, there, to, context)
        if not trapped and path.state is not None and not _agrees(path, run, call, cpu) and comes_back(path, context):
            # For example a guest whose vector faults takes one exception after the other until the interrupt comes.
            path = GuestPath(None, why=RUNS_ON, certain=False)
        elif protected and gic is None:
            follow = partial(walk, seen, goal, context, hcr)
            path, refusals = _unless_refused(path, follow, agrees, code, known)
        memory.stored(path.stored)
        if gic is not None and path.state is not None and not _agrees(path, run, call, cpu):
            gic.mark_unknown("the guest did otherwise than it should")  # its acknowledges, for example
        if call and path.state is not None and path.state[0] != observed[0] and may_be_handled_at_el2(path.state):
            path = GuestPath(None, why=ANSWERED, certain=False)
    if debugger is not None and class_of(exit_) == "WATCHPT_LOW":
        _stopped_store(path, fetched(seen, target, context), memory)
    level = None
    if trapped and path.state is not None and is_on(path.state):
        level = walk_level(seen, path.state, exit_, RunMemory.after(memory, path.stored), cpu)
        word = fetched(path.state, target, context)
        memory.stored(half_stored(path.state, word, RunMemory(memory), cpu) if word is not None else {})
    if path.state is None:
        memory.mark_unknown()
        # If it was interrupted at this address, it did no more to the interface.
        came_to = observed[exceptions.ELR] if target in VECTORS else target
        if gic is not None and path.stopped != came_to:
            gic.mark_unknown("the guest's path could not be determined")
    return PredictedRun(event, entry, exit_, seen, call, target, path, debugger, level, refusals)
