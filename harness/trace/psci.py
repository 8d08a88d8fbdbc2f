# SPDX-License-Identifier: Apache-2.0
"""PSCI power state along a trace: which vCPUs are off, whom a CPU_ON names, and what it does to that vCPU.

Sources: Arm DEN 0022 5.4 (CPU_ON), 5.5 (CPU_OFF), 6.4 (initial core state); docs/spec/kvm.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.arch import exceptions, exits
from harness.arch.registers import BY_NAME, MASK64
from harness.arch.reset_values import RESET_VALUES
from harness.layout import CONTEXTS
from harness.protocol import OP_MP_STATE, OP_RESET, OP_SET
from harness.scenario.steps import MP_STATES
from harness.trace.environment import WORLDS
from harness.trace.events import EXIT, HOST, USER, Host, Switch

# Return codes (Arm DEN 0022 5.2.2, DEN 0028 2.7) as x0 holds them.
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETERS = 0, MASK64, MASK64 - 1
ALREADY_ON, INTERNAL_FAILURE = MASK64 - 3, MASK64 - 5
HIBERNATE_OFF = 1
"""The type of SYSTEM_OFF2 (DEN 0022F 5.11), and its bit in what PSCI_FEATURES says of that call."""
EXIT_SYSTEM_EVENT = 24
"""KVM_EXIT_SYSTEM_EVENT (KVM API 5)."""
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


def actions_of_cpu_on(
    caller: Switch, call: CalledOn, number: int, step: int = 0, asked: bool = False
) -> tuple[Host, ...]:
    """Return what CPU_ON does to the vCPU ``number``, as host actions: it is reset, then set to its entry point.

    It starts in the caller's byte order (DEN 0022 6.4; kvm_psci_vcpu_on in arch/arm64/kvm/psci.c).
    """
    written = [("pc", call.entry_point), ("x0", call.context_id)]
    if caller.values[exceptions.SCTLR] & exceptions.SCTLR_EE:
        written.append(("sctlr_el1", RESET_VALUES["sctlr_el1"] | exceptions.SCTLR_EE))
    writes = (Host(HOST, step, OP_SET, BY_NAME[name].one_reg, value, 0, asked, number) for name, value in written)
    return (Host(HOST, step, OP_RESET, 0, 0, 0, asked, number), *writes)


class PowerState:
    """Which vCPUs of a scenario are off: by PSCI CPU_OFF or KVM_SET_MP_STATE, or since their VM went down."""

    def __init__(self) -> None:
        self._off: set[int] = set()

    def is_off(self, context: int) -> bool:
        """Whether a vCPU is off."""
        return context in self._off

    def on_switch(self, event: Switch) -> None:
        """Follow a record: a vCPU that runs is on, a call may turn it off, a system event stops its whole VM."""
        if event.kind == USER:
            # docs/spec/kvm.md section 3: SYSTEM_OFF and SYSTEM_RESET stop all vCPUs.
            if event.code == EXIT_SYSTEM_EVENT:
                self._off.update(same_machine(event.context))
        elif event.kind == EXIT and is_call_off(event):
            self._off.add(event.context)
        else:
            self._off.discard(event.context)

    def on_host(self, host: Host) -> None:
        """Follow a host action: a reset turns a vCPU on, KVM_SET_MP_STATE either way."""
        if host.op == OP_RESET:
            self._off.discard(host.context)
        elif host.op == OP_MP_STATE and not host.error:
            (self._off.add if host.a == MP_STATES["stopped"] else self._off.discard)(host.context)


class CpuOnCalls:
    """The vCPUs that another one asked PSCI CPU_ON to start, and that have not run since."""

    def __init__(self) -> None:
        self._asking: dict[int, tuple[int, CalledOn]] = {}
        self._called: dict[int, CalledOn] = {}

    def on_overwritten(self, context: int) -> None:
        """Userspace wrote over an answer that no record has shown: the call may have succeeded."""
        if context in self._asking:
            number, call = self._asking.pop(context)
            self._called[number] = call

    def on_switch(self, event: Switch) -> None:
        """Follow a record: it may be a call, or show what one returned."""
        if event.kind == EXIT:
            if (asked := called(event)) is not None:
                self._asking[event.context] = asked
        elif event.context in self._asking:
            number, call = self._asking.pop(event.context)
            if event.values[0] == SUCCESS:
                self._called[number] = call

    def starts(self, entry: Switch) -> bool:
        """Whether a vCPU enters as a call asked for; the call is done then."""
        call = self._called.pop(entry.context, None)
        return call is not None and (entry.values[exceptions.PC], entry.values[0]) == (
            call.entry_point,
            call.context_id,
        )
