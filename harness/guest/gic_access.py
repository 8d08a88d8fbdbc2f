# SPDX-License-Identifier: Apache-2.0
"""Execute an access to a register of the GIC's CPU interface, on a vCPU that has one."""

from __future__ import annotations

from collections.abc import Container

from harness.arch import a64, sysregs
from harness.arch.exceptions import State
from harness.arch.sysregs import ExpectedResult
from harness.gic.cpu_interface import TRAPPED, Interface
from harness.guest.execute import EC_UNKNOWN, Continue, Effect, RaiseException, Trap


def at_interface(gic: Interface, state: State, word: int, unknown: Container[int]) -> Effect | None:
    """Return the effect of ``word`` at EL1, and enter it in ``gic``; None: it accesses no such register.

    ``unknown`` are the general-purpose registers whose value is unknown.
    """
    plain = a64.decode_plain(word)
    if plain is None or plain.sysreg is None:
        return None
    row = sysregs.BY_ENCODING.get(a64.system_register(word))
    if row is None or row.gic is None:
        return None
    is_read, register = bool(word >> 21 & 1), word & 31
    if row.gic[0 if is_read else 1] is ExpectedResult.UNDEFINED:
        return RaiseException(EC_UNKNOWN)
    if row.name in TRAPPED:
        return Trap(row.name)
    if not is_read:
        gic.write(row.name, 0 if register == a64.ZERO else None if register in unknown else state[register])
        return Continue()
    value, free = gic.read(row.name)
    if register == a64.ZERO:
        return Continue()
    return Continue({register: value}, {register: (free, f"read from {row.name}")} if free else {})
