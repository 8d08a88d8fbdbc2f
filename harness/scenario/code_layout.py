# SPDX-License-Identifier: Apache-2.0
"""Lay out the guest steps of a scenario in memory.

Each vCPU has a window of CODE with its instructions at consecutive addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from harness.arch import a64
from harness.arch.a64 import TRAP
from harness.layout import CODE, CONTEXTS, PROTECTED_MACHINE, WINDOW_SIZE
from harness.layout import PROTECTED_TRAP_REGISTER as PROTECTED_TRAP
from harness.scenario.requirements import context_named, first_context, needs_protected
from harness.scenario.scenario import Scenario, instruction

FILL: Final[tuple[int, int]] = (TRAP, a64.ISB)
"""The alternating words of VECTORS, and of CODE after a scenario.

The barrier is for speed: an emulator translates a block up to the next barrier, and a block of a page of traps is long.
"""
PROTECTED_FILL: Final[tuple[int, int]] = (a64.encode("mrs", "xzr", PROTECTED_TRAP), a64.ISB)
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


class CodeLayout(NamedTuple):
    """The guest steps of a scenario in its order, the address after each vCPU's last one, and the code of each RAM.

    A protected VM (True) has its own RAM, all others share one.  The vCPU that the scenario starts with is the last of
    ``ends``, unless a step names it.
    """

    placed: tuple[Placed, ...]
    ends: Mapping[int, int]
    codes: Mapping[bool, Code]


@lru_cache(maxsize=64)
def layout_of(scenario: Scenario) -> CodeLayout:
    """Return the layout of a scenario's code."""
    first = first_context(scenario)
    steps, ends_at = _place(scenario, first)
    kinds = (False, True) if needs_protected(scenario) else (False,)
    return CodeLayout(steps, ends_at, {protected: _code(steps, ends_at, protected) for protected in kinds})


def placed(scenario: Scenario) -> tuple[Placed, ...]:
    """Return the guest steps in the order of the scenario."""
    return layout_of(scenario).placed


def codes_of(scenario: Scenario) -> Mapping[bool, Code]:
    """Return the code of each RAM that a scenario uses, with the trap after each vCPU's last step."""
    return layout_of(scenario).codes


def code_of(scenario: Scenario, protected: bool = False) -> Code:
    """Return the code that all VMs but a protected one share; ``protected``: that of the protected VM."""
    layout = layout_of(scenario)
    return layout.codes[protected] if protected in layout.codes else _code(layout.placed, layout.ends, protected)


def _place(scenario: Scenario, first: int) -> tuple[tuple[Placed, ...], Mapping[int, int]]:
    """Return the guest steps, and the address after each vCPU's last; the scenario starts with ``first``."""
    context, named = first, list[int]()
    free: dict[int, int] = {}
    steps: list[Placed] = []
    for index, step in enumerate(scenario.steps):
        if step.kind == "vcpu":
            context = context_named(first, str(step.args[0]))
            named.append(context)
        elif (word := instruction(step)) is not None:
            address = free.get(context) or base_of(context)
            free[context] = address + 4
            steps.append(Placed(index, context, address, word))
    return tuple(steps), {context: free.get(context) or base_of(context) for context in (*named, first)}


def _code(steps: Sequence[Placed], ends_at: Mapping[int, int], protected: bool) -> Code:
    there = frozenset(i for i, c in enumerate(CONTEXTS) if (c.machine == PROTECTED_MACHINE) == protected)
    words = {step.address: step.word for step in steps if step.context in there}
    for context, end in ends_at.items():
        if context in there:
            words |= {end + 4 * i: word for i, word in enumerate(PROTECTED_FILL if protected else FILL)}
    return Code(words, protected)
