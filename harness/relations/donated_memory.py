# SPDX-License-Identifier: Apache-2.0
"""Check that the host cannot write to memory that it donated to a protected VM: relation ``host.write``.

Source: Documentation/virt/kvm/arm/pkvm.rst, "pages are ... unmapped from the stage-2 identity map as part of the
donation procedure", "Accessing pVM memory that has not been shared back will result in the delivery of a SIGSEGV".
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.arch import exceptions
from harness.arch.exits import EXIT_WITH_SERROR_BIT
from harness.guest import pkvm_calls
from harness.protocol import OP_RESET, OP_SET, OP_WRITE
from harness.relations.divergence import Divergence
from harness.trace.environment import VmEnvironment
from harness.trace.events import ENTRY, EXIT, Host, Switch
from harness.trace.indexed import IndexedTrace
from harness.trace.rounds import PC_ID

ABORTS = ("DABT_LOW", "IABT_LOW")


class _Vm:
    """The known state of a protected VM's memory."""

    def __init__(self) -> None:
        self.touched: set[int] = set()
        self.waiting: tuple[int, int] | None = None
        """A page that was not mapped, and the guest's PC: the guest has the page once PC advances."""
        self.latest: Switch | None = None
        self.at = 0
        self.shares = False

    def entered(self, entry: Switch) -> None:
        if self.waiting is not None and entry.values[exceptions.PC] - self.waiting[1] not in (0, 4):
            self.waiting = None  # the guest continues elsewhere
        # No exit shows which pages are shared: EL2 handles the call.
        self.shares |= entry.values[0] & 0xFFFF_FFFF in (pkvm_calls.SHARE, pkvm_calls.UNSHARE)

    def moved(self, host: Host) -> None:
        """Follow a host action: after a write of PC or a reset, PC no longer proves that the access was made."""
        if host.op == OP_RESET or (host.op == OP_SET and host.a == PC_ID and not host.error):
            self.waiting = None

    def left(self, exit_: Switch, index: int, world: VmEnvironment) -> None:
        pc = exit_.values[exceptions.PC]
        if self.waiting is not None and exit_.trapped:
            if pc == self.waiting[1] + 4:
                self.touched.add(self.waiting[0])
            self.waiting = None  # an interrupt in between changes nothing
        if exit_.exit_class in ABORTS and not exit_.forged and not exit_.code & EXIT_WITH_SERROR_BIT:
            slot = world.slot(exit_.page)
            if slot is not None and slot.home is not None:
                self.waiting = exit_.page - slot.base + slot.home, pc
        self.latest, self.at = exit_, index


def host_writes_to_donated_memory(indexed: IndexedTrace) -> Iterator[tuple[Host, Switch, int]]:
    """Yield the host's writes to donated memory, accepted or rejected; with the exit before, and its event."""
    vms = dict[int, _Vm]()
    for index, event in enumerate(indexed.trace.events):
        world = indexed.slots.environment(index, event.context)
        if world.protected:
            vm = vms.setdefault(event.context, _Vm())
            if isinstance(event, Host):
                vm.moved(event)
                mine = event.op == OP_WRITE and event.a & -pkvm_calls.GRANULE in vm.touched
                if mine and not vm.shares and vm.latest is not None:
                    yield event, vm.latest, vm.at
            elif event.kind == ENTRY:
                vm.entered(event)
            elif event.kind == EXIT:
                vm.left(event, index, world)


def compare_donated_memory(indexed: IndexedTrace) -> Iterator[Divergence]:
    """Yield the host's writes to donated memory that succeeded."""
    for host, latest, at in host_writes_to_donated_memory(indexed):
        if not host.error:
            yield Divergence("host", "write", "refused", "taken", latest.exit_class, at, host.step)
