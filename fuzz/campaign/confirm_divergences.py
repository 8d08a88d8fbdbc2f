# SPDX-License-Identifier: Apache-2.0
"""Run a scenario again that shows unexplained divergences, and keep those that are seen again as findings.

A divergence that is new is *confirmed*: its scenario is run again, in the same VM and in a fresh one.  What is not seen
in both is kept as *flaky*.  A scenario that shows stored findings more simply waits for its turn, if no erratum
explains them: the errata have scenarios of their own, and a campaign has few of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fuzz.campaign.kept_findings import KeptFindings
from fuzz.campaign.worker_context import WorkerContext
from fuzz.campaign.worker_machines import WorkerMachines
from fuzz.store.findings import CONFIRMED_ON
from fuzz.targets.observation import ClusterKey, Observation, clusters_of, leaders_of, texts_of
from harness.errors import TargetError
from harness.findings.finding import MAX_DIVERGENCES, Finding, Tries, difference, finding_id
from harness.findings.problems import MAX_EXAMPLES
from harness.relations.divergence import Divergence
from harness.scenario.scenario import Scenario
from harness.scenario.simplify import simplicity

OWN_QEMU = "Found on the fast QEMU; fresh_vm are runs on Debian's own.\n"


class _Shown(NamedTuple):
    """A cluster of divergences that a scenario shows, with its id and its members in this run.

    ``leader`` is the id of the first cluster in this run: the later ones may be its consequences
    (:mod:`harness.findings.problems`).  It is empty if an erratum predicts this cluster.
    """

    key: ClusterKey
    id: str
    members: list[Divergence]
    leader: str


class Divergences:
    """Confirms, keeps and counts the unexplained divergences of scenarios."""

    def __init__(self, context: WorkerContext, machines: WorkerMachines, kept: KeptFindings) -> None:
        self._stats, self._now = context.stats, context.now
        self._extra = {} if context.own_qemu is None else {CONFIRMED_ON: OWN_QEMU}
        self._machines, self._kept = machines, kept
        # By the id of a kept finding, the simplest scenario that showed it since, with its simplicity: it waits.
        self._simpler: dict[str, tuple[int, Scenario]] = {}
        # By finding, the leaders for which a scenario is stored.
        self._leaders = {id_: {one.leader for one in found} for id_, found in context.findings.examples().items()}
        self._ids: dict[ClusterKey, str] = {}

    def handle(self, scenario: Scenario, found: Sequence[Observation]) -> None:
        """Keep the new divergences of a run and count the others.  TargetError: the machine was lost."""
        clusters = clusters_of(found)
        if not clusters:
            return
        weight, shown = simplicity(scenario), self._shown(clusters)
        new = [one for one in shown if self._is_new_leader(one) or one.id not in self._kept]
        for one in shown:
            if one.leader and one not in new and self._is_simpler(one.id, weight):
                self._simpler[one.id] = weight, scenario
        self._confirm(scenario, found, shown, new)

    def take_simplest(self) -> Scenario | None:
        """Return the simplest of the scenarios that wait, which then waits no longer."""
        if not self._simpler:
            return None
        _, simplest = min(self._simpler.values(), key=lambda one: one[0])
        self._simpler = {id_: one for id_, one in self._simpler.items() if one[1] is not simplest}
        return simplest

    def confirm_simpler(self, scenario: Scenario) -> None:
        """Run a scenario that waited, and confirm and keep what it shows more simply, or for the first time."""
        found, weight = self._machines.run(scenario), simplicity(scenario)
        clusters = clusters_of(found)
        new = [one for one in self._shown(clusters) if self._kept.wants(one.id, weight)]
        # What is kept was seen before: this run was the one in the same VM.
        again = frozenset(clusters) if all(one.id in self._kept for one in new) else None
        self._confirm(scenario, found, new, new, again)

    def _shown(self, clusters: Mapping[ClusterKey, list[Divergence]]) -> list[_Shown]:
        leaders = leaders_of(clusters)
        return [
            _Shown(key, self._id(key), members, self._id(leaders[key]) if key in leaders else "")
            for key, members in clusters.items()
        ]

    def _id(self, key: ClusterKey) -> str:
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = finding_id("divergence", key[2], *key[:2])
        return found

    def _is_simpler(self, id_: str, weight: int) -> bool:
        """Whether a scenario is simpler than the one that is kept with a finding, and than the one that waits."""
        waiting = self._simpler.get(id_)
        return self._kept.wants(id_, weight) and (waiting is None or weight < waiting[0])

    def _is_new_leader(self, shown: _Shown) -> bool:
        """Return whether a scenario is needed that shows a cluster with this leader: none is stored yet.

        It is true only once for each pair of cluster and leader, and for at most MAX_EXAMPLES leaders of a cluster.
        """
        leaders = self._leaders.setdefault(shown.id, set())
        if not shown.leader or shown.leader in leaders or len(leaders) >= MAX_EXAMPLES:
            return False
        leaders.add(shown.leader)
        return True

    def _confirm(
        self,
        scenario: Scenario,
        found: Sequence[Observation],
        shown: Sequence[_Shown],
        new: Sequence[_Shown],
        same: frozenset[ClusterKey] | None = None,
    ) -> None:
        """Try the clusters ``new`` again and keep them; count the others of those that are ``shown``.

        ``same``: what the scenario showed when it was run again in the same VM; None: it was not yet.
        """
        texts = {(s.subject, s.other): texts_of(s) for s in found} if new else {}
        again, fresh = same or frozenset[ClusterKey](), frozenset[ClusterKey]()
        try:
            if new:
                self._stats.add("count", "confirmations")
                if same is None:
                    again = frozenset(clusters_of(self._machines.run(scenario)))
                # What only the fast QEMU shows is not confirmed: it is kept as flaky.
                fresh = frozenset(clusters_of(self._machines.run_in_fresh_vm(scenario)))
        except TargetError:
            # The divergence is not confirmed: store it as flaky; the caller handles the lost machine.
            for one in new:
                self._keep(scenario, one, (Tries(int(one.key in again), 1), Tries(0, 0)), texts[one.key[:2]])
            raise
        else:
            for one in new:
                tries = Tries(int(one.key in again), 1), Tries(int(one.key in fresh), 1)
                self._keep(scenario, one, tries, texts[one.key[:2]])
        finally:
            for one in shown:
                if one not in new:
                    self._stats.add("unexplained", one.id, len(one.members))
                    self._kept.count(one.id)

    def _keep(self, scenario: Scenario, shown: _Shown, tries: tuple[Tries, Tries], texts: Mapping[str, str]) -> None:
        """Keep a cluster: as confirmed if both tries reproduced it, else as flaky."""
        subject, other, name = shown.key
        values = tuple(difference(d) for d in shown.members[:MAX_DIVERGENCES])
        count = len(shown.members)
        finding = Finding("divergence", name, subject, values, count, *tries, self._now(), other=other)
        extra = {**texts, **self._extra}
        if all(each.hits for each in tries):
            self._stats.add("unexplained", finding.id, count)
            self._kept.keep(finding, scenario, extra, shown.leader)
        else:
            self._stats.add("flaky", finding.id, count)
            self._kept.keep_flaky(finding, scenario, extra)
