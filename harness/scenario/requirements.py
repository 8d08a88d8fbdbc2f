# SPDX-License-Identifier: Apache-2.0
"""Determine what a scenario needs from its target: vCPUs, a protected VM, debug registers, a GIC."""

from __future__ import annotations

from harness import protocol
from harness.layout import ALONE, CONTEXTS, GIC_MACHINE, PAIR, PROTECTED_NAMES
from harness.protocol import DEBUG_NAMES, DEBUG_OPS
from harness.scenario.scenario import Scenario, Step


def first_context(scenario: Scenario) -> int:
    """Return the vCPU that a scenario starts with: alone in its VM, unless the scenario names the other vCPU of the
    pair."""
    other = CONTEXTS[PAIR + 1].name
    return PAIR if Step("vcpu", (other,)) in scenario.steps else ALONE


def context_named(first: int, name: str) -> int:
    """Return the index of the vCPU that a ``vcpu`` step names, in a scenario that starts with the vCPU ``first``."""
    if name == CONTEXTS[first].name:
        return first
    return next(i for i, context in enumerate(CONTEXTS) if context.name == name)


def needs_protected(scenario: Scenario) -> bool:
    """Whether a scenario uses a protected VM; on targets without support it ends with status ``absent``."""
    return any(Step("vcpu", (name,)) in scenario.steps for name in PROTECTED_NAMES)


_DEBUG_STEPS = frozenset(kind for kind, (number, _) in protocol.OPS.items() if number in DEBUG_OPS)
_WRITES = frozenset({"msr", "set"})


def needs_debug_registers(scenario: Scenario) -> bool:
    """Whether a scenario uses debugging, so that debug registers must be recorded."""
    return any(
        step.kind in _DEBUG_STEPS
        or (step.kind in _WRITES and (step.args[0] == "mdscr_el1" or step.args[0] in DEBUG_NAMES))
        for step in scenario.steps
    )


def uses_gic(scenario: Scenario) -> bool:
    """Whether a scenario uses a vCPU of the VM with a GIC."""
    names = {context.name for context in CONTEXTS if context.machine == GIC_MACHINE}
    return any(step.kind == "vcpu" and step.args[0] in names for step in scenario.steps)
