# SPDX-License-Identifier: Apache-2.0
"""Which vCPUs of a scenario's VM go on and off together, and which of them a PSCI CPU_ON names.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.arch import exits
from harness.arch.registers import MASK64
from harness.layout import CONTEXTS
from harness.trace.environment import WORLDS
from harness.trace.events import Switch

# Return codes (Arm DEN 0022 5.2.2, DEN 0028 2.7) as x0 holds them.
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETERS = 0, MASK64, MASK64 - 1
ALREADY_ON, INTERNAL_FAILURE = MASK64 - 3, MASK64 - 5
HIBERNATE_OFF = 1
"""The type of SYSTEM_OFF2 (DEN 0022F 5.11), and its bit in what PSCI_FEATURES says of that call."""
AFFINITY = 0xFF_00FF_FFFF
"""Affinity fields of an MPIDR (DEN 0022 5.1.4, target_cpu); the one vCPU has affinity 0."""


@dataclass(frozen=True, slots=True)
class CalledOn:
    """What PSCI CPU_ON asks for: the affinity of the vCPU to start, where, and with what in x0."""

    target: int
    entry_point: int
    context_id: int


def _function(exit_: Switch) -> exits.SmcccFunction | None:
    if exits.exit_class(exit_.code, exit_.esr) not in exits.CALLS:
        return None
    return exits.SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF)


def is_call_off(exit_: Switch) -> bool:
    """Whether a vCPU turns itself off (PSCI CPU_OFF, Arm DEN 0022 5.5)."""
    function = _function(exit_)
    return function is not None and function.name == "PSCI_CPU_OFF"


def called_on(exit_: Switch) -> CalledOn | None:
    """Return what an exit asks for by CPU_ON, None of any other exit (Arm DEN 0022 5.4)."""
    function = _function(exit_)
    if function is None or not function.name.startswith("PSCI_CPU_ON"):
        return None
    width = MASK64 if function.fid >> 30 & 1 else 0xFFFF_FFFF
    return CalledOn(*(value & width for value in exit_.values[1:4]))


def same_machine(context: int) -> tuple[int, ...]:
    """Return the vCPUs of a vCPU's VM, itself among them; none if no scenario may use it."""
    if context >= len(CONTEXTS):
        return ()
    return tuple(n for n, other in enumerate(CONTEXTS) if other.machine == CONTEXTS[context].machine)


def called(exit_: Switch) -> tuple[int, CalledOn] | None:
    """Return which other vCPU an exit asks PSCI CPU_ON to start, and how; None if there is none (DEN 0022 5.4)."""
    if exit_.context >= len(WORLDS) or WORLDS[exit_.context].vcpus == 1:
        return None
    call = called_on(exit_)
    if call is None:
        return None
    named = (n for n in same_machine(exit_.context) if WORLDS[n].mpidr & AFFINITY == call.target)
    number = next(named, exit_.context)
    return None if number == exit_.context else (number, call)
