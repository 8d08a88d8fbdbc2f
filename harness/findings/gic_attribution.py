# SPDX-License-Identifier: Apache-2.0
"""Attribute divergences to errata of the GIC: check the whole trace once more with their rules switched on.

What an interrupt controller did is the state that all later predictions rest on.  So a set of rules is tried on the
whole trace, and the smallest one with which the prediction holds furthest counts.  What it predicts has it as its
cause; what differs from its prediction has another cause, also where the contract without it agrees by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from harness.arch.cpu_models import Cpu
from harness.arch.registers import INDEX
from harness.findings.checked import ExplainedDivergence
from harness.gic.departures import NONE
from harness.guest.predict_run import PredictedRun
from harness.relations.divergence import ANOTHER_CAUSE, Divergence, Unchecked
from harness.relations.evidence import RoundEvidence, TraceEvidence, predict_runs
from harness.relations.gic import GicMonitor
from harness.relations.gic_errata import may_show
from harness.relations.gic_list_registers import INTID
from harness.relations.registry import OF_A_ROUND, OF_A_RUN, OF_A_TRACE
from harness.scenario.code_layout import Code
from harness.trace.indexed import IndexedTrace

_OF_RUNS = tuple(row for row in OF_A_RUN if row.of_gic)
_OF_ROUNDS = tuple(row for row in OF_A_ROUND if row.of_gic)
_OF_TRACES = tuple(row for row in OF_A_TRACE if row.of_gic)
NEVER = 1 << 62
"""After the last event."""
_Key = tuple[str, str, int, int]
_Claims = Callable[[Divergence], bool]


class Scene(NamedTuple):
    """What is checked again: a trace, its code, and its rounds if a VM with a GIC is in it, else None."""

    indexed: IndexedTrace
    codes: Mapping[bool, Code]
    cpu: Cpu
    rounds: Sequence[RoundEvidence] | None


class Outcome(NamedTuple):
    """What all comparisons that depend on a GIC find, by what they are about, and what could not be compared.

    ``runs`` are the guest's, by the index of their exit.
    """

    divergences: Mapping[_Key, Divergence]
    unchecked: frozenset[Unchecked]
    runs: Mapping[int, PredictedRun]


def _key(one: Divergence) -> _Key:
    """Return what a divergence is about: relation, register, event; of list registers the interrupt, too."""
    value = one.observed or one.expected
    intid = value & INTID if one.register == "gic_list" and isinstance(value, int) else 0
    return one.relation, one.register, one.event, intid


def outcome(scene: Scene, rules: frozenset[str]) -> Outcome:
    """Compare a trace with a GIC that has these rules; see :data:`harness.relations.gic_errata.GIC_RULES`."""
    trace = scene.indexed.trace
    gic = None if scene.rounds is None else GicMonitor(trace.lists, rules)
    runs: dict[int, PredictedRun] = {}
    found: list[Divergence | Unchecked] = []
    for at in predict_runs(scene.indexed, scene.codes, scene.cpu, gic):
        runs[at.run.event] = at.run
        for of_run in _OF_RUNS:
            found += (
                one._replace(event=at.run.event) if isinstance(one, Unchecked) else one for one in of_run.compare(at)
            )
    for round_ in scene.rounds or ():
        for of_round in _OF_ROUNDS:
            found += of_round.compare(round_._replace(run=runs.get(round_.round.first), gic=gic))
    whole = TraceEvidence(scene.indexed, scene.codes, runs, gic, rules)
    for of_trace in _OF_TRACES:
        if of_trace.applies is None or of_trace.applies(whole):
            found += of_trace.compare(whole)
    divergences = {_key(one): one for one in reversed(found) if isinstance(one, Divergence)}
    return Outcome(divergences, frozenset(one for one in found if isinstance(one, Unchecked)), runs)


def _predicts(with_rules: Outcome, base: Outcome, one: Divergence) -> bool | None:
    """Whether rules predict what was observed where the contract does not; None: they leave it open."""
    if _key(one) in with_rules.divergences:
        return False
    run = with_rules.runs.get(one.event)
    if run is not None and one.relation == "switch" and one.register in INDEX:
        return True if run.path.state is not None and INDEX[one.register] not in run.path.unknown else None
    left_out = with_rules.unchecked - base.unchecked
    return None if any(u.event == one.event and u.what in (one.relation, one.name) for u in left_out) else True


class _Trial(NamedTuple):
    """A set of rules, what is found with it, and up to which event it predicts all that may be a rule's doing."""

    rules: frozenset[str]
    outcome: Outcome
    until: int


def _try(rules: frozenset[str], again: Callable[[frozenset[str]], Outcome], base: Outcome, claims: _Claims) -> _Trial:
    found = again(rules)
    wrong = [one.event for one in found.divergences.values() if claims(one)]
    wrong += [one.event for one in base.divergences.values() if claims(one) and _predicts(found, base, one) is None]
    return _Trial(rules, found, min(wrong, default=NEVER))


def _best(names: frozenset[str], again: Callable[[frozenset[str]], Outcome], base: Outcome, claims: _Claims) -> _Trial:
    """Return the smallest set of rules with which the prediction holds furthest; none, if it is no better with any."""
    best = _Trial(NONE, base, min(one.event for one in base.divergences.values() if claims(one)))
    for size in range(1, len(names) + 1):
        for chosen in combinations(sorted(names), size):
            trial = _try(frozenset(chosen), again, base, claims)
            if trial.until > best.until:
                best = trial
            if best.until == NEVER:
                return best
    return best


def attribute_gic(
    judged: Sequence[ExplainedDivergence], scene: Scene, names: frozenset[str]
) -> list[ExplainedDivergence]:
    """Return all that a check has found, with the causes among the errata ``names`` of the target's GIC."""
    events = scene.indexed.trace.events

    def claims(one: Divergence) -> bool:
        return may_show(names, one, events[one.event].context)

    if not any(claims(one.divergence) for one in judged if one.known is None):
        return list(judged)
    base = outcome(scene, NONE)
    if not any(claims(one) for one in base.divergences.values()):
        return list(judged)
    best = _best(names, lambda rules: outcome(scene, rules), base, claims)
    caused = [
        one if one.known is not None else ExplainedDivergence(_with_cause(one.divergence, base, best, claims), None)
        for one in judged
    ]
    more = best.outcome.divergences.keys() - base.divergences.keys()
    return caused + [
        ExplainedDivergence(one._replace(cause=ANOTHER_CAUSE) if claims(one) else one, None)
        for key, one in best.outcome.divergences.items()
        if key in more
    ]


def _with_cause(one: Divergence, base: Outcome, best: _Trial, claims: _Claims) -> Divergence:
    """Return what was found without rules with its cause, or what is found in its place with them."""
    if _key(one) not in base.divergences or not claims(one):
        return one
    if (still := best.outcome.divergences.get(_key(one))) is not None:
        return still._replace(cause=ANOTHER_CAUSE)
    return one._replace(cause=", ".join(sorted(best.rules))) if _predicts(best.outcome, base, one) else one
