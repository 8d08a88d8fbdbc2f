# SPDX-License-Identifier: Apache-2.0
"""Lay out the guest steps of a scenario in memory.

Each vCPU has a window of CODE with its instructions at consecutive addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from harness.arch import a64
from harness.arch.a64 import TRAP
from harness.layout import CODE, CONTEXTS, PROTECTED_MACHINE, WINDOW_SIZE
from harness.layout import PROTECTED_TRAP_REGISTER as PROTECTED_TRAP
from harness.scenario.requirements import context_named, first_context, needs_protected
from harness.scenario.scenario import Scenario, instruction

FILL: tuple[int, int] = (TRAP, a64.ISB)
"""The alternating words of VECTORS, and of CODE after a scenario.

The barrier is for speed: an emulator translates a block up to the next barrier, and a block of a page of traps is long.
"""
PROTECTED_FILL: tuple[int, int] = (a64.encode("mrs", "xzr", PROTECTED_TRAP), a64.ISB)
"""The same for a protected VM."""


class Code(dict[int, int]):
    """A guest's code, address to instruction word; ``fill`` are the words of the rest of CODE and VECTORS.

    ``protected``: for a protected VM, which can store to CODE.
    """

    def __init__(self, words: Mapping[int, int], protected: bool = False) -> None:
        super().__init__(words)
        self.protected = protected
        self.fill = PROTECTED_FILL if protected else FILL


class Placed(NamedTuple):
    """A guest step: its index in the scenario, its vCPU (index in ``layout.CONTEXTS``), its address."""

    step: int
    context: int
    address: int
    word: int


def base_of(context: int) -> int:
    """Return the start address of a vCPU's code."""
    return CODE.base + CONTEXTS[context].window * WINDOW_SIZE


@lru_cache(maxsize=64)
def placed(scenario: Scenario) -> tuple[Placed, ...]:
    """Return the guest steps in the order of the scenario."""
    context = first = first_context(scenario)
    free: dict[int, int] = {}
    steps: list[Placed] = []
    for index, step in enumerate(scenario.steps):
        if step.kind == "vcpu":
            context = context_named(first, str(step.args[0]))
        elif (word := instruction(step)) is not None:
            address = free.get(context) or base_of(context)
            free[context] = address + 4
            steps.append(Placed(index, context, address, word))
    return tuple(steps)


def ends(scenario: Scenario) -> Mapping[int, int]:
    """Return, for each vCPU that a scenario uses, the address after its last instruction; the first vCPU comes last."""
    first = first_context(scenario)
    found = {context_named(first, str(s.args[0])): 0 for s in scenario.steps if s.kind == "vcpu"} | {first: 0}
    found = {context: base_of(context) for context in found}
    for step in placed(scenario):
        found[step.context] = step.address + 4
    return found


@lru_cache(maxsize=64)
def code_of(scenario: Scenario, protected: bool = False) -> Code:
    """Return the guest's code, with the trap after each vCPU's last step; ``protected``: that of the protected VM."""
    there = frozenset(i for i, c in enumerate(CONTEXTS) if (c.machine == PROTECTED_MACHINE) == protected)
    words = {step.address: step.word for step in placed(scenario) if step.context in there}
    for context, end in ends(scenario).items():
        if context in there:
            words |= {end + 4 * i: word for i, word in enumerate(PROTECTED_FILL if protected else FILL)}
    return Code(words, protected)


def codes_of(scenario: Scenario) -> Mapping[bool, Code]:
    """Return the code of each RAM that a scenario uses: a protected VM (True) has its own RAM, all others share one."""
    kinds = (False, True) if needs_protected(scenario) else (False,)
    return {protected: code_of(scenario, protected) for protected in kinds}
