# SPDX-License-Identifier: Apache-2.0
"""Keep what userspace set with ``KVM_SET_GUEST_DEBUG`` on a vCPU: steps, BRK, breakpoints and watchpoints.

Sources: KVM API 4.87; Arm ARM D2.8 (breakpoint instruction), D2.9 (breakpoints), D2.10 (watchpoints), D2.12 (software
step), D17.3.2 DBGBCR<n>_EL1, D17.3.11 DBGWCR<n>_EL1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from harness.arch.debug_registers import BRK, STEP
from harness.protocol import OP_BREAKPOINT, OP_DEBUG
from harness.trace.events import Host

Points = Mapping[int, tuple[int, int]]
"""Number of a breakpoint or watchpoint, to its address and control."""
_NONE: Points = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Debugger:
    """How userspace debugs a vCPU: whether it steps it and takes its BRKs, and its breakpoints and watchpoints."""

    steps: bool = False
    takes_brk: bool = False
    breakpoints: Points = field(default_factory=lambda: _NONE)
    watchpoints: Points = field(default_factory=lambda: _NONE)

    def after(self, host: Host) -> Debugger:
        """Return the debugger after a host action of :data:`~harness.protocol.DEBUG_OPS` that KVM accepted."""
        if host.op == OP_DEBUG:
            if not host.a:
                return Debugger()
            return replace(self, steps=bool(host.a & STEP), takes_brk=bool(host.a & BRK))
        point = {host.b >> 32: (host.a, host.b & 0xFFFF_FFFF)}
        if host.op == OP_BREAKPOINT:
            return replace(self, breakpoints=_set(self.breakpoints, point))
        return replace(self, watchpoints=_set(self.watchpoints, point))

    def breaks_at(self, pc: int, at_el0: bool) -> bool:
        """Whether an instruction at ``pc`` hits a breakpoint."""
        level = 0b10 if at_el0 else 0b01
        return any(address == pc and control >> 1 & level for address, control in self.breakpoints.values())

    def watched(self, address: int, size: int, is_store: bool) -> tuple[int, int] | None:
        """Return the first and last watched address that an access hits, None if it hits none."""
        hits = []
        for base, control in self.watchpoints.values():
            first, last = max(base, address), min(base + (control >> 5 & 0xFF).bit_length(), address + size) - 1
            if first <= last and control >> 3 & (0b10 if is_store else 0b01):
                hits.append((first, last))
        return (min(hits)[0], max(last for _, last in hits)) if hits else None


def _set(points: Points, point: Points) -> Points:
    return {number: value for number, value in {**points, **point}.items() if value[1]}
