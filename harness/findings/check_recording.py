# SPDX-License-Identifier: Apache-2.0
"""Check a recording of a guest that is not the project's, record by record, in the memory of one round.

Relations ``save``, ``restore``, ``host`` and ``isolate`` hold as for a scenario: what surrounds each vCPU (memory
slots, devices of KVM's own, register writes by userspace, other vCPUs) is in the recording.  Of ``switch`` only that
remains which no code at EL1 can change (:data:`KEPT`): what the guest executed is not recorded.  What cannot be judged
is counted, with the reason (:data:`FOREIGN`, :data:`NO_VECTORS`).

Several levels of the model are compared in one reading; what no model is asked about is compared once, and counted with
each level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from harness.arch import exits
from harness.arch.cpu_models import Cpu
from harness.arch.registers import INDEX
from harness.findings.attribution import by_catalogue, of_a_round, with_causes
from harness.findings.checked import signature
from harness.findings.known_divergences import Catalogue, Known
from harness.model.memoised_replay import memoised_replay
from harness.model.prediction import Prediction
from harness.relations.basis import basis_of
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.errata import NO_ERRATA, NONE, TargetErrata
from harness.relations.evidence import RoundEvidence
from harness.relations.mmio import mmio_exit_of
from harness.relations.registry import OF_A_ROUND, Relation
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
BY_MODEL = tuple(relation for relation in OF_A_ROUND if relation.recorded and relation.by_model)
BY_CONTRACT = tuple(relation for relation in OF_A_ROUND if relation.recorded and not relation.by_model)


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
    """What a recording showed on one level; counts as in :class:`harness.findings.checked.CheckResult`.

    Divergences are counted by cluster.  ``rounds`` are those that were compared.
    """

    rounds: int = 0
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

    def take(self, found: Divergence, at: RecordedRound | Run, prediction: Prediction | None) -> None:
        """File a divergence that the catalogue does not explain."""
        if found.register in self.absent:
            self.unchecked[f"{found.relation}: {ABSENT}"] += 1
            return
        key = signature(found)
        if key in self.clusters:
            self.clusters[key].count += 1
            return
        round_, first = (at.round, at.round.first) if isinstance(at, RecordedRound) else (None, at.first)
        self.clusters[key] = Cluster(
            1, Example(found._replace(event=at.record), at.vm, at.vcpu, round_, prediction, first)
        )


@dataclass(frozen=True, slots=True)
class Against:
    """What a recording is compared with: levels of the model, each with its catalogue, and what runs them.

    ``vhe`` is how the host ran KVM; ``errata`` are those of the host's kernel, whose rules give a divergence its cause.
    """

    catalogues: Mapping[str, Catalogue]
    cpu: Cpu
    vhe: bool
    errata: TargetErrata = NO_ERRATA

    @property
    def lossy(self) -> Mapping[int, int]:
        """The bits that registers which were live in the CPU do not keep, by index."""
        return self.cpu.lossy if self.vhe else {}


def check_records(
    records: Iterable[Recorded], against: Against, tallies: Mapping[str, Tally], absent: Collection[str] = ()
) -> None:
    """Compare a recording with levels of the model, with the contract, and with what no guest can change.

    ``tallies``, one a level, are filled as it goes: a caller may look at them between two records.  Registers that are
    ``absent`` are not in the recording.
    """
    for tally in tallies.values():
        tally.absent = frozenset(absent)
    predict = {level: memoised_replay(level) for level in tallies}
    for at in split(records):
        for tally in tallies.values():
            tally.vcpus.add((at.vm, at.vcpu))
        if isinstance(at, Run):
            for tally in tallies.values():
                tally.exits[exits.exit_class(at.exit.code, at.exit.esr)] += 1
                _check_run(at, tally)
        elif why := _why_not_judged(at.round):
            for tally in tallies.values():
                tally.unchecked[f"save, restore, host, isolate: {why}"] += 1
        else:
            _check_turn(at, {level: of(at.round) for level, of in predict.items()}, against, tallies)


def _why_not_judged(round_: Round) -> str:
    if round_.entry.debugged or (round_.exit is not None and round_.exit.debugged):
        return DEBUGGED
    return round_.unproven


def _check_turn(
    turn: RecordedRound, predictions: Mapping[str, Prediction], against: Against, tallies: Mapping[str, Tally]
) -> None:
    round_, errata = turn.round, against.errata
    at = RoundEvidence(round_, next(iter(predictions.values())), against.lossy)
    contract = _compare(BY_CONTRACT, at)
    of_contract = tuple(one._replace(basis=basis_of(one, round_)) for one in contract.found)
    known = of_a_round(of_contract, contract.by_rule, at, errata) if of_contract and errata != NO_ERRATA else None
    for level, tally in tallies.items():
        at = at._replace(prediction=predictions[level])
        model = _compare(BY_MODEL, at)
        tally.rounds += 1
        for compared in (contract, model):
            tally.relations.update(compared.relations)
            tally.unchecked.update(compared.unchecked)
        if at.prediction.undefined:
            tally.undefined[at.prediction.undefined] += 1
        if round_.userspace_exits:
            tally.unchecked[f"switch.v*: {NO_VECTORS}"] += len(round_.userspace_exits)
        if mmio_exit_of(round_) is not None:
            tally.relations["host.mmio"] += 1
        if not of_contract and not model.found:
            continue
        catalogue = against.catalogues[level]
        found: Iterable[Divergence] = of_contract
        if model.found:
            explain = catalogue.explainer(round_, at.prediction, at.lossy)
            found = (*of_contract, *_unexplained(model.found, explain, tally.known))
        if known is not None:
            found = with_causes(found, round_.first, known)
        if errata != NO_ERRATA:
            look_up = partial(catalogue.explainer, round_, at.prediction, at.lossy)
            found = by_catalogue(found, look_up, errata)
        for one in found:
            tally.take(one, turn, at.prediction)


class _Compared(NamedTuple):
    """What some relations found in one turn of the host, which of them are counted, and what could not be compared.

    ``by_rule``: the names of what those of them found that predict with errata switched on, too.
    """

    found: list[Divergence]
    relations: list[str]
    unchecked: list[str]
    by_rule: frozenset[str] = NONE


def _compare(relations: Iterable[Relation[RoundEvidence]], at: RoundEvidence) -> _Compared:
    compared, by_rule = _Compared([], [], []), set[str]()
    for relation in relations:
        if relation.applies is not None and not relation.applies(at):
            continue
        why = relation.unless(at) if relation.unless is not None else ""
        if relation.name == "isolate":
            if at.round.exit is None:
                continue
            why = _why_not_isolated(at.round)
        if why:
            compared.unchecked.append(f"{relation.name}: {why}")
            continue
        whole = True
        for one in relation.compare(at):
            if isinstance(one, Unchecked):
                compared.unchecked.append(f"{one.what}: {one.why}")
                whole = False
            else:
                compared.found.append(one)
                if relation.by_rule:
                    by_rule.add(one.name)
        if whole:
            compared.relations.extend(relation.counted)
    return compared._replace(by_rule=frozenset(by_rule))


def _unexplained(
    found: Iterable[Divergence], explain: Callable[[Divergence], Known | None], known: Counter[str]
) -> Iterator[Divergence]:
    """Yield what the catalogue does not explain; count the rest by entry."""
    for one in found:
        entry = explain(one)
        if entry is None:
            yield one
        else:
            known[entry.id] += 1


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
            tally.take(found, run, None)
