# SPDX-License-Identifier: Apache-2.0
"""Find the instruction that a guest fetches from an address, and whether the one that trapped was an HVC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.arch import a64, exceptions, exits
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.guest import pkvm_calls
from harness.guest.context import GuestContext
from harness.guest.stage1 import Mapped, Unsure, Use, is_on, translate
from harness.layout import CODE, VECTORS
from harness.protocol import MARK_CALL
from harness.scenario.code_layout import Code
from harness.trace.events import Switch

_CODE: Final = range(CODE.base, CODE.end, 4)
_VECTORS: Final = range(VECTORS.base, VECTORS.end, 4)
_EC_HVC: Final = exits.EC_BY_NAME["HVC64"]


def word_at(code: Mapping[int, int], address: int) -> int | None:
    """Return the instruction at a guest physical address; None: the scenario has no code there."""
    word = code.get(address)
    if word is None and (address in _CODE or address in _VECTORS):
        return as_code(code).fill[address >> 2 & 1]
    return word


def as_code(code: Mapping[int, int]) -> Code:
    """Return code as :class:`Code`, which describes its VM, too; a plain mapping is that of a VM without protection."""
    return code if isinstance(code, Code) else Code(code)


def may_be_handled_at_el2(state: State) -> bool:
    """Whether KVM may handle the hypercall in ``state`` at EL2, without an exit to the host."""
    function = exits.SMCCC_BY_FID.get(state[0] & 0xFFFF_FFFF)
    return function is not None and function.at_el2


def fetched(state: State, address: int, context: GuestContext) -> int | None:
    """Return the instruction that the guest fetches from ``address``; None: unknown, or no code of the scenario."""
    if not is_on(state):
        return word_at(context.code, address)
    found = translate(state, context.memory, address, Use.FETCH, context.cpu)
    return word_at(context.code, found.ipa) if isinstance(found, Mapped) else None


def why_fetch_unknown(state: State, address: int, context: GuestContext) -> str:
    """Return why the translation of a fetch from ``address`` is unknown; an empty text where it is known."""
    found = translate(state, context.memory, address, Use.FETCH, context.cpu) if is_on(state) else None
    return found.why if isinstance(found, Unsure) else ""


def is_call(state: State, word: int | None, exit_: Switch, protected: bool = False) -> bool:
    """Whether the instruction that trapped was an HVC, whose preferred return address is that of the next instruction.

    ``word`` is the instruction before the return address.
    """
    return word is not None and a64.is_hvc(word) and may_be_call(state, exit_, protected)


def may_be_call(state: State, exit_: Switch, protected: bool = False) -> bool:
    """Whether an HVC trapped, provided that there is one before the return address of the exit.

    Where the guest started at that HVC, only the HVC can have trapped, whatever the syndrome is; unless EL2 may have
    handled the call, which it does for more calls in a ``protected`` VM.
    """
    if exit_.forged:
        return bool(exit_.marks & MARK_CALL)
    if exits.ec_of(exit_.esr) == _EC_HVC:
        return True
    if (
        state[exceptions.PC] != (exit_.values[exceptions.PC] - 4) & MASK64
        or state[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T
    ):
        return False
    return not (may_be_handled_at_el2(state) or (protected and pkvm_calls.is_pkvm_call(state)))
