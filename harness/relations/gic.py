# SPDX-License-Identifier: Apache-2.0
"""Follow the GIC of a scenario's VM along its trace, and compare its behaviour with IHI 0069; relation ``host.*``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from harness import protocol
from harness.arch import exits
from harness.arch.exits import DABT
from harness.arch.registers import MASK64
from harness.arch.sysregs import ExpectedResult
from harness.gic.cpu_interface import TRAPPED, Interface
from harness.gic.departures import NONE
from harness.gic.distributor import Gic
from harness.gic.registers import PRIVATE, SGIS
from harness.guest.debug_stops import class_of
from harness.layout import CONTEXTS, GIC_INTERRUPTS, GIC_MACHINE
from harness.protocol import MMIO_WRITE, OP_GIC_LINE, OP_RESET
from harness.relations import contract, gic_list_registers
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.mmio import expected_mmio_exit
from harness.trace import psci
from harness.trace.environment import WORLDS
from harness.trace.events import ENTRY, EXIT, Event, Host, Lists, Switch
from harness.trace.rounds import IN_KERNEL, Round

SOME_UNKNOWN: Final = "unknown bits of a register of the GIC"
ALL_UNKNOWN: Final = "a register of the GIC whose value is unknown"
SPI: Final = protocol.GIC_LINES["spi"]
PPI: Final = protocol.GIC_LINES["ppi"]
FREE_PPIS: Final = range(SGIS, 20)
"""PPIs that are certainly left to userspace: KVM's own timers use some of the others, which userspace may
choose (Documentation/virt/kvm/devices/vcpu.rst, KVM_ARM_VCPU_TIMER_CTRL; 26 to 30 where it does not)."""


class GicMonitor:
    """Follow the GIC of the one VM that has one, event by event.

    ``departures``: its differences from IHI 0069 (:mod:`harness.gic.departures`).
    """

    def __init__(self, shown: Iterable[Lists] = (), departures: frozenset[str] = NONE) -> None:
        self._vcpu = {i: c.vcpu for i, c in enumerate(CONTEXTS) if c.machine == GIC_MACHINE}
        self._gic = Gic(len(self._vcpu), departures)
        self._reads: dict[int, tuple[int, int]] = {}
        self._shown = {one.event: gic_list_registers.view(one.values) for one in shown}
        self._loaded: dict[int, gic_list_registers.View] = {}
        self._put: dict[int, gic_list_registers.View] = {}
        self._label: dict[int, str] = {}
        self.found: list[Divergence | Unchecked] = []
        """Differences between the interfaces of vCPUs and the model, in the events seen so far."""

    def see(self, index: int, event: Event) -> None:
        """Apply an event of the trace that is not a run of a guest: a host action, or the request of an exit."""
        vcpu = self._vcpu.get(event.context)
        if vcpu is None:
            return
        if isinstance(event, Host):
            if event.op == OP_GIC_LINE and not event.error:
                self._gic.set_line(vcpu, event.a & 0xFFFF, bool(event.b))
            elif event.op == OP_RESET:
                self._gic.interfaces[vcpu].mark_unknown("a reset: what it leaves of the CPU interface is not specified")
        elif event.kind == EXIT:
            self._label[event.context] = class_of(event)
            self._gic.prune(vcpu)
            self._exit(index, event, vcpu)
        elif (now := self._shown.get(index)) is not None:
            where = gic_list_registers.Where(self._label.get(event.context, "FIRST"), index, event.step)
            if event.kind == ENTRY:
                self._loaded[event.context] = now
                self._gic.enter(vcpu)
                self.found += gic_list_registers.at_entry(now, self._gic, vcpu, where)
            else:
                before = self._put.get(event.context)
                if event.context in self._label:  # before its first run the fields are not those of the interface
                    self._put[event.context] = now
                interface, where = self._gic.interfaces[vcpu], where._replace(exit_class="USER")
                self.found += gic_list_registers.at_user(now, before, interface, where)

    def _exit(self, index: int, exit_: Switch, vcpu: int) -> None:
        kind = exits.exit_class(exit_.code, exit_.esr)
        if exit_.forged:
            self._gic.mark_unknown("a forged exit")
        elif kind == "DABT_LOW" and _is_access(exit_):
            address, length, value = expected_mmio_exit(exit_)
            if value is None:
                self._reads[index] = self._gic.read(address, length)
            else:
                self._gic.write(address, length & ~MMIO_WRITE, value)
        elif kind == "SYS64":
            self._system_register(index, exit_, vcpu)
        elif (call := psci.called_on(exit_)) is not None and call.target < len(self._vcpu):
            self._gic.interfaces[call.target].mark_unknown("a reset by CPU_ON")

    def _system_register(self, index: int, exit_: Switch, vcpu: int) -> None:
        """Apply a trapped access to a register of the CPU interface: KVM must do what the interface would have done."""
        access = contract.system_access(exit_.esr, gic=True)
        if access.row is None or access.row.gic is None or access.expected is ExpectedResult.UNDEFINED:
            return
        name, value = access.row.name, exit_.values[access.rt] if access.rt != 31 else 0
        if name == "icc_sgi1r_el1":
            self._gic.generate(value, vcpu)
        elif name in TRAPPED:
            self._gic.mark_unknown("an SGI of group 0, or of the other security state")
        elif access.is_read:
            self._reads[index] = self._gic.interfaces[vcpu].read(name)
        else:
            self._gic.interfaces[vcpu].write(name, value)
        self._gic.leave(vcpu)

    def enters(self, context: int) -> Interface | None:
        """Return the CPU interface of a vCPU that is about to run, None if it has none."""
        vcpu = self._vcpu.get(context)
        return None if vcpu is None else self._gic.enter(vcpu)

    def left(self, index: int, exit_: Switch) -> None:
        """Apply a run of a vCPU up to an exit: its interface has what its guest did."""
        vcpu = self._vcpu.get(exit_.context)
        if vcpu is None:
            return
        before, now = self._loaded.pop(exit_.context, None), self._shown.get(index)
        if before is not None and now is not None:
            where = gic_list_registers.Where(class_of(exit_), index, exit_.step)
            self.found += gic_list_registers.at_exit(before, now, self._gic.interfaces[vcpu], where)
        self._gic.leave(vcpu)

    def compare(self, round_: Round) -> Iterator[Divergence | Unchecked]:
        """Yield the differences of a round of the host from a GIC and from the KVM API."""
        where = round_.label, round_.first, round_.entry.step
        for host in round_.host_actions:
            fails = line_fails(host, round_.world.gic) if host.op == OP_GIC_LINE else None
            if fails is not None and fails != bool(host.error):
                yield Divergence("host", "gic_line", "an error" if fails else "no error", host.error, *where)
        exit_ = round_.exit
        if exit_ is None or exit_.forged or not round_.world.gic or round_.reset:
            return
        if exits.exit_class(exit_.code, exit_.esr) == "SYS64":
            target = contract.system_access(exit_.esr).rt
            read = round_.entry.values[target] if target != 31 and target not in round_.host_wrote else None
            yield from self._compare_read(round_, read, MASK64)
        elif _is_access(exit_):
            if not round_.in_kernel and round_.action.outcome != "inject":
                yield Divergence("host", "gic", IN_KERNEL, round_.action.outcome, *where)
            else:
                size = 1 << DABT["SAS"].get(exit_.esr)
                yield from self._compare_read(round_, round_.entry.mmio_data, (1 << 8 * size) - 1)

    def _compare_read(self, round_: Round, read: int | None, width: int) -> Iterator[Divergence | Unchecked]:
        """Compare the value that the guest read at the round's exit, if it was a read, with the GIC's."""
        if read is None or round_.first not in self._reads:
            return
        value, unknown = self._reads[round_.first]
        if (value ^ read) & ~unknown & width:
            where = round_.label, round_.first, round_.entry.step
            yield Divergence("host", "gic_read", value & width, read & width, *where)
        elif unknown & width:
            yield Unchecked("host", ALL_UNKNOWN if not ~unknown & width else SOME_UNKNOWN, round_.first)


def _is_access(exit_: Switch) -> bool:
    """Whether an exit is an access of the guest, with a valid syndrome, to the registers of the GIC."""
    if exits.exit_class(exit_.code, exit_.esr) != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
        return False
    return exit_.context < len(WORLDS) and WORLDS[exit_.context].in_kernel(exit_.address)


def line_fails(host: Host, gic: bool) -> bool | None:
    """Whether a KVM_IRQ_LINE for an in-kernel GIC must fail (KVM API 4.25); None: unknown."""
    if not gic:
        return True
    number = host.a & 0xFFFF
    if host.a < PPI:
        return not PRIVATE <= number < GIC_INTERRUPTS
    if number not in range(SGIS, PRIVATE):
        return True
    return False if number in FREE_PPIS else None
