# SPDX-License-Identifier: Apache-2.0
"""Compare the hypervisor's own copy of a vCPU with the host's, in protected mode: relations ``flush.*`` and ``sync.*``.

At an entry the hypervisor flushes the host's values into its copy and runs that; at the exit it syncs the saved values
out.  No model and no architecture rule is used.  Source: docs/spec/kvm.md section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.arch import exceptions
from harness.arch.exceptions import State
from harness.arch.registers import NAMES
from harness.guest import el2_errata
from harness.relations.divergence import Divergence, different
from harness.relations.errata import NONE
from harness.relations.save_restore import ALL_GPRS
from harness.trace.environment import SCENARIO_VM, WORLDS
from harness.trace.events import ENTRY, EXIT, Hyp, Switch, Trace

RELATIONS = ("flush", "sync")


def options(signature: Sequence[str]) -> tuple[str, ...]:
    """Return the options without which no command shows a signature."""
    return ("--hyp-copy",) if signature[0] in RELATIONS else ()


def hyp_copies(trace: Trace) -> Mapping[int, Hyp]:
    """Return the hypervisor's copies by the index of the record that each belongs to."""
    return {copy.event: copy for copy in trace.hyp}


def host_visible_gprs(hyp: Hyp, exit_: Switch) -> int:
    """Return which of x0..x30 have the guest's value in the host's copy at an exit, one bit each."""
    hidden = sum(1 << i for i in different(hyp.values[:31], exit_.values[:31]))
    return ALL_GPRS & ~hidden


def compare_hyp_copy(trace: Trace, errata: frozenset[str] = NONE) -> Iterator[Divergence]:
    """Yield where the copy differs from what was flushed into it, or the host's from what was synced out of it.

    ``save.reveal`` compares what a protected VM's host may see of x0..x30 at an exit.  ``errata``: the rules of
    :mod:`harness.guest.el2_errata` that are switched on.
    """
    beside = hyp_copies(trace)
    entered: dict[int, tuple[int, Switch]] = {}
    for index, event in enumerate(trace.events):
        if not isinstance(event, Switch):
            continue
        if event.kind == ENTRY:
            entered[event.context] = index, event
        elif event.kind == EXIT and event.context in entered:
            at, entry = entered.pop(event.context)
            where = (event.exit_class, index, entry.step)
            world = WORLDS[event.context] if event.context < len(WORLDS) else SCENARIO_VM
            into, out = beside.get(at), beside.get(index)
            if into is not None:
                yield from _differ("flush", entry.values, into.values, where)
                due = el2_errata.loaded(entry.hcr, world.protected, errata)
                yield from _interrupts("flush", due, into.hcr, exceptions.HCR_VIRTUAL, where)
            if out is not None:
                yield from _differ("sync", out.values, event.values, where, 31 if world.protected else 0)
                # The CPU clears VSE; only the host changes the lines.
                due = el2_errata.returned(out.hcr, entry.hcr, world.protected, errata)
                yield from _interrupts("sync", due, event.hcr, exceptions.HCR_VSE, where)


def _differ(
    relation: str, expected: State, observed: State, where: tuple[str, int, int], first: int = 0
) -> Iterator[Divergence]:
    for i in different(expected, observed):
        if i >= first:
            yield Divergence(relation, NAMES[i], expected[i], observed[i], *where)


def _interrupts(
    relation: str, expected: int, observed: int, mask: int, where: tuple[str, int, int]
) -> Iterator[Divergence]:
    if (expected ^ observed) & mask:
        yield Divergence(relation, "hcr_el2", expected & mask, observed & mask, *where)
