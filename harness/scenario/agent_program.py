# SPDX-License-Identifier: Apache-2.0
"""Compile a scenario to the program that the guest agent executes: its operations, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import Final

from harness import protocol
from harness.arch import registers
from harness.layout import CODE, CONTEXTS, PROTECTED_MACHINE, VECTORS
from harness.protocol import NO_STEP
from harness.scenario.agent_operations import host_arguments, shaping
from harness.scenario.code_layout import layout_of
from harness.scenario.requirements import context_named, first_context
from harness.scenario.scenario import Scenario, Step
from harness.scenario.steps import KINDS, LEAVES, Actor

Op = tuple[int, int, int, int]  # operation, step of the scenario, its arguments a and b: one protocol.OP_FORMAT

_BEGIN: Final = protocol.OPS["begin"][0]
_CODE: Final = protocol.OPS["code"][0]
_SET: Final = protocol.OPS["set"][0]
_RUN: Final = protocol.OPS["run"][0]
_VCPU: Final = protocol.OPS["vcpu"][0]
_LATER: Final = protocol.OPS["later"][0]


def _host_op(step: Step, index: int) -> Op:
    return protocol.OPS[step.kind][0], index, *host_arguments(step)


def _forged(scenario: Scenario, index: int) -> Iterator[Op]:
    """Yield the operations that forge the exit of a guest step; they must precede its run.

    To forge: the probe overwrites ESR_EL2 or another field after the exit, before KVM's handler reads it.
    """
    for i in range(index + 1, len(scenario.steps)):
        step = scenario.steps[i]
        if KINDS[step.kind].side is Actor.GUEST:
            return
        if step.kind == "forge":
            yield _host_op(step, i)


def _is_gpr(name: str) -> bool:
    return registers.BY_NAME[name].group is registers.Group.GPR


def _register_writes_after(steps: Sequence[Step], index: int) -> int:
    """Return the number of host steps between a guest step and the next one if all write x0 to x30; else 0."""
    end = index + 1
    while end < len(steps) and steps[end].kind == "set" and _is_gpr(str(steps[end].args[0])):
        end += 1
    more = end < len(steps) and KINDS[steps[end].kind].side is not Actor.GUEST
    return 0 if more else end - index - 1


def _operations(scenario: Scenario, fresh_vm: bool, by_probe: bool) -> Iterator[Op]:
    """Yield the operations of a scenario: set up memory and registers, then each step, then the last runs.

    A guest step is a run (``_RUN``) that ends when its instruction has trapped.  Its run waits in ``pending`` for the
    next host step, so that consecutive guest steps are one run.  ``done``: the index of the first step that has no
    operation yet; ``shaped``: the machines whose memory slots are set up.
    """
    first = first_context(scenario)
    yield _BEGIN, NO_STEP, int(fresh_vm), first
    shaped = {CONTEXTS[first].machine}
    yield from (_host_op(step, NO_STEP) for step in shaping(scenario))
    yield from (_host_op(Step("write", word), NO_STEP) for word in scenario.boot)
    initial = {"vbar_el1": VECTORS.base} | dict(scenario.registers) | {"pc": CODE.base}
    for name, value in initial.items():
        yield _SET, NO_STEP, registers.BY_NAME[name].one_reg, value
    layout = layout_of(scenario)
    for code in layout.codes.values():
        yield from ((_CODE, NO_STEP, address, word) for address, word in code.items())
    addresses = {step.step: step.address for step in layout.placed}
    forges = any(step.kind == "forge" for step in scenario.steps)
    pending: Op | None = None
    context = first
    done = 0
    for index, step in enumerate(scenario.steps):
        if index < done:
            continue
        if index in addresses:
            pending = (_RUN, index, addresses[index], int(step.kind in LEAVES))
            if forges:
                yield from _forged(scenario, index)
            if pending[3]:
                yield pending
                pending = None
            elif by_probe and (writes := _register_writes_after(scenario.steps, index)):
                # The probe does these writes at the exit; the run is that of the next guest step, or the last one.
                done, pending = index + 1 + writes, None
                yield _LATER, index, addresses[index], writes
                yield from (_host_op(scenario.steps[i], i) for i in range(index + 1, done))
            continue
        if pending is not None:
            yield pending
            pending = None
        if step.kind == "vcpu":
            context = context_named(first, str(step.args[0]))
            yield _VCPU, index, context, 0
            if CONTEXTS[context].machine not in shaped:
                shaped.add(CONTEXTS[context].machine)
                yield from (_host_op(step, NO_STEP) for step in shaping(scenario))
                if CONTEXTS[context].machine == PROTECTED_MACHINE:  # it has its own RAM
                    yield from (_host_op(Step("write", word), NO_STEP) for word in scenario.boot)
        elif step.kind != "forge":
            yield _host_op(step, index)
    if pending is not None:
        yield pending
    # One more run of each vCPU, to the trap after its last instruction: KVM applies what is pending (an advance of PC,
    # an exception, data of an MMIO read) at this entry, which is recorded.
    for other in (context, *(c for c in layout.ends if c != context)):
        if other != context:
            yield _VCPU, NO_STEP, other, 0
        yield _RUN, NO_STEP, layout.ends[other], 0


def compile_scenario(scenario: Scenario, *, fresh_vm: bool, by_probe: bool = False) -> tuple[int, bytes]:
    """Return the number of operations of a scenario, and their bytes.  ValueError: more than the mailbox holds.

    ``by_probe``: where all host steps of an exit write x0 to x30, the recording module does them, without a return to
    userspace.
    """
    operations = list(_operations(scenario, fresh_vm, by_probe))
    data = b"".join(starmap(protocol.OP_FORMAT.pack, operations))
    if len(data) > protocol.PROGRAM_SIZE:
        raise ValueError(f"{len(operations)} operations, the mailbox holds {protocol.PROGRAM_SIZE // 24}")
    return len(operations), data
