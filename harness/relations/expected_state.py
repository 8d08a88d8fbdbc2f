# SPDX-License-Identifier: Apache-2.0
"""Hold the state that the guest must have at an entry, while the rules of a round are applied."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.arch import exceptions
from harness.arch.exceptions import State
from harness.relations.errata import NONE


@dataclass(slots=True)
class ExpectedState:
    """The registers that the guest must have, changed by each rule of a round in turn.

    ``values`` are indexed as ``registers.STATE``.  ``allowed`` has the other correct values of a register that has more
    than one, by index; None: any value is correct.  ``errata``: the rules of :mod:`harness.relations.errata` that are
    switched on; the result is then what a kernel with these errata does.  ``walk_level``: of the table entry at which a
    stage-1 walk met no memory; None: unknown.  ``wide``: the instruction that trapped has 32 bits.  ``undetermined``:
    why the registers are not determined; empty: they are.  ``hcr``: the virtual interrupts that must be pending in
    HCR_EL2, ``hcr_certain``: which of its bits that is known of.
    """

    values: list[int]
    walk_level: int | None = None
    errata: frozenset[str] = NONE
    wide: bool = True
    allowed: dict[int, frozenset[int] | None] = field(default_factory=dict)
    undetermined: str = ""
    hcr: int = 0
    hcr_certain: int = exceptions.HCR_VIRTUAL

    def allows(self, index: int, value: int) -> bool:
        """Whether a value of a register is correct."""
        others = self.allowed.get(index, frozenset())
        return value == self.values[index] or others is None or value in others

    def put(self, index: int, value: int) -> None:
        """Set a register to the one value that is correct."""
        self.values[index] = value
        self.allowed.pop(index, None)

    def take(self, after: State) -> None:
        """Apply an exception entry: ``after`` is the state after it.  ELR_EL1 may be whatever PC may have been."""
        came_from = self.allowed.get(exceptions.PC, frozenset())
        self.values[:] = after
        for index in exceptions.EXCEPTION:
            self.allowed.pop(index, None)
        if came_from is None or came_from:
            self.allowed[exceptions.ELR] = came_from


def skip(state: ExpectedState) -> None:
    """Advance PC over the instruction that trapped, as KVM does when it has emulated it."""
    values = state.values
    if others := state.allowed.get(exceptions.PC):
        pstate = values[exceptions.PSTATE]
        state.allowed[exceptions.PC] = frozenset(
            exceptions.state_after_instruction(pc, pstate, state.wide)[0] for pc in others
        )
    values[exceptions.PC], values[exceptions.PSTATE] = exceptions.state_after_instruction(
        values[exceptions.PC], values[exceptions.PSTATE], state.wide
    )
