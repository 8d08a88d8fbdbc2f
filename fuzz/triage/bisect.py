# SPDX-License-Identifier: Apache-2.0
"""Search the neighbouring kernels between which an outcome changes, with few boots.  Pure: the caller runs kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from harness.vm.cache import Cache
from harness.vm.debian.changelog import notes, read_changelog, upstream
from harness.vm.debian.kernel_archive import Kernels
from harness.vm.debian.versions import linux_version
from harness.vm.kernels.fetch import CHANGELOG, find_fetched

Outcome = tuple[str, ...]
"""Names of unexplained divergences and alarms; empty: none."""

Probe = Callable[[Sequence[str]], Mapping[str, Outcome | None]]
"""Runs kernels and returns the outcome of each; None: the kernel cannot run."""


@dataclass(frozen=True, slots=True)
class OutcomeChange:
    """Two kernels with different outcomes, between which no kernel can run."""

    before: str
    after: str
    outcomes: tuple[Outcome, Outcome]

    @property
    def appears(self) -> Outcome:
        """Return the names that only the second kernel shows."""
        return tuple(name for name in self.outcomes[1] if name not in self.outcomes[0])

    @property
    def disappears(self) -> Outcome:
        """Return the names that only the first kernel shows."""
        return tuple(name for name in self.outcomes[0] if name not in self.outcomes[1])


@dataclass(frozen=True, slots=True)
class Search:
    """A finished search: the kernels that were run, with their outcomes, in version order; and the changes."""

    probed: Mapping[str, Outcome | None]
    changes: tuple[OutcomeChange, ...]


def ends_of_series(versions: Sequence[str]) -> tuple[str, ...]:
    """Return the first and the last kernel of each series: series get fixes at different times."""
    found: dict[str, None] = {}
    for _, group in groupby(versions, key=linux_version):
        series = list(group)
        found |= dict.fromkeys((series[0], series[-1]))
    return tuple(found)


def search(versions: Sequence[str], first: Sequence[str], probe: Probe) -> Search:
    """Find the changes by bisection between kernels with different outcomes; ``versions`` are in order.

    The kernels ``first`` are run first (the ends, or :func:`ends_of_series`).  A change and its reversal between two
    kernels with the same outcome are not found.  A kernel that cannot run is left out; the nearest one replaces one of
    ``first``.  If none of the first kernels can run, the search ends.
    """
    known: dict[str, Outcome | None] = {}
    ends = dict.fromkeys(first)
    wanted: Sequence[str] = tuple(ends)
    while wanted:
        known |= probe(wanted)
        ran = [version for version in versions if known.get(version) is not None]
        if not ran:
            break
        gaps = [_between(versions, a, b, known) for a, b in pairwise(ran) if known[a] != known[b]]
        middles = [gap[len(gap) // 2] for gap in gaps if gap]
        failed = [version for version in wanted if version in ends and known[version] is None]
        instead = [near for version in failed if (near := _nearest(versions, version, known)) is not None]
        ends |= dict.fromkeys(instead)
        wanted = tuple(dict.fromkeys([*middles, *instead]))
    ran = [version for version in versions if known.get(version) is not None]
    changes = [OutcomeChange(a, b, (known[a] or (), known[b] or ())) for a, b in pairwise(ran) if known[a] != known[b]]
    return Search({version: known[version] for version in versions if version in known}, tuple(changes))


def _between(versions: Sequence[str], low: str, high: str, known: Mapping[str, Outcome | None]) -> list[str]:
    inside = versions[versions.index(low) + 1 : versions.index(high)]
    return [version for version in inside if version not in known]


def _nearest(versions: Sequence[str], version: str, known: Mapping[str, Outcome | None]) -> str | None:
    here = versions.index(version)
    left = [other for other in versions if other not in known]
    return min(left, key=lambda other: abs(versions.index(other) - here), default=None)


def confidence(runs: int) -> float:
    """Return the confidence that a finding with a rate of 1/2 is absent, after ``runs`` runs without it."""
    return float(1 - 0.5**runs)


def split_target(name: str) -> tuple[str, str]:
    """Return a target's name without its kernel, and the kernel: ``CONFIG@KERNEL%CPU`` is ``CONFIG%CPU`` and KERNEL."""
    base, mark, emulator = name.partition("%")
    config, _, version = base.partition("@")
    return f"{config}{mark}{emulator}", version


def target_name(config: str, version: str) -> str:
    """Return the name of a configuration, which may have an emulator, with a kernel."""
    base, mark, emulator = config.partition("%")
    return f"{base}@{version}{mark}{emulator}"


def changelog_lines(change: OutcomeChange, cache: Cache, kernels: Kernels) -> Iterator[str]:
    """Yield the lines of the later kernel's changelog on a change."""
    fetched = find_fetched(cache, kernels.find(change.after))
    if fetched is None or not (fetched.image.path / CHANGELOG).is_file():
        yield "  (the later package has no changelog)"
        return
    text = read_changelog(fetched.image.path / CHANGELOG)
    jumps = upstream(text, change.before, change.after)
    if jumps:
        yield f"  new upstream releases between them, whose changes Debian does not list: {', '.join(reversed(jumps))}"
    lines = list(notes(text, change.before, change.after))
    yield f"  {len(lines)} lines of Debian's changelog between them mention KVM on arm64" + (":" if lines else "")
    for note in lines:
        yield f"    {note.version}: {note.text}"
