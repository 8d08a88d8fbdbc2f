# SPDX-License-Identifier: Apache-2.0
"""Store the findings of a worker, and count the further members of those that are stored.

What cannot be written, on a full disk for example, is counted, and the campaign continues.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from fuzz.campaign.worker_context import WorkerContext
from fuzz.store.findings import Store
from harness.findings.finding import Finding, Signature, Subject, Tries
from harness.scenario.scenario import Scenario, format_scenario
from harness.scenario.simplify import simplicity
from harness.vm.config_text import OTHER_TARGET, TARGET
from harness.vm.crash import EARLIER

BUMP_NS = 1_000_000_000
"""Nanoseconds between two writes of the counts of members; a killed worker loses those since the last write."""


class KeptFindings:
    """Stores findings, and counts their members."""

    def __init__(self, context: WorkerContext) -> None:
        self._with, self._stats = context, context.stats
        # By confirmed finding, the simplicity of its stored scenario: a simpler one is confirmed and replaces it.
        self._weights = context.findings.simplicities()
        # Members by finding that are not written yet (see BUMP_NS).
        self._more: Counter[str] = Counter()
        self._next_bump = 0

    def __contains__(self, id_: str) -> bool:
        """Whether a finding is confirmed and stored."""
        return id_ in self._weights

    def wants(self, id_: str, weight: int) -> bool:
        """Whether a scenario of this simplicity is simpler than the stored one, or none is stored."""
        return weight < self._weights.get(id_, weight + 1)

    def without_values(self, kind: str, signature: Signature, subject: Subject, detail: str) -> Finding:
        """Return a finding of now that is no divergence: a crash, an alarm or an internal error."""
        never = Tries(0, 0)
        return Finding(kind, signature, subject, (), 0, never, never, self._with.now(), detail)

    def keep(self, finding: Finding, scenario: Scenario | None, extra: Mapping[str, str], leader: str = "") -> None:
        """Store a finding that is confirmed, or cannot be run again.

        ``scenario``: None if the machine was booting.  ``extra`` are texts to store next to those of the targets.
        ``leader`` is the id of the first finding in the same run (:mod:`harness.findings.problems`).
        """
        if self._add(self._with.findings, finding, scenario, extra, leader) and scenario is not None:
            weight = simplicity(scenario)
            self._weights[finding.id] = min(weight, self._weights.get(finding.id, weight))

    def keep_flaky(self, finding: Finding, scenario: Scenario, extra: Mapping[str, str]) -> None:
        """Store a finding that was not seen again."""
        self._add(self._with.flaky, finding, scenario, extra, "")

    def revise(self, finding: Finding, scenario: Scenario, texts: Mapping[str, str]) -> None:
        """Replace scenario and texts of a stored finding, even if the stored scenario is simpler."""
        try:
            self._with.findings.revise(finding, scenario, texts)
        except OSError as error:
            self._count_unwritten(error)

    def count(self, id_: str) -> None:
        """Count a member of a stored finding."""
        self._more[id_] += 1
        now = self._with.ticks()
        if now >= self._next_bump:
            self._next_bump = now + BUMP_NS
            self.write_counts()

    def write_counts(self) -> None:
        """Write the counts of members: a transaction for each scenario would take as long as running it."""
        if not self._more:
            return
        try:
            self._with.findings.bump(self._more, self._with.now())
        except OSError as error:
            self._count_unwritten(error)
        self._more.clear()

    def _add(
        self, store: Store, finding: Finding, scenario: Scenario | None, extra: Mapping[str, str], leader: str
    ) -> bool:
        try:
            store.add(finding, scenario, {**self._texts_of(finding), **extra}, leader)
        except OSError as error:
            self._count_unwritten(error)
            # The summary reports the finding that could not be stored.
            self._stats.put("missing", f"{finding.id} {' '.join(finding.signature)}", 1)
            return False
        return True

    def _texts_of(self, finding: Finding) -> Mapping[str, str]:
        """Return the texts that describe the targets of a finding."""
        described = self._with.described
        if finding.other is not None:
            return described
        wanted = TARGET if finding.subject == self._with.targets.subject else OTHER_TARGET
        return {TARGET: described[wanted]} if wanted in described else {}

    def _count_unwritten(self, error: OSError) -> None:
        self._stats.add("unwritten", f"{error.strerror or error}")


def earlier_texts(scenarios: Iterable[Scenario]) -> dict[str, str]:
    """Return the texts of earlier scenarios, given in the order in which they ran; the last one has number 1."""
    ran = enumerate(reversed(tuple(scenarios)), 1)
    return {f"{EARLIER}{i:02}.scn": format_scenario(scenario) for i, scenario in ran}
