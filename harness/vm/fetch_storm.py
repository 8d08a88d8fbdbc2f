# SPDX-License-Identifier: Apache-2.0
"""Get a deterministic machine back from a guest whose every instruction fetch faults.

Such a guest comes from its vector to its vector and executes nothing.  Where time is the number of instructions it
stands still then, no timer ever rings, and nothing in the machine can end this.  A character at the serial port can: it
is an interrupt, which KVM takes as any other.  That keeps two runs the same because it comes where the machine has no
state that could still change, the time included: :func:`is_storm` is asked with the machine stopped, and is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.arch import exceptions
from harness.arch.exits import EC_BY_NAME, ec_of
from harness.vm.gdbstub import GdbError
from harness.vm.postmortem import monitor, read_registers
from harness.vm.qemu import STANDS, Qemu

EC_FETCH = exceptions.same_el(EC_BY_NAME["IABT_LOW"])
PATIENCE = 0.01
"""CPU seconds of QEMU's without an exit of any guest between two looks; they double with each time it is stopped."""


def is_storm(registers: Mapping[str, int]) -> bool:
    """Tell whether a CPU is where a fetch that faulted brought it, and will fault again (registers by GDB's names)."""
    names = ("pc", "VBAR", "ELR_EL1", "FAR_EL1", "ESR_EL1")
    pc, vbar, elr, far, esr = (registers[name] for name in names)
    return pc == elr == far == exceptions.vector(vbar, exceptions.EL1H) and ec_of(esr) == EC_FETCH


class Rescue:
    """Looks after one scenario on a deterministic machine; ``exits`` tells the guests' exits so far.

    A machine that may be idle is left alone: to stop it then could move its time.  So it is stopped only where its
    registers are the same after it has used the CPU for a while, in which it was not kept from running.
    """

    def __init__(self, qemu: Qemu, exits: Callable[[], int]) -> None:
        self._qemu, self._exits = qemu, exits
        self._patience = PATIENCE
        self._last = exits()
        self._next = qemu.cpu_seconds() + PATIENCE
        self._seen = ""

    def look(self) -> None:
        """Interrupt the machine if nothing else can.  VmLost: it is gone."""
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
        if self._qemu.state() == STANDS:  # it got on just now, and is done
            return
        try:
            stands = is_storm(read_registers(self._qemu))
        except (GdbError, KeyError, OSError) as error:
            raise self._qemu.lost(f"its registers cannot be read: {error}") from error
        if stands:
            self._qemu.interrupt()
        self._qemu.cont()
        self._patience *= 2
