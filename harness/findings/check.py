# SPDX-License-Identifier: Apache-2.0
"""Check one recorded scenario: run every relation over its trace, and look up known divergences.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from harness.arch.cpu_models import Cpu
from harness.findings.attribution import by_catalogue, of_a_round, of_a_trace, with_causes
from harness.findings.check_again import Again
from harness.findings.checked import CheckResult, Comparison, ComparisonListener, ExplainedDivergence, Gap
from harness.findings.gic_attribution import Scene, attribute_gic
from harness.findings.known_divergences import Catalogue, Known
from harness.guest.predict_run import PredictedRun
from harness.model.memoised_replay import memoised_replay
from harness.relations.basis import basis_of
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.errata import NO_ERRATA, NONE, TargetErrata
from harness.relations.evidence import RoundEvidence, RunEvidence, TraceEvidence, predict_runs
from harness.relations.gic import GicMonitor
from harness.relations.hyp_copy import hyp_copies
from harness.relations.registry import OF_A_ROUND, OF_A_RUN, OF_A_TRACE, Evidence, Relation
from harness.relations.save_restore import why_not_comparable
from harness.scenario.code_layout import codes_of
from harness.scenario.requirements import uses_gic
from harness.scenario.scenario import Scenario
from harness.trace.events import EXIT, Switch, Trace
from harness.trace.indexed import index_trace
from harness.trace.rounds import Round

NEED_A_ROUND: Final = ("save", "restore", "host")
"""Families that cannot compare a round whose exit was forged to one that no CPU reports."""
OF_ROUNDS: Final = tuple(dict.fromkeys(relation.family for relation in OF_A_ROUND))
"""Families about rounds: none can compare one if the trace does not prove whether it begins with a reset."""
OF_THE_MODEL: Final = ("save", "restore")
"""Families that compare nothing where the model is undefined."""
_Found = tuple[Divergence | Unchecked, ...]
LookUp = Callable[[Divergence], Known | None]
"""Look up a divergence in a catalogue."""
LookUps = Callable[..., LookUp]
"""Return the look-up for a round; an argument: with some rules of the errata switched on."""


def unexplained(_: Divergence) -> None:
    """Explain nothing: no catalogue covers the divergences of a relation without a model."""


def _no_catalogue() -> LookUp:
    return unexplained


def _with_basis(found: Iterable[Divergence | Unchecked], round_: Round | None = None) -> _Found:
    return tuple(one._replace(basis=basis_of(one, round_)) if isinstance(one, Divergence) else one for one in found)


_OfRuns = list[tuple[Relation[RunEvidence], int, _Found]]


def _names(of_runs: _OfRuns) -> Mapping[int, frozenset[str]]:
    """Return the names of the divergences at the end of each run."""
    names: dict[int, frozenset[str]] = {}
    for _, event, found in of_runs:
        here = frozenset(one.name for one in found if isinstance(one, Divergence))
        names[event] = names.get(event, NONE) | here
    return names


@dataclass
class _Tally:
    """The results of a check so far; ``listener`` gets every comparison.

    ``compared`` counts the comparisons by the relations that they count for, ``skipped`` those that could not be made,
    by relation.
    """

    listener: ComparisonListener | None
    compared: dict[tuple[str, ...], int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)
    undefined: Counter[str] = field(default_factory=Counter)
    judged: list[ExplainedDivergence] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    incomplete: Counter[str] = field(default_factory=Counter)
    stood_in: Counter[str] = field(default_factory=Counter)

    @property
    def relations(self) -> Counter[str]:
        """The number of comparisons made, by relation."""
        made: Counter[str] = Counter()
        for names, times in self.compared.items():
            made.update(dict.fromkeys(names, times))
        return made

    def notify(self, families: tuple[str, ...], event: int, skipped_because: str = "") -> None:
        """Report to the listener that each of ``families`` was compared at an event, or why it was not."""
        if self.listener is not None:
            for family in families:
                self.listener(Comparison(family, event, skipped_because))

    def skip(self, families: tuple[str, ...], event: int | None, why: str) -> None:
        """Count that none of ``families`` compares anything at an event."""
        what = ", ".join(families)
        self.unchecked[f"{what}: {why}"] += 1
        self.gaps.append(Gap(what, why, event))
        self.skipped.update(families)
        self.incomplete.update(families)
        if event is not None:
            self.notify(tuple(dict.fromkeys(family.partition(".")[0] for family in families)), event, why)

    def undefine(self, event: int, why: str) -> None:
        """Count that the model is undefined at an event."""
        self.undefined[why] += 1
        self.gaps.append(Gap(", ".join(OF_THE_MODEL), f"the model is undefined: {why}", event))
        self.skipped.update(OF_THE_MODEL)
        self.incomplete.update(OF_THE_MODEL)
        self.notify(OF_THE_MODEL, event, f"the model is undefined: {why}")

    def compare(
        self,
        relations: Iterable[Relation[Evidence]],
        evidence: Evidence,
        event: int | None,
        catalogue: LookUps = _no_catalogue,
    ) -> frozenset[str]:
        """Compare by rows of the registry; ``event`` is where, None for a whole trace.

        ``catalogue`` returns the look-up for the rows for which the model predicts; it is called only if they find a
        divergence.  Returns the names of the divergences of the rows that predict with errata switched on, too.
        """
        whole: list[Relation[Evidence]] = []
        impossible: list[tuple[Relation[Evidence], str]] = []
        look_up: LookUp | None = None
        by_rule = NONE
        for relation in relations:  # several an exit
            if relation.applies is not None and not relation.applies(evidence):
                continue
            if relation.unless is not None and (why := relation.unless(evidence)):
                impossible.append((relation, why))
                continue
            found = tuple(relation.compare(evidence))
            if relation.counted:
                self.count(relation, 1 if relation.times is None else relation.times(evidence), event)
            complete = True
            if found and relation.by_model:
                look_up = look_up or catalogue()
                complete = self.take(relation, found, event, look_up)
            elif found:
                found = _with_basis(found, evidence.round if isinstance(evidence, RoundEvidence) else None)
                complete = self.take(relation, found, event)
                if relation.by_rule:
                    by_rule |= {one.name for one in found if isinstance(one, Divergence)}
            if complete:
                whole.append(relation)
        for relation, why in impossible:
            if any(relation.stand_in in row.counted for row in whole):
                self.stood_in[f"{relation.name}: {why}, {relation.stand_in} compares the same registers"] += 1
                if event is not None:
                    self.notify((relation.family,), event, why)
            else:
                self.skip((relation.name,), event, why)
        return by_rule

    def count(self, relation: Relation[Evidence], times: int, event: int | None) -> None:
        """Count comparisons that were made."""
        self.compared[relation.counted] = self.compared.get(relation.counted, 0) + times
        if self.listener is not None and event is not None:
            self.notify((relation.family,), event)

    def take_run(self, relation: Relation[RunEvidence], found: _Found, event: int) -> None:
        """Count the result of a relation of runs, of the run that ended at an event."""
        self.count(relation, 1, event)
        self.take(relation, _with_basis(found), event)

    def take(
        self, relation: Relation[Evidence], found: _Found, event: int | None, look_up: LookUp = unexplained
    ) -> bool:
        """Keep what a relation found; return whether nothing was left out."""
        whole = True
        for one in found:
            if isinstance(one, Divergence):
                self.judged.append(ExplainedDivergence(one, look_up(one)))
                continue
            whole = False
            self.unchecked[f"{one.what}: {one.why}"] += 1
            self.gaps.append(Gap(one.what, one.why, event if one.event is None else one.event))
            if event is not None:
                self.notify((relation.family,), event, one.why)
        if not whole:
            self.incomplete.update(relation.counted)
        return whole

    def unexplained(self, begin: int) -> list[Divergence]:
        """Return the divergences from ``begin`` on that no entry of the catalogue explains."""
        return [judged.divergence for judged in self.judged[begin:] if judged.known is None]

    def replace_unexplained(self, begin: int, others: Iterable[Divergence]) -> None:
        """Replace the result of :meth:`unexplained` by ``others``."""
        each = iter(others)
        self.judged[begin:] = [
            judged if judged.known is not None else ExplainedDivergence(next(each), None)
            for judged in self.judged[begin:]
        ]

    def attribute(
        self, begin: int, by_rule: frozenset[str], at: RoundEvidence, errata: TargetErrata, catalogue: LookUps
    ) -> None:
        """Set the causes among the errata of the divergences from ``begin`` on, all of one round.

        ``by_rule`` as :meth:`compare` returned it; ``catalogue`` returns the look-up of the round with some rules.
        """
        found: Iterable[Divergence] = self.unexplained(begin)
        if not found:
            return
        known = of_a_round(tuple(found), by_rule, at, errata)
        if known is not None:
            found = with_causes(found, at.round.first, known)
        self.replace_unexplained(begin, by_catalogue(found, catalogue, errata))


def check(
    scenario: Scenario,
    trace: Trace,
    level: str,
    cpu: Cpu,
    catalogue: Catalogue,
    listener: ComparisonListener | None = None,
    errata: TargetErrata = NO_ERRATA,
) -> CheckResult:
    """Compare a trace with ``level`` of the model and with the architecture; ``listener`` gets each comparison.

    ``errata`` are those of the target's kernel: a divergence that their rules predict has them as its cause.
    """
    indexed, codes = index_trace(trace), codes_of(scenario)
    gic = GicMonitor(trace.lists) if uses_gic(scenario) else None
    rows = [row for row in OF_A_ROUND if gic is not None or not row.needs_gic]
    lossy = cpu.lossy if trace.vhe else {}
    attributes = errata != NO_ERRATA
    runs: dict[int, PredictedRun] = {}
    # Compared while the guest's memory is as it was at that exit.
    of_runs: _OfRuns = []
    for at in predict_runs(indexed, codes, cpu, gic):
        runs[at.run.event] = at.run
        of_runs += ((relation, at.run.event, tuple(relation.compare(at))) for relation in OF_A_RUN)
    tally, predict, copies = _Tally(listener), memoised_replay(level), hyp_copies(trace)
    paths: list[tuple[str, tuple[tuple[str, bool], ...]]] = []
    compared: list[RoundEvidence] = []
    for round_ in indexed.rounds:
        prediction = predict(round_)
        paths.append((round_.exit_class, prediction.path))
        if round_.unproven:
            tally.skip(OF_ROUNDS, round_.first, round_.unproven)
            continue
        if reason := why_not_comparable(round_):
            tally.skip(NEED_A_ROUND, round_.first, reason)
            continue
        if prediction.undefined:
            tally.undefine(round_.first, prediction.undefined)
        run, copy = runs.get(round_.first), copies.get(round_.first)
        evidence = RoundEvidence(round_, prediction, lossy, run, copy, gic, trace.events)
        if gic is not None:
            compared.append(evidence)
        begin = len(tally.judged)
        look_ups = partial(catalogue.explainer, round_, prediction, lossy)
        by_rule = tally.compare(rows, evidence, round_.first, look_ups)
        if attributes and len(tally.judged) > begin:
            tally.attribute(begin, by_rule, evidence, errata, look_ups)
    begin = len(tally.judged)
    for of_run, event, found in of_runs:
        tally.take_run(of_run, found, event)
    whole = TraceEvidence(indexed, codes, runs, gic, cpu)
    tally.compare(OF_A_TRACE, whole, None)
    if attributes and (unexplained_here := tally.unexplained(begin)):
        tally.replace_unexplained(begin, of_a_trace(unexplained_here, Again(whole, _names(of_runs)), errata))
    if errata.gic and tally.judged:
        scene = Scene(indexed, codes, cpu, None if gic is None else compared)
        tally.judged = attribute_gic(tally.judged, scene, errata.gic)
    relations = tally.relations
    return CheckResult(
        trace.status,
        trace.dropped,
        Counter(event.exit_class for event in trace.events if event.kind == EXIT and isinstance(event, Switch)),
        relations,
        tuple(tally.judged),
        tally.unchecked,
        tally.undefined,
        tuple(paths),
        tuple(tally.gaps),
        relations + tally.skipped,
        tally.incomplete,
        tally.stood_in,
    )
