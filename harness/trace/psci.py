# SPDX-License-Identifier: Apache-2.0
"""Follow PSCI CPU_ON along a trace: the vCPU that a call names, its result, and its effect on that vCPU.

Sources: Arm DEN 0022 5.4 (CPU_ON), 6.4 (initial core state); docs/spec/kvm.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.arch import exceptions, exits
from harness.arch.registers import BY_NAME, MASK64
from harness.arch.reset_values import RESET_VALUES
from harness.layout import CONTEXTS
from harness.protocol import OP_HELD, OP_RESET, OP_SET
from harness.trace.environment import WORLDS
from harness.trace.events import EXIT, HOST, Host, Switch

# Return codes (Arm DEN 0022 5.2.2, DEN 0028 2.7) as x0 holds them.
SUCCESS, NOT_SUPPORTED, INVALID_PARAMETERS = 0, MASK64, MASK64 - 1
ALREADY_ON, INTERNAL_FAILURE = MASK64 - 3, MASK64 - 5
HIBERNATE_OFF = 1
"""The type of SYSTEM_OFF2 (DEN 0022F 5.11), and its bit in the result of PSCI_FEATURES for that call."""
AFFINITY = 0xFF_00FF_FFFF
"""Affinity fields of an MPIDR (DEN 0022 5.1.4, target_cpu); the one vCPU has affinity 0."""
X0_ID, PC_ID = BY_NAME["x0"].one_reg, BY_NAME["pc"].one_reg
OVERWRITTEN = "a vCPU that PSCI CPU_ON may have reset: the answer was overwritten before any record"
"""Why the next round of the vCPU that a CPU_ON names is not compared, in traces from before ``held`` was recorded."""


@dataclass(frozen=True, slots=True)
class CalledOn:
    """The arguments of PSCI CPU_ON: the affinity of the vCPU to start, its entry point, and its x0."""

    target: int
    entry_point: int
    context_id: int


def _function(exit_: Switch) -> exits.SmcccFunction | None:
    if exits.exit_class(exit_.code, exit_.esr) not in exits.CALLS:
        return None
    return exits.SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF)


def called_on(exit_: Switch) -> CalledOn | None:
    """Return the arguments of CPU_ON at an exit; None: the exit is no such call (Arm DEN 0022 5.4)."""
    function = _function(exit_)
    if function is None or not function.name.startswith("PSCI_CPU_ON"):
        return None
    width = MASK64 if function.fid >> 30 & 1 else 0xFFFF_FFFF
    return CalledOn(*(value & width for value in exit_.values[1:4]))


def same_machine(context: int) -> tuple[int, ...]:
    """Return the vCPUs of a vCPU's VM, including itself; none if no scenario may use it."""
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


class CpuOnCalls:
    """The vCPUs that another one asked PSCI CPU_ON to start, and that have not run since."""

    def __init__(self) -> None:
        self._asking: dict[int, tuple[int, CalledOn]] = {}
        self._called: dict[int, CalledOn] = {}

    def on_host(self, host: Host) -> None:
        """Follow a host action: it may record a call's result; a result that it overwrites is taken as SUCCESS.

        KVM resets a vCPU that CPU_ON starts before userspace's next access to its registers: what this writes stays.
        """
        call = self._called.get(host.context)
        if call is not None and host.op == OP_SET and not host.error and host.a in (PC_ID, X0_ID):
            written = replace(call, context_id=host.b) if host.a == X0_ID else replace(call, entry_point=host.b)
            self._called[host.context] = written
        if host.context not in self._asking or host.a != X0_ID or host.error:
            return
        if host.op == OP_HELD:
            self._answered(host.context, host.b)
        elif host.op == OP_SET:
            self._answered(host.context, SUCCESS)

    def on_switch(self, event: Switch) -> None:
        """Follow a record: it may be a call, or show the result of one."""
        if event.kind == EXIT:
            if (asked := called(event)) is not None:
                self._asking[event.context] = asked
        elif event.context in self._asking:
            self._answered(event.context, event.values[0])

    def _answered(self, context: int, answer: int) -> None:
        number, call = self._asking.pop(context)
        if answer == SUCCESS:
            self._called[number] = call

    def starts(self, entry: Switch) -> bool:
        """Whether a vCPU enters as a call requested; the call is then complete."""
        call = self._called.pop(entry.context, None)
        return call is not None and (entry.values[exceptions.PC], entry.values[0]) == (
            call.entry_point,
            call.context_id,
        )
