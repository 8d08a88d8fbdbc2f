# SPDX-License-Identifier: Apache-2.0
"""Attribute divergences to errata of the GIC: check the whole trace once more with their rules switched on.

All later predictions depend on the state of the interrupt controller.  So a set of rules is tried on the whole trace,
and the smallest one whose prediction is correct longest counts.  Divergences that it predicts have it as their cause;
differences from its prediction have another cause, also where the contract without it agrees by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import combinations
from typing import NamedTuple

from harness.arch.cpu_models import Cpu
from harness.arch.registers import INDEX
from harness.findings.checked import ExplainedDivergence
from harness.gic.departures import NONE
from harness.guest.predict_run import PredictedRun
from harness.relations.basis import basis_of
from harness.relations.divergence import ANOTHER_CAUSE, Divergence, Unchecked, joined
from harness.relations.evidence import RoundEvidence, TraceEvidence, predict_runs
from harness.relations.gic import GicMonitor
from harness.relations.gic_errata import may_show
from harness.relations.gic_list_registers import INTID, PENDING
from harness.relations.registry import OF_A_ROUND, OF_A_RUN, OF_A_TRACE
from harness.scenario.code_layout import Code
from harness.trace.indexed import IndexedTrace

_OF_RUNS = tuple(row for row in OF_A_RUN if row.of_gic)
_OF_ROUNDS = tuple(row for row in OF_A_ROUND if row.of_gic)
_OF_TRACES = tuple(row for row in OF_A_TRACE if row.of_gic)
NEVER = 1 << 62
"""After the last event."""
_Key = tuple[str, str, int, int]


class Scene(NamedTuple):
    """The input of another check: a trace, its code, and its rounds if a VM with a GIC is in it, else None."""

    indexed: IndexedTrace
    codes: Mapping[bool, Code]
    cpu: Cpu
    rounds: Sequence[RoundEvidence] | None


class Outcome(NamedTuple):
    """The divergences of all comparisons that depend on a GIC, by their subject, and what could not be compared.

    ``runs`` are the guest's, by the index of their exit.
    """

    divergences: Mapping[_Key, Divergence]
    unchecked: frozenset[Unchecked]
    runs: Mapping[int, PredictedRun]


def _key(one: Divergence) -> _Key:
    """Return the subject of a divergence: relation, register, event; of list registers the interrupt, too."""
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
    whole = TraceEvidence(scene.indexed, scene.codes, runs, gic, scene.cpu, departures=rules)
    for of_trace in _OF_TRACES:
        if of_trace.applies is None or of_trace.applies(whole):
            found += of_trace.compare(whole)
    differing = (one._replace(basis=basis_of(one)) for one in reversed(found) if isinstance(one, Divergence))
    divergences = {_key(one): one for one in differing}
    return Outcome(divergences, frozenset(one for one in found if isinstance(one, Unchecked)), runs)


class _Counterfactuals:
    """The outcomes of a trace with each set of the rules ``names``; every set is tried once."""

    def __init__(self, scene: Scene, names: frozenset[str]) -> None:
        self._names = names
        self._events = scene.indexed.trace.events
        self.of = cache(partial(outcome, scene))
        self.base = self.of(NONE)

    def claims(self, one: Divergence) -> bool:
        """Whether one of the rules may cause a divergence."""
        return may_show(self._names, one, self._events[one.event].context)

    def predict(self, rules: frozenset[str], one: Divergence) -> bool | None:
        """Whether rules predict the observed value where the contract does not; None: they leave it open."""
        found = self.of(rules)
        if _key(one) in found.divergences:
            return False
        run = found.runs.get(one.event)
        if run is not None and one.relation == "switch" and one.register in INDEX:
            return True if run.path.state is not None and INDEX[one.register] not in run.path.unknown else None
        # An interrupt in a list register does not depend on the others.
        shown = one.register == "gic_list" and isinstance(one.observed, int) and one.observed & PENDING
        about = (one.relation,) if shown else (one.relation, one.name)
        left_out = found.unchecked - self.base.unchecked
        return None if any(u.event == one.event and u.what in about for u in left_out) else True

    def _failures(self, rules: frozenset[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the events at which rules do not predict what they may cause, and those at which they are wrong.

        Each ends with :data:`NEVER`: of two, the greater one has the prediction that is correct longer.
        """
        wrong = [one.event for one in self.of(rules).divergences.values() if self.claims(one)]
        claimed = filter(self.claims, self.base.divergences.values())
        left_open = [one.event for one in claimed if self.predict(rules, one) is None]
        return (*sorted(wrong + left_open), NEVER), (*sorted(wrong), NEVER)

    def best(self) -> frozenset[str]:
        """Return the smallest set of rules whose prediction is correct longest; none, if no set is better.

        Of sets with the same first failure the later failures decide.
        """
        best, failures = NONE, self._failures(NONE)
        for size in range(1, len(self._names) + 1):
            for chosen in combinations(sorted(self._names), size):
                if failures[0] == (NEVER,):
                    return best
                if (found := self._failures(frozenset(chosen))) > failures:
                    best, failures = frozenset(chosen), found
        return best

    def cause(self, one: Divergence, rules: frozenset[str]) -> str:
        """Return the rules that are needed to predict a divergence; empty if they leave it open."""
        if not self.predict(rules, one):
            return ""
        needed = frozenset(name for name in rules if not self.predict(rules - {name}, one))
        return joined(needed or rules)


def attribute_gic(
    judged: Sequence[ExplainedDivergence], scene: Scene, names: frozenset[str]
) -> list[ExplainedDivergence]:
    """Return the divergences of a check, with the causes among the errata ``names`` of the target's GIC.

    Divergences found with the rules alone come last.
    """
    events = scene.indexed.trace.events
    if not any(
        one.known is None and may_show(names, one.divergence, events[one.divergence.event].context) for one in judged
    ):
        return list(judged)
    trials = _Counterfactuals(scene, names)
    base = trials.base.divergences
    rules = trials.best() if any(map(trials.claims, base.values())) else NONE
    left = trials.of(rules).divergences

    def caused(one: ExplainedDivergence) -> ExplainedDivergence:
        key, found = _key(one.divergence), one.divergence
        if one.known is not None or found.cause not in ("", ANOTHER_CAUSE):
            return one
        if key not in base or not trials.claims(found):
            return one
        return one._replace(
            divergence=left[key]._replace(cause=ANOTHER_CAUSE)
            if key in left
            else found._replace(cause=trials.cause(found, rules))
        )

    more = (one for key, one in left.items() if key not in base)
    return [
        *map(caused, judged),
        *(ExplainedDivergence(one._replace(cause=ANOTHER_CAUSE) if trials.claims(one) else one, None) for one in more),
    ]
