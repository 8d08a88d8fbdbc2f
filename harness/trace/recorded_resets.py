# SPDX-License-Identifier: Apache-2.0
"""Add the cause of a vCPU's reset to older recordings, where the result of a CPU_ON shows it.

KVM resets a vCPU when the program asks for it (KVM_ARM_VCPU_INIT), and when the vCPU enters after another one asked
PSCI CPU_ON to start it.  The vCPU that was named may enter before the caller, whose record has the answer: the records
between are held back until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.protocol import RESET_BY
from harness.trace import psci
from harness.trace.environment import VmEnvironment
from harness.trace.events import EXIT
from harness.trace.recording import Api, Recorded

MOST_HELD = 10_000
"""Records that are held back for one answer; without an answer the reset stays as it is."""
UNSAID, INIT, CPU_ON = (RESET_BY[name] for name in ("unsaid", "init", "cpu_on"))


def name_resets(records: Iterable[Recorded]) -> Iterator[Recorded]:
    """Yield the same records; a reset between a CPU_ON that names its vCPU and the answer gets its cause."""
    stream = iter(records)
    asking: dict[tuple[int, int], int] = {}  # by caller: the affinity that it named
    held: list[Recorded] = []
    awaited: tuple[int, int] | None = None
    for recorded in stream:
        vm, vcpu, event = recorded
        answer = None
        if isinstance(event, Api):
            if event.name == "reset" and event.b != UNSAID:  # a newer recording, which has the cause
                yield from held
                yield recorded
                yield from stream
                return
            if event.name == "reset" and awaited is None:
                affinity = VmEnvironment(vcpu=vcpu).mpidr & psci.AFFINITY
                awaited = next(
                    (caller for caller, named in asking.items() if caller[0] == vm and named == affinity), None
                )
        elif event.kind == EXIT:
            asking.pop((vm, vcpu), None)
            if (call := psci.called_on(event)) is not None:
                asking[vm, vcpu] = call.target
        elif asking.pop((vm, vcpu), None) is not None and awaited == (vm, vcpu):
            answer = event.values[0]
        if awaited is None:
            yield recorded
            continue
        held.append(recorded)
        if answer is not None:
            by = CPU_ON if answer == psci.SUCCESS else INIT
            first = held[0].event
            assert isinstance(first, Api)
            held[0] = held[0]._replace(event=first._replace(b=by))
        if answer is not None or len(held) == MOST_HELD:
            yield from held
            held, awaited = [], None
    yield from held
