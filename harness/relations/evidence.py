# SPDX-License-Identifier: Apache-2.0
"""What a relation may look at: one run of a guest, one round of the host, or a whole trace.

Every run is predicted once, and all relations see the same prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness import protocol
from harness.arch.cpu_models import Cpu
from harness.gic.departures import NONE
from harness.guest.context import GuestContext
from harness.guest.debugger import Debugger
from harness.guest.memory import Memory
from harness.guest.predict_run import PredictedRun, predict_run
from harness.model.prediction import Prediction
from harness.protocol import DEBUG_OPS
from harness.relations.gic import GicMonitor
from harness.scenario.code_layout import Code
from harness.trace.events import Host, Hyp
from harness.trace.indexed import IndexedTrace
from harness.trace.rounds import Round


class RunEvidence(NamedTuple):
    """One run of a guest: its prediction, and what it ran on; the memory is as it is at the exit."""

    run: PredictedRun
    context: GuestContext


class RoundEvidence(NamedTuple):
    """One round of the host, the model's prediction of it, and what is known beside it.

    ``lossy`` are the bits that the CPU does not keep, by register index.  ``run`` is the run that the round's exit
    ended, ``hyp_copy`` the hypervisor's own copy of the vCPU at that exit, ``gic`` the VM's interrupt controller; each
    is None where there is none, or where it was not recorded.
    """

    round: Round
    prediction: Prediction
    lossy: Mapping[int, int]
    run: PredictedRun | None = None
    hyp_copy: Hyp | None = None
    gic: GicMonitor | None = None

    @property
    def walk_level(self) -> int | None:
        """The level of the table entry at which a stage-1 walk ended the run; None: none did, or it is unknown."""
        return None if self.run is None else self.run.walk_level


@dataclass(frozen=True, slots=True)
class TraceEvidence:
    """A whole trace: its index, the code of each RAM (True: the protected VM's), every run by the index of its exit.

    ``departures``: what the kernel's GIC does otherwise than IHI 0069 has it (:mod:`harness.gic.departures`).
    """

    indexed: IndexedTrace
    codes: Mapping[bool, Code]
    runs: Mapping[int, PredictedRun]
    gic: GicMonitor | None = None
    departures: frozenset[str] = NONE


def predict_runs(
    indexed: IndexedTrace, codes: Mapping[bool, Code], cpu: Cpu, gic: GicMonitor | None = None
) -> Iterator[RunEvidence]:
    """Yield each run of a guest, with memory, slots, debugger and GIC as they are by then; ``gic`` sees every event."""
    events, slots = indexed.trace.events, indexed.slots
    debuggers: dict[int, Debugger] = {}
    contexts = {protected: GuestContext(code, cpu, Memory(code)) for protected, code in codes.items()}
    begin = 0
    for guest_run in indexed.runs:
        index, entry, exit_ = guest_run
        for at in range(begin, index):
            event = events[at]
            if gic is not None:
                gic.see(at, event)
            if not isinstance(event, Host) or event.error:
                continue
            if event.op == protocol.OP_WRITE:
                contexts[slots.environment(at, event.context).protected].memory.write(event.a, event.b)
            elif event.op in DEBUG_OPS:
                debuggers[event.context] = debuggers.get(event.context, Debugger()).after(event)
        begin = index
        environment = slots.environment(index, entry.context)
        context = contexts[environment.protected]
        context.memory.regions = environment.regions
        interface = None if gic is None else gic.enters(exit_.context)
        debugger = debuggers.get(entry.context) if entry.debugged else None
        if interface is not None or debugger is not None:
            context = GuestContext(context.code, cpu, context.memory, interface, debugger)
        run = predict_run(guest_run, context)
        if gic is not None:
            gic.left(index, exit_)
        yield RunEvidence(run, context)
    if gic is not None:
        for at in range(begin, len(events)):
            gic.see(at, events[at])
