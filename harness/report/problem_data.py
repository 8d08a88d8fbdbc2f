# SPDX-License-Identifier: Apache-2.0
"""Group kept findings: new ones into problems, by their probable cause, and known ones into errata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.findings.problems import Example, group_by_erratum, group_problems
from harness.findings.regressions import is_by_cause
from harness.report.finding_data import Story


@dataclass(frozen=True, slots=True)
class ProblemStory:
    """New findings that probably have one cause; the first of ``stories`` represents them."""

    stories: tuple[Story, ...]

    @property
    def id(self) -> str:
        """The id of its first finding."""
        return self.stories[0].id

    @property
    def count(self) -> int:
        """Number of scenarios that showed its first finding."""
        return self.stories[0].kept.count

    @property
    def first_seen(self) -> str:
        """When it was seen first, ISO 8601."""
        return min(story.kept.finding.first_seen for story in self.stories)

    @property
    def last_seen(self) -> str:
        """When it was seen last, ISO 8601."""
        return max(story.kept.last_seen for story in self.stories)


@dataclass(frozen=True, slots=True)
class ErratumStory:
    """Findings that an erratum explains; ``by_signature``: the number of them that only have its signature."""

    id: str
    stories: tuple[Story, ...]

    @property
    def count(self) -> int:
        """Lower bound of the number of scenarios that showed one of its findings."""
        return max(story.kept.count for story in self.stories)

    @property
    def by_signature(self) -> int:
        """The number of its findings that only have its signature: their cause is not determined."""
        return sum(not is_by_cause(story.kept.finding) for story in self.stories)

    @property
    def last_seen(self) -> str:
        """When it was seen last, ISO 8601."""
        return max(story.kept.last_seen for story in self.stories)


def problems_of(stories: Iterable[Story], examples: Mapping[str, Sequence[Example]]) -> tuple[ProblemStory, ...]:
    """Return new confirmed findings as problems: lost machines first, then the most frequent first."""
    new = {story.id: story for story in stories if story.kept.confirmed and not story.like}
    grouped = group_problems({id_: examples.get(id_, ()) for id_ in new})
    found = (ProblemStory(tuple(new[id_] for id_ in problem.clusters)) for problem in grouped)
    return tuple(sorted(found, key=lambda p: (p.stories[0].kept.finding.kind != "crash", -p.count, p.id)))


def errata_of(stories: Iterable[Story]) -> tuple[ErratumStory, ...]:
    """Return the errata of confirmed findings, the most frequent first; a finding may be of several."""
    found = group_by_erratum((story for story in stories if story.kept.confirmed), lambda story: story.like)
    errata = (ErratumStory(name, tuple(members)) for name, members in found.items())
    return tuple(sorted(errata, key=lambda each: (-each.count, each.id)))
