# SPDX-License-Identifier: Apache-2.0
"""Interrupt a deterministic machine whose guest takes an instruction abort at every fetch.

The vector's own fetch faults, so the guest never executes an instruction.  On a deterministic machine time is the
number of executed instructions: it stops, no timer fires, and nothing inside the machine ends the loop.  A character at
the serial port is an interrupt, which ends it.  Two runs stay equal, because the machine has no state that still
changes, time included: :func:`is_storm` is evaluated with the machine stopped, and is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.arch import exceptions
from harness.arch.exits import EC_BY_NAME, ec_of
from harness.vm.gdbstub import GdbError
from harness.vm.postmortem import monitor, read_registers
from harness.vm.qemu import WAITS_FOR_REQUEST, Qemu

EC_FETCH = exceptions.same_el(EC_BY_NAME["IABT_LOW"])
PATIENCE = 0.01
"""CPU seconds of QEMU without an exit of any guest between two checks; doubled with each stop of the machine."""


def is_storm(registers: Mapping[str, int]) -> bool:
    """Whether a CPU is at its vector because the fetch of that vector faulted (registers by GDB's names)."""
    names = ("pc", "VBAR", "ELR_EL1", "FAR_EL1", "ESR_EL1")
    pc, vbar, elr, far, esr = (registers[name] for name in names)
    return pc == elr == far == exceptions.vector(vbar, exceptions.EL1H) and ec_of(esr) == EC_FETCH


class FetchStormWatch:
    """Watch one scenario on a deterministic machine; ``exits`` returns the number of the guests' exits so far.

    A machine that may be idle is not stopped: that could change its time.  It is stopped only if its registers are
    unchanged after it has used the CPU for some time.
    """

    def __init__(self, qemu: Qemu, exits: Callable[[], int]) -> None:
        self._qemu, self._exits = qemu, exits
        self._patience = PATIENCE
        self._last = exits()
        self._next = qemu.cpu_seconds() + PATIENCE
        self._seen = ""

    def look(self) -> None:
        """Interrupt the machine if it is in such a loop.  VmLost: it died."""
        spent, exits = self._qemu.cpu_seconds(), self._exits()
        if exits != self._last:
            self._last, self._next, self._seen = exits, spent + PATIENCE, ""
        if spent < self._next:
            return
        before, self._seen = self._seen, monitor(self._qemu, "info registers")
        self._next = spent + self._patience
        if self._seen != before:
            return
        self._qemu.stop()
        if self._qemu.state() == WAITS_FOR_REQUEST:  # it made progress meanwhile, and has finished
            return
        try:
            stands = is_storm(read_registers(self._qemu))
        except (GdbError, KeyError, OSError) as error:
            raise self._qemu.lost(f"its registers cannot be read: {error}") from error
        if stands:
            self._qemu.interrupt()
        self._qemu.cont()
        self._patience *= 2
