# SPDX-License-Identifier: Apache-2.0
"""What userspace set with ``KVM_SET_GUEST_DEBUG`` on a vCPU: steps, BRK, breakpoints and watchpoints.

Sources: KVM API 4.87; Arm ARM D2.8 (breakpoint instruction), D2.9 (breakpoints), D2.10 (watchpoints), D2.12 (software
step), D17.3.2 DBGBCR<n>_EL1, D17.3.11 DBGWCR<n>_EL1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from harness import protocol
from harness.trace.events import Host

OP_DEBUG, OP_BREAKPOINT, OP_WATCHPOINT = (protocol.OPS[name][0] for name in ("debug", "breakpoint", "watchpoint"))
DEBUG_OPS = frozenset({OP_DEBUG, OP_BREAKPOINT, OP_WATCHPOINT})
_STEP, _BRK = protocol.DEBUG_WAYS["step"], protocol.DEBUG_WAYS["brk"]
_ENABLED, _WHOLE_WORD = 1, 0xF << 5


def breakpoint_control(levels: int) -> int:
    """Return DBGBCR of a breakpoint on one instruction at ``levels`` (PMC); 0 where there is none."""
    return _WHOLE_WORD | levels << 1 | _ENABLED if levels else 0


def watchpoint_control(length: int, accesses: int) -> int:
    """Return DBGWCR of a watchpoint on the first ``length`` bytes of a doubleword; ``accesses``: LSC, 0 for none."""
    return ((1 << length) - 1) << 5 | accesses << 3 | 0b11 << 1 | _ENABLED if accesses else 0


Points = Mapping[int, tuple[int, int]]
"""Number of a breakpoint or watchpoint, to its address and control."""
_NONE: Points = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Debugger:
    """How userspace debugs a vCPU: it steps it, takes its BRKs, and the points that it set."""

    steps: bool = False
    takes_brk: bool = False
    breakpoints: Points = field(default_factory=lambda: _NONE)
    watchpoints: Points = field(default_factory=lambda: _NONE)

    def after(self, host: Host) -> Debugger:
        """Return what holds after a host action of :data:`DEBUG_OPS` that KVM took."""
        if host.op == OP_DEBUG:
            if not host.a:
                return Debugger()
            return replace(self, steps=bool(host.a & _STEP), takes_brk=bool(host.a & _BRK))
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
