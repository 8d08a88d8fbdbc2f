# SPDX-License-Identifier: Apache-2.0
"""Which vCPUs of a scenario's VM go on and off together, and which of them a PSCI CPU_ON names.  Pure."""

from __future__ import annotations

from harness.layout import CONTEXTS
from harness.relations import contract
from harness.relations.contract import CalledOn
from harness.trace.environment import WORLDS
from harness.trace.events import Switch


def same_machine(context: int) -> tuple[int, ...]:
    """Return the vCPUs of a vCPU's VM, itself among them; none if no scenario may use it."""
    if context >= len(CONTEXTS):
        return ()
    return tuple(n for n, other in enumerate(CONTEXTS) if other.machine == CONTEXTS[context].machine)


def called(exit_: Switch) -> tuple[int, CalledOn] | None:
    """Return which other vCPU an exit asks PSCI CPU_ON to start, and how; None if there is none (DEN 0022 5.4)."""
    if exit_.context >= len(WORLDS) or WORLDS[exit_.context].vcpus == 1:
        return None
    call = contract.called_on(exit_)
    if call is None:
        return None
    named = (n for n in same_machine(exit_.context) if WORLDS[n].mpidr & contract.AFFINITY == call.target)
    number = next(named, exit_.context)
    return None if number == exit_.context else (number, call)
