# SPDX-License-Identifier: Apache-2.0
"""Check a recording of a guest that is not the project's, record by record, in the memory of one round.

Relations ``save``, ``restore``, ``host`` and ``isolate`` apply as for a scenario: the environment of each vCPU (memory
slots, KVM's own devices, register writes by userspace, other vCPUs) is in the recording.  Of ``switch`` only the
registers that no code at EL1 can change are compared (:data:`KEPT`): the guest's instructions are not recorded.  What
cannot be compared is counted, with the reason (:data:`FOREIGN`, :data:`NO_VECTORS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from harness.arch import exits
from harness.arch.cpu_models import Cpu
from harness.arch.registers import INDEX
from harness.findings.check import explained_by
from harness.findings.checked import ExplainedDivergence, signature
from harness.findings.known_divergences import Catalogue
from harness.model.memoised_replay import shortcut
from harness.model.prediction import Prediction
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.evidence import RoundEvidence
from harness.relations.mmio import mmio_exit_of
from harness.relations.registry import OF_A_ROUND
from harness.trace import pending
from harness.trace.recorded_rounds import RecordedRound, Run, Span, split
from harness.trace.recording import Recorded
from harness.trace.rounds import Round

KEPT: tuple[tuple[str, str], ...] = (
    ("mpidr_el1", "read-only (Arm ARM D17.2.101); the guest sees VMPIDR_EL2"),
    ("actlr_el1", "writes trap (HCR_EL2.TACR), and KVM ignores them"),
)
"""Registers that a guest cannot change, whatever it executes."""
ABSENT = "a register that was not recorded"
FOREIGN = "registers that the guest's own code may have changed"
NO_VECTORS = "FP and SIMD registers are not in a recording"
NEVER_LEFT = "a vCPU that stayed in the kernel while others ran, which save, restore and host judge"
DEBUGGED = "a vCPU that userspace debugs (KVM_SET_GUEST_DEBUG)"
WAS_RESET = "a vCPU that was reset while others ran, which host judges"
OF_A_RECORDED_ROUND = tuple(relation for relation in OF_A_ROUND if relation.recorded)


@dataclass(frozen=True, slots=True)
class Example:
    """The first divergence of a cluster, its vCPU, its record (counted from 1), and its round if it is in one."""

    divergence: Divergence
    vm: int
    vcpu: int
    round: Round | None
    prediction: Prediction | None
    first: int

    @property
    def span(self) -> Span:
        """The records that show it: the round of the host, or the run of the guest."""
        return Span(self.vm, self.vcpu, self.first, self.divergence.event)


@dataclass
class Cluster:
    """Divergences of one signature: how many, and the first."""

    count: int
    example: Example


@dataclass
class Tally:
    """The results of a recording: counts as in ``harness.findings.checked.CheckResult``, divergences by cluster."""

    exits: Counter[str] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)
    undefined: Counter[str] = field(default_factory=Counter)
    clusters: dict[tuple[str, ...], Cluster] = field(default_factory=dict)
    vcpus: set[tuple[int, int]] = field(default_factory=set)
    absent: frozenset[str] = frozenset()

    @property
    def unexplained(self) -> int:
        """How many divergences no entry of the catalogue explains."""
        return sum(cluster.count for cluster in self.clusters.values())

    def take(self, judged: ExplainedDivergence, at: RecordedRound | Run, prediction: Prediction | None) -> None:
        """Record a divergence."""
        if judged.known is not None:
            self.known[judged.known.id] += 1
            return
        if judged.divergence.register in self.absent:
            self.unchecked[f"{judged.divergence.relation}: {ABSENT}"] += 1
            return
        key = signature(judged.divergence)
        if key in self.clusters:
            self.clusters[key].count += 1
            return
        divergence = judged.divergence._replace(event=at.record)
        round_, first = (at.round, at.round.first) if isinstance(at, RecordedRound) else (None, at.first)
        self.clusters[key] = Cluster(1, Example(divergence, at.vm, at.vcpu, round_, prediction, first))


def check_records(
    records: Iterable[Recorded],
    level: str,
    cpu: Cpu,
    catalogue: Catalogue,
    *,
    vhe: bool,
    tally: Tally,
    absent: Collection[str] = (),
) -> None:
    """Compare a recording with ``level`` of the model, with the contract, and with what no guest can change.

    ``tally`` is filled on the way: a caller may read it between two records.  ``absent`` registers are not in the
    recording.
    """
    tally.absent = frozenset(absent)
    predict = shortcut(level)
    lossy = cpu.lossy if vhe else {}
    for at in split(records):
        tally.vcpus.add((at.vm, at.vcpu))
        if isinstance(at, Run):
            tally.exits[exits.exit_class(at.exit.code, at.exit.esr)] += 1
            _check_run(at, tally)
        elif at.round.entry.debugged or (at.round.exit is not None and at.round.exit.debugged):
            tally.unchecked[f"save, restore, host, isolate: {DEBUGGED}"] += 1
        elif at.round.unproven:
            tally.unchecked[f"save, restore, host, isolate: {at.round.unproven}"] += 1
        else:
            _check_turn(at, predict(at.round), catalogue, lossy, tally)


def _check_turn(
    turn: RecordedRound, prediction: Prediction, catalogue: Catalogue, lossy: Mapping[int, int], tally: Tally
) -> None:
    if prediction.undefined:
        tally.undefined[prediction.undefined] += 1
    if turn.round.userspace_exits:
        tally.unchecked[f"switch.v*: {NO_VECTORS}"] += len(turn.round.userspace_exits)
    if mmio_exit_of(turn.round) is not None:
        tally.relations["host.mmio"] += 1
    at = RoundEvidence(turn.round, prediction, lossy)
    explain = explained_by(catalogue, at)
    for relation in OF_A_RECORDED_ROUND:
        if relation.applies is not None and not relation.applies(at):
            continue
        why = relation.unless(at) if relation.unless is not None else ""
        if relation.name == "isolate":
            if turn.round.exit is None:
                continue
            why = _why_not_isolated(turn.round)
        if why:
            tally.unchecked[f"{relation.name}: {why}"] += 1
            continue
        whole = True
        for found in relation.compare(at):
            if isinstance(found, Unchecked):
                tally.unchecked[f"{found.what}: {found.why}"] += 1
                whole = False
            else:
                known = explain(found) if relation.by_model else None
                tally.take(ExplainedDivergence(found, known), turn, prediction)
        for name in relation.counted:
            tally.relations[name] += whole


def _why_not_isolated(round_: Round) -> str:
    """Return why ``isolate`` cannot compare a round in which other vCPUs ran; empty: it can."""
    if round_.reset:
        return WAS_RESET
    return "" if round_.userspace_exits else NEVER_LEFT


_KEPT = tuple(INDEX[name] for name, _ in KEPT)


def _check_run(run: Run, tally: Tally) -> None:
    seen = pending.apply_pending(run.entry.values, run.entry.pending)
    tally.relations["switch"] += 1
    tally.unchecked[f"switch: {FOREIGN}"] += 1
    tally.unchecked[f"save.reveal: {FOREIGN}"] += 1
    for index in _KEPT:
        if seen[index] != run.exit.values[index]:
            exit_class = exits.exit_class(run.exit.code, run.exit.esr)
            name = KEPT[_KEPT.index(index)][0]
            found = Divergence("switch", name, seen[index], run.exit.values[index], exit_class, run.record, 0)
            tally.take(ExplainedDivergence(found, None), run, None)
