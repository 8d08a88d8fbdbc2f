# SPDX-License-Identifier: Apache-2.0
"""Which node works on which target: each target gets a node, then go where new coverage comes from.  Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from harness.errors import InputError

TURN_SECONDS = 600.0
"""So long a node stays with a target at least, before it may be given another one."""
WINDOW_SECONDS = 600.0
"""Growth is that of the last so many seconds."""
CLEARLY = 2.0
"""A node moves to a target that grows so many times faster than its own."""


def matching(patterns: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the targets that match a pattern, or one of several with commas between.  InputError: one matches none."""
    found: dict[str, None] = {}
    for pattern in patterns.split(","):
        some = [name for name in names if fnmatchcase(name, pattern.strip())]
        if not some:
            raise InputError("--targets", None, f"{pattern[:40]!r} matches none of {', '.join(names)}")
        found |= dict.fromkeys(some)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Work:
    """A node that works: on which target, since when."""

    node: str
    target: str
    since: float


def next_target(
    targets: Sequence[str],
    working: Sequence[Work],
    gains: Mapping[str, float],
    refused: AbstractSet[str],
    served: Mapping[str, float],
) -> str | None:
    """Return what a node that is free should work on; None: it cannot do anything that is asked for.

    ``gains`` are new features a minute by target.  ``refused`` are the targets that this node cannot boot.  ``served``
    says when a node last began with a target.
    """
    count = {target: sum(work.target == target for work in working) for target in targets}
    able = [target for target in targets if target not in refused]
    if alone := [target for target in able if not count[target]]:
        return min(alone, key=lambda t: served.get(t, -1.0))
    # By what one more node may find; of equal ones, that with the fewest nodes.
    return min(able, key=lambda t: (-gains.get(t, 0.0) / (count[t] + 1), count[t]), default=None)


def who_moves(targets: Sequence[str], working: Sequence[Work], gains: Mapping[str, float], now: float) -> Work | None:
    """Return the node that should be given another target; None: all stay where they are."""
    served = {work.target for work in working}
    ready = [work for work in working if now - work.since >= TURN_SECONDS]
    count = {target: sum(work.target == target for work in working) for target in served}
    spare = [work for work in ready if count[work.target] > 1]
    if set(targets) - served:  # more targets than nodes: they take turns, those first that find least
        return min(spare or ready, key=lambda work: (gains.get(work.target, 0.0), work.since), default=None)
    best = max((gains.get(t, 0.0) / (count[t] + 1) for t in served), default=0.0)
    moving = [work for work in spare if best > CLEARLY * gains.get(work.target, 0.0) / count[work.target]]
    return min(moving, key=lambda work: (gains.get(work.target, 0.0), work.since), default=None)


@dataclass
class Growth:
    """How fast coverage of targets grows."""

    _course: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def note(self, now: float, coverage: Mapping[str, int]) -> None:
        """Note how much of each target is covered."""
        for target, covered in coverage.items():
            course = self._course.setdefault(target, deque())
            course.append((now, covered))
            while course[0][0] < now - WINDOW_SECONDS:
                course.popleft()

    def gains(self) -> dict[str, float]:
        """Return new features a minute, by target."""
        return {target: _a_minute(course) for target, course in self._course.items() if course}


def _a_minute(course: Sequence[tuple[float, int]]) -> float:
    (first, before), (last, after) = course[0], course[-1]
    return 60 * (after - before) / (last - first) if last > first else 0.0
