# SPDX-License-Identifier: Apache-2.0
"""Predict the fault registers with stage 1 on: for the trap of an instruction, of its fetch, or of a table walk."""

from __future__ import annotations

from typing import Final

from harness.arch import exceptions, exits
from harness.arch.cpu_models import Cpu
from harness.arch.exceptions import State
from harness.guest import syndrome
from harness.guest.execute import EC_DABT, FSC_ALIGNMENT, WNR, RaiseException, Undetermined
from harness.guest.load_store import parts
from harness.guest.memory import Memory
from harness.guest.mmu import UNALIGNED_DEVICE
from harness.guest.stage1 import Mapped, Outside, Refused, Unsure, Use, controls, is_on, translate
from harness.guest.syndrome import Fault, TrappedInstruction
from harness.trace.events import Switch

STALE: Final = "translations that a TLB may still hold: their registers changed since the entry"
_S1PTW: Final = exits.DABT["S1PTW"]


def expected_fault(
    trap: TrappedInstruction, before: State, memory: Memory, cpu: Cpu
) -> Fault | RaiseException | Undetermined | None:
    """Return the fault registers that a trap requires; ``before`` is the state at the entry.

    ``memory``: a table walk need not have seen what changed since the entry (:class:`harness.guest.memory.RunMemory`).
    A RaiseException is what the guest takes itself instead of the trap; None where the architecture requires nothing.
    """
    state, word, exit_ = trap
    if controls(before) != controls(state):
        return Undetermined(STALE)
    ec = exits.ec_of(exit_.esr)
    name = exits.EC_NAMES.get(ec, "")
    is_walk = name in ("IABT_LOW", "DABT_LOW") and bool(_S1PTW.get(exit_.esr))
    pc = state[exceptions.PC]
    fetch = translate(state, memory, pc, Use.FETCH, cpu)
    if name == "IABT_LOW" or not isinstance(fetch, Mapped):
        found, touch = fetch, syndrome.Touch(pc, False, 0)
    elif name != "DABT_LOW":
        return syndrome.expected_syndrome(state, word, memory, is_fetch=False)
    else:
        data = None if word is None else syndrome.touch(state, word)
        if data is None:
            return None
        if data.address % data.size and state[exceptions.SCTLR] & exceptions.SCTLR_A:
            return RaiseException(EC_DABT, FSC_ALIGNMENT | (WNR if data.is_store else 0), data.address)
        # Which of two pages is accessed first is not defined; the address of the fault shows it.
        pieces = [at for at, _ in parts(data.address, data.size)]
        touch = data._replace(address=exit_.far if exit_.far in pieces else pieces[0])
        found = translate(state, memory, touch.address, Use.WRITE if data.is_store else Use.READ, cpu)
        if isinstance(found, Mapped) and found.is_device and data.address % data.size:
            return Undetermined(UNALIGNED_DEVICE)
    if isinstance(found, Unsure):
        return Undetermined(found.why)
    wanted = "IABT_LOW" if found is fetch else "DABT_LOW"
    if is_walk or isinstance(found, Outside):
        return _of_walk(wanted, touch.address, found, exit_)
    if isinstance(found, Refused):
        return RaiseException(exits.EC_BY_NAME[wanted], found.status, touch.address)
    return syndrome.abort(wanted, touch, found.ipa, memory)


def walk_level(before: State, state: State, exit_: Switch, memory: Memory, cpu: Cpu) -> int | None:
    """Return the level of the table entry in no memory slot at which the walk of an exit ended; None: unknown."""
    if not _S1PTW.get(exit_.esr) or exit_.forged or not is_on(state) or controls(before) != controls(state):
        return None
    ec = exits.ec_of(exit_.esr)
    found = translate(state, memory, exit_.far, Use.FETCH if ec != EC_DABT else Use.READ, cpu)
    return found.level if isinstance(found, Outside) else None


def _of_walk(ec: str, address: int, found: Mapped | Refused | Outside, exit_: Switch) -> Fault | RaiseException:
    """Return the fault of a walk: stage 2 may lack the page of any entry, and lacks that of one in no memory slot."""
    seen = exit_.page
    entries = [entry for entry in found.tables if entry & ~0xFFF == seen]
    if not found.tables:
        assert isinstance(found, Refused)
        return RaiseException(exits.EC_BY_NAME[ec], found.status, address)
    return syndrome.walk_abort(ec, address, entries[0] if entries else found.tables[-1])
