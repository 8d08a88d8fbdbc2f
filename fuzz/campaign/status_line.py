# SPDX-License-Identifier: Apache-2.0
"""Format the one-line status of a running campaign and find its new clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from fuzz.campaign.parent import Progress
from fuzz.store.findings import Store
from harness.errors import InputError
from harness.findings.regressions import NEW, Regression, like


class NewClusterCounter:
    """Finds the clusters that no kept regression explains; reads each from the store once."""

    def __init__(self, store: Store, kept: Sequence[Regression]) -> None:
        self._store, self._kept = store, kept
        self._new: dict[str, bool] = {}

    def count(self, ids: Iterable[str]) -> int:
        """Return the number of new clusters so far, ``ids`` included; clusters that are not stored yet do not count."""
        self.add(ids)
        return sum(self._new.values())

    def add(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return the new clusters among ``ids`` that no earlier call returned."""
        fresh = []
        for id_ in ids:
            if id_ not in self._new:
                with suppress(InputError):
                    self._new[id_] = not like(self._kept, self._store.load(id_))
                    fresh += [id_] * self._new[id_]
        return tuple(fresh)


def status_line(progress: Progress, new: int = 0) -> str:
    """Return the status of a campaign as one line; ``new`` of its clusters are like no kept regression."""
    stats = progress.stats
    if not progress.seconds:
        return f"{progress.alive} workers booting"
    checked = stats.get("count", "checked_exits")
    lost, flaky = stats.total("lost"), len(stats.group("flaky"))
    clusters = len(stats.group("unexplained"))
    minutes, seconds = divmod(round(progress.left), 60)
    # The most important part is first: a narrow terminal cuts off the end.
    parts = [
        f"{minutes}:{seconds:02d} left",
        f"{new} {NEW}",
        f"{clusters} clusters",
        f"{checked / progress.seconds:.0f} checked exits/s",
        f"coverage {stats.coverage}",
        f"{stats.get('count', 'scenarios')} scenarios",
        *([f"lost machines {lost}"] if lost else []),
        *([f"flaky {flaky}"] if flaky else []),
    ]
    return ", ".join(parts)
