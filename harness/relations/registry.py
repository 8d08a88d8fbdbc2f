# SPDX-License-Identifier: Apache-2.0
"""List the relations: the module of each, what it compares, when it applies, and the words that reports use.

A new relation is a module in this room and a row here.  A row belongs to the table of its evidence: a run of a guest, a
round of the host, or a whole trace.  Checks, reports and documents go through these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from harness.relations import (
    debug_registers,
    donated_memory,
    fp_simd,
    gic,
    guest_debug,
    host,
    hyp_copy,
    isolate,
    isolate_unswitched,
    memory_slots,
    mmio,
    save_restore,
    switch,
)
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.evidence import RoundEvidence, RunEvidence, TraceEvidence
from harness.trace.indexed import IndexedTrace

Found = Iterable[Divergence | Unchecked]
Evidence = TypeVar("Evidence")


class Words(NamedTuple):
    """The words of reports about a divergence: what is compared with what, and a sentence about one difference."""

    compares: str
    sentence: str


WORDS: Mapping[str, Words] = MappingProxyType(
    {
        # By Divergence.relation.
        "host": Words(
            "the guest's state after an entry, with what the architecture, PSCI, SMCCC and the KVM API require",
            "After an exit of class {exit} the guest's {register} is {observed}. "
            "The architecture, PSCI, SMCCC or the KVM API requires {expected}.",
        ),
        "restore": Words(
            "the guest's state after an entry, with what the model of the verified layer predicts",
            "After an exit of class {exit} the guest's {register} is {observed}. "
            "The model predicts {expected}{helper}.",
        ),
        "switch": Words(
            "the registers at an exit, with what KVM loaded at the entry before; no model is used",
            "At an exit of class {exit} {register} is {observed}. "
            "What KVM had loaded at the entry leads to {expected}.",
        ),
        "save": Words(
            "what KVM does between an exit and the next entry, with what the model decides there",
            "At an exit of class {exit} KVM's {register} is {observed}. The model decides {expected}{helper}.",
        ),
        "flush": Words(
            "the hypervisor's own copy of the vCPU at an entry, with the registers that the host set",
            "Before the run that ends with an exit of class {exit} the hypervisor's {register} is {observed}. "
            "The host set {expected}.",
        ),
        "sync": Words(
            "the registers that the host gets at an exit, with the hypervisor's own copy of the vCPU",
            "At an exit of class {exit} the host's {register} is {observed}. The hypervisor saved {expected}.",
        ),
        "isolate": Words(
            "a vCPU's registers, with their values before another vCPU ran",
            "Another vCPU ran, and {register} went from {expected} to {observed}.",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Relation(Generic[Evidence]):
    """One comparison.

    ``name`` stands in reports where something could not be compared; the part before a dot is its family, under which
    coverage counts it.  ``module`` has the code.  ``shows`` lists its divergences as reports name them.  ``what`` says
    what is compared with what.  ``compare`` yields the differences and what could not be compared; it is called if
    ``applies`` is true (None: always) and ``unless`` gives no reason against it.  A comparison is counted ``times``
    times (None: once) under each name of ``counted``.  ``letter`` marks a compared cell of docs/reach.md.
    ``by_model``: the model predicts, so that the catalogue of known divergences may explain a difference.
    ``stand_in``: the family that compares the same registers by the contract if ``unless`` gives a reason.
    ``recorded``: it applies to a recording of a program.  ``needs_gic``: it compares nothing without an in-kernel GIC.
    ``by_rule``: with errata switched on in its evidence it predicts a kernel that has them.  ``of_gic``: its
    expectation depends on the GIC.
    """

    name: str
    module: ModuleType
    shows: str
    what: str
    compare: Callable[[Evidence], Found]
    applies: Callable[[Evidence], bool] | None = None
    unless: Callable[[Evidence], str] | None = None
    counted: tuple[str, ...] = ()
    times: Callable[[Evidence], int] | None = None
    letter: str = ""
    by_model: bool = False
    stand_in: str = ""
    recorded: bool = False
    needs_gic: bool = False
    by_rule: bool = False
    of_gic: bool = False

    @property
    def family(self) -> str:
        """The name under which coverage counts it."""
        return self.name.partition(".")[0]


def _reveal(at: RoundEvidence) -> Found:
    if at.run is None:
        return ()
    visible = None if at.hyp_copy is None else hyp_copy.host_visible_gprs(at.hyp_copy, at.run.exit)
    return save_restore.compare_reveal(at.round, at.run, at.prediction, visible)


def _anew(indexed: IndexedTrace) -> frozenset[int]:
    return indexed.restarts.union(indexed.unproven)


OF_A_RUN: tuple[Relation[RunEvidence], ...] = (
    Relation(
        "switch",
        switch,
        "switch.<reg>",
        "the registers at an exit, with those that the guest's instructions give by the Arm ARM",
        lambda at: switch.compare_run(at.run, at.context),
        counted=("switch",),
        letter="w",
        by_rule=True,
        of_gic=True,
    ),
)

OF_A_ROUND: tuple[Relation[RoundEvidence], ...] = (
    Relation(
        "save",
        save_restore,
        "save.class, save.dirty.<reg>, save.inject, save.pc",
        "what KVM did between an exit and the next entry, with the exit handler and dirty flags that the model chose",
        lambda at: save_restore.compare_save(at.round, at.prediction),
        lambda at: not at.prediction.undefined,
        counted=("save",),
        letter="s",
        by_model=True,
        recorded=True,
    ),
    Relation(
        "restore",
        save_restore,
        "restore.<reg>",
        "the guest's registers after an entry, with those that the model restores",
        lambda at: save_restore.compare_restore(at.round, at.prediction),
        lambda at: not at.prediction.undefined,
        lambda at: "the model panicked" if at.prediction.state is None else "",
        counted=("restore",),
        letter="r",
        by_model=True,
        stand_in="host",
        recorded=True,
    ),
    Relation(
        "reveal",
        save_restore,
        "save.reveal",
        "the general-purpose registers that the host may see at an exit, with those that the model reveals",
        _reveal,
        lambda at: at.run is not None,
        counted=("reveal",),
        letter="v",
        by_model=True,
    ),
    Relation(
        "isolate",
        isolate,
        "isolate.<reg>",
        "a vCPU's registers at an entry, with those before another vCPU ran",
        lambda at: isolate.compare_isolation(at.round),
        lambda at: at.round.other_vcpu_ran,
        counted=("isolate",),
        letter="i",
        recorded=True,
    ),
    Relation(
        "host",
        host,
        "host.<reg>, host.hcr_el2",
        "the guest's registers after an entry, with what the architecture, PSCI, SMCCC and the KVM API require",
        lambda at: host.compare_entry_state(at.round, at.lossy, at.walk_level, at.errata),
        counted=("host",),
        letter="h",
        recorded=True,
        by_rule=True,
    ),
    Relation(
        "host.mmio",
        mmio,
        "host.mmio_addr, host.mmio_len, host.mmio_data",
        "what KVM_EXIT_MMIO reports to userspace, with the access that the guest made",
        lambda at: mmio.compare_mmio_exit(at.round),
        recorded=True,
    ),
    Relation(
        "host.debug",
        guest_debug,
        "host.step_begins, host.exit_reason, host.debug_hsr, host.debug_far",
        "what KVM does for a guest that userspace debugs, with KVM_SET_GUEST_DEBUG",
        lambda at: guest_debug.compare_debugged(at.round, at.events, at.errata),
        by_rule=True,
    ),
    Relation(
        "host.gic",
        gic,
        "host.gic, host.gic_read, host.gic_line",
        "what reads of the GIC return and what KVM_IRQ_LINE answers, with a GICv3",
        lambda at: () if at.gic is None else at.gic.compare(at.round),
        needs_gic=True,
        of_gic=True,
    ),
)

OF_A_TRACE: tuple[Relation[TraceEvidence], ...] = (
    Relation(
        "host.slot",
        memory_slots,
        "host.slot",
        "what KVM_SET_USER_MEMORY_REGION answers, with what the KVM API allows",
        lambda at: memory_slots.compare_slots(at.indexed, at.ipa_bits),
        lambda at: memory_slots.asks_for_slots(at.indexed),
        by_rule=True,
    ),
    Relation(
        "host.write",
        donated_memory,
        "host.write",
        "the host's writes to memory of a protected VM, with pKVM's rules of donation",
        lambda at: donated_memory.compare_donated_memory(at.indexed),
        lambda at: True in at.codes,
    ),
    Relation(
        "isolate.unswitched",
        isolate_unswitched,
        "isolate.<unswitched reg>",
        "what a guest reads in a register that KVM does not switch, with what it read before another VM ran",
        lambda at: isolate_unswitched.compare_unswitched_registers(
            at.indexed.trace, at.runs, at.codes[False], at.departures
        ),
        lambda at: isolate_unswitched.reads_any(at.codes[False]),
        counted=("isolate",),
        of_gic=True,
    ),
    Relation(
        "hyp_copy",
        hyp_copy,
        "flush.<reg>, sync.<reg>",
        "pKVM's own copy of a vCPU at EL2, with what the host set before a run and what it gets after it",
        lambda at: hyp_copy.compare_hyp_copy(at.indexed.trace, at.errata),
        lambda at: bool(at.indexed.trace.hyp),
        counted=hyp_copy.RELATIONS,
        times=lambda at: len(at.indexed.trace.hyp) // 2,
        by_rule=True,
    ),
    Relation(
        "points",
        debug_registers,
        "host.mdcr_el2, host.dbg<reg>, switch.dbg<reg>",
        "the guest's debug registers and MDCR_EL2, with what KVM_SET_GUEST_DEBUG must keep and set",
        lambda at: debug_registers.compare_debug_registers(at.indexed.trace, at.codes[False], _anew(at.indexed)),
        lambda at: bool(at.indexed.trace.points),
        counted=("points",),
    ),
    Relation(
        "lists",
        gic,
        "host.gic_list, host.ich_hcr_el2, switch.ich_lr<n>_el2, switch.ich_vmcr_el2, switch.ich_ap1r_el2",
        "list registers, ICH_VMCR_EL2 and active priorities, with a GICv3",
        lambda at: () if at.gic is None else at.gic.found,
        lambda at: at.gic is not None and bool(at.indexed.trace.lists),
        counted=("lists",),
        of_gic=True,
    ),
    Relation(
        "vectors",
        fp_simd,
        "switch.v<n>, switch.fpsr, switch.fpcr",
        "the FP and SIMD registers at a return to userspace, with those that the guest's instructions give",
        lambda at: fp_simd.compare_vectors(at.indexed.trace, at.runs, at.indexed.restarts, at.indexed.unproven),
        lambda at: bool(at.indexed.trace.vectors),
        counted=("vectors",),
        of_gic=True,
    ),
)

ALL: tuple[Relation[Any], ...] = (*OF_A_ROUND, *OF_A_RUN, *OF_A_TRACE)
"""Every row, for callers that need only names and words."""
