# SPDX-License-Identifier: Apache-2.0
"""Predict where a debug exception to EL2 stops a guest that userspace debugs, and the fault registers there.

Sources: D1.13.4 (priority of exceptions), D2.8 to D2.12 (debug exceptions), D17.2.37 (ISS encodings for debug
exceptions), D17.2.41 (FAR_EL2 of a watchpoint).
"""

from __future__ import annotations

from typing import Final

from harness import protocol
from harness.arch import a64, exceptions, exits
from harness.arch.exceptions import State
from harness.arch.exits import EC_BY_NAME, EC_SHIFT, IL_BIT, IssField
from harness.guest.debugger import Debugger
from harness.guest.syndrome import Fault, TrappedInstruction, touch
from harness.trace.events import Switch

DEBUG_FSC: Final = 0x22
ISV: Final = IssField("ISV", 24, 1, "EX is valid")
EX: Final = IssField("EX", 6, 1, "the instruction was a load exclusive")
STOPS: Final = frozenset({"SOFTSTP_LOW", "BREAKPT_LOW", "WATCHPT_LOW", "BRK64"})
_STRAIGHT: Final = frozenset({"mov", "movz", "movk", "ldp", "stp", "ldr_post", "str_pre", "ldxr", "stxr"})
"""With the plain loads and stores, the instructions that EL2 does not emulate and that do not branch."""


def class_of(exit_: Switch) -> str:
    """Return the class of an exit, whether forged or not."""
    return exits.exit_class(exit_.code, exit_.esr)


def steps_between(entry: Switch, exit_: Switch) -> tuple[int, int]:
    """Return the least and the most instructions that a stepped guest executes between an entry and the next exit.

    A step ends after one instruction.  A step exception that is already pending comes before any instruction.  An
    interrupt may come before or after the instruction.  Any other trap is that of the first instruction.  By the Arm
    ARM an instruction abort comes after the step exception; QEMU fetches first.
    """
    begins = int(entry.marks & protocol.MARK_STEP_BEGINS != 0)
    kind = class_of(exit_)
    if kind == "SOFTSTP_LOW":
        return begins, begins
    return (0, begins) if kind in ("IRQ", "SERROR", "IABT_LOW") else (0, 0)


def expected_debug_stop(
    trap: TrappedInstruction, debugger: Debugger, entry: Switch, stepped: int | None
) -> Fault | None:
    """Return the fault registers that a debug exception requires where the guest trapped; None: this module has none.

    ``stepped`` is the first instruction after the entry, None where it is unknown.
    """
    state, word, exit_ = trap
    kind = class_of(exit_)
    begins = entry.marks & protocol.MARK_STEP_BEGINS
    if debugger.steps and (kind == "SOFTSTP_LOW" or (not begins and kind != "IABT_LOW")):
        return _step(stepped, entry, state) if begins else _fault("SOFTSTP_LOW", DEBUG_FSC)
    if kind == "IABT_LOW":
        return None  # before any breakpoint
    at_el0 = state[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T
    if debugger.breaks_at(state[exceptions.PC], at_el0):
        return _fault("BREAKPT_LOW", DEBUG_FSC)
    if word is not None and is_brk(word) and (debugger.takes_brk or kind == "BRK64"):
        return _fault("BRK64", word >> 5 & 0xFFFF)
    access = None if word is None or kind == "DABT_LOW" else touch(state, word)  # an abort comes before a watchpoint
    size = access_size(word) if word is not None else 0
    if access is not None and access.address % min(size, 8):
        access = None  # QEMU makes two aligned accesses of it, which may hit what it does not reach
    if access is not None and (hit := debugger.watched(access.address, size, access.is_store)) is not None:
        # Any address from the lowest accessed to the highest watched will do.
        far = exit_.far if access.address <= exit_.far <= hit[1] else hit[0]
        wnr = exits.DABT["WNR"].mask if access.is_store else 0
        return _fault("WATCHPT_LOW", DEBUG_FSC | wnr)._replace(far=far)
    if kind not in STOPS or (kind != "BREAKPT_LOW" and word is None):
        return None
    if kind == "WATCHPT_LOW" and access is None:
        return None  # not aligned, or a store exclusive: unknown whether that was made
    return Fault(0)  # nothing stops it here


def access_size(word: int) -> int:
    """Return how many bytes a load or store moves; 0 for any other instruction."""
    access = a64.decode_access(word)
    if access is not None:
        return access.size
    plain = a64.decode_plain(word)
    return plain.size if plain is not None else 0


def is_brk(word: int) -> bool:
    """Whether an instruction is a BRK."""
    plain = a64.decode_plain(word)
    return plain is not None and plain.mnemonic == "brk"


def _fault(ec: str, iss: int) -> Fault:
    return Fault(EC_BY_NAME[ec] << EC_SHIFT | IL_BIT | iss)


def _step(stepped: int | None, entry: Switch, state: State) -> Fault:
    """Return the syndrome of a step exception; ISV is free where the instruction need not have been completed."""
    if state[exceptions.PC] != entry.values[exceptions.PC] + 4:
        stepped = None  # it was an exception, say
    plain = a64.decode_plain(stepped) if stepped is not None else None
    if stepped is not None and (a64.decode_access(stepped) or (plain and plain.mnemonic in _STRAIGHT)):
        was_exclusive = plain is not None and plain.mnemonic == "ldxr"
        return _fault("SOFTSTP_LOW", DEBUG_FSC | ISV.mask | (EX.mask if was_exclusive else 0))
    return _fault("SOFTSTP_LOW", DEBUG_FSC)._replace(esr_free=ISV.mask | EX.mask)
