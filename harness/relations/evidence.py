# SPDX-License-Identifier: Apache-2.0
"""Define the evidence that a relation gets: one run of a guest, one round of the host, or a whole trace.

Every run is predicted once, and all relations see the same prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness import protocol
from harness.arch.cpu_models import Cpu
from harness.guest import el2_errata
from harness.guest.context import GuestContext
from harness.guest.debugger import Debugger
from harness.guest.memory import Memory
from harness.guest.predict_run import PredictedRun, predict_run
from harness.model.prediction import Prediction
from harness.protocol import DEBUG_OPS
from harness.relations.errata import IGNORES_SIZE, NONE
from harness.relations.gic import GicMonitor
from harness.scenario.code_layout import Code
from harness.trace.environment import IPA_BITS
from harness.trace.events import Event, Host, Hyp
from harness.trace.indexed import IndexedTrace
from harness.trace.rounds import Round


class RunEvidence(NamedTuple):
    """One run of a guest: its prediction and its context; the memory is as it is at the exit."""

    run: PredictedRun
    context: GuestContext


class RoundEvidence(NamedTuple):
    """One round of the host, the model's prediction of it, and further evidence.

    ``lossy`` are the bits that the CPU does not keep, by register index.  ``run`` is the run that the round's exit
    ended, ``hyp_copy`` the hypervisor's own copy of the vCPU at that exit, ``gic`` the VM's interrupt controller; each
    is None where there is none, or where it was not recorded.  ``events`` are those of the trace as they were recorded,
    ``errata`` the rules of :mod:`harness.relations.errata` that are switched on.
    """

    round: Round
    prediction: Prediction
    lossy: Mapping[int, int]
    run: PredictedRun | None = None
    hyp_copy: Hyp | None = None
    gic: GicMonitor | None = None
    events: tuple[Event, ...] = ()
    errata: frozenset[str] = NONE

    @property
    def walk_level(self) -> int | None:
        """The level of the table entry at which a stage-1 walk ended the run; None: none did, or it is unknown."""
        return None if self.run is None else self.run.walk_level


@dataclass(frozen=True, slots=True)
class TraceEvidence:
    """A whole trace: its index, the code of each RAM (True: the protected VM's), every run by the index of its exit.

    ``cpu`` is the target's (None: unknown), ``errata`` are the rules that are switched on; ``departures``: the
    differences between the kernel's GIC and IHI 0069 (:mod:`harness.gic.departures`).
    """

    indexed: IndexedTrace
    codes: Mapping[bool, Code]
    runs: Mapping[int, PredictedRun]
    gic: GicMonitor | None = None
    cpu: Cpu | None = None
    errata: frozenset[str] = NONE
    departures: frozenset[str] = NONE

    @property
    def ipa_bits(self) -> int:
        """The size of each VM's physical address space."""
        return self.cpu.pa_bits if self.cpu is not None and IGNORES_SIZE in self.errata else IPA_BITS


def predict_runs(
    indexed: IndexedTrace,
    codes: Mapping[bool, Code],
    cpu: Cpu,
    gic: GicMonitor | None = None,
    errata: frozenset[str] = NONE,
) -> Iterator[RunEvidence]:
    """Yield each run of a guest, with memory, slots, debugger and GIC as they are then; ``gic`` gets every event.

    ``errata``: the rules of :mod:`harness.guest.el2_errata` that are switched on.
    """
    events, slots = indexed.trace.events, indexed.slots
    debuggers: dict[int, Debugger] = {}
    contexts = {protected: GuestContext(code, cpu, Memory(code), errata=errata) for protected, code in codes.items()}
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
        debugger = el2_errata.debugged(debuggers.get(entry.context) if entry.debugged else None, errata)
        if interface is not None or debugger is not None:
            context = GuestContext(context.code, cpu, context.memory, interface, debugger, errata)
        run = predict_run(guest_run, context)
        if gic is not None:
            gic.left(index, exit_)
        yield RunEvidence(run, context)
    if gic is not None:
        for at in range(begin, len(events)):
            gic.see(at, events[at])
