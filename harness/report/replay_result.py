# SPDX-License-Identifier: Apache-2.0
"""Define the results of a replay: one run of a scenario on a target, a target's runs, and their sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.exit_status import ExitStatus
from harness.findings.asserted_alarms import Asserted
from harness.findings.checked import CheckResult, complete_share, signature
from harness.report.left_out import FailedStep, LeftOut
from harness.report.sites import Site
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.trace.expectations import Expectation
from harness.vm.alarms import Alarm

Signature = tuple[str, ...]
"""Relation, register, exit class, helper: see :func:`harness.findings.checked.signature`."""


@dataclass(frozen=True, slots=True)
class Job:
    """A scenario to run, its origin, and the number of its repetition (from 1).

    ``label`` is the short name for people: the file's name if that is unique, else its path as in ``name``.
    """

    name: str
    label: str
    scenario: Scenario
    repeat: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A completed job: its trace, the result of the check, its divergent sites, and the kernel's alarms.

    ``asserted``: alarms that are KVM's own assertions about a forged exit, not findings.  ``left_out``: each comparison
    that was not made; ``failed``: the failed host steps; ``expected``: the results of the scenario's expectations.
    """

    job: Job
    trace: Trace
    checked: CheckResult
    sites: tuple[Site, ...]
    alarms: tuple[Alarm, ...] = ()
    asserted: tuple[Asserted, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    failed: tuple[FailedStep, ...] = ()
    expected: tuple[Expectation, ...] = ()

    @property
    def exits(self) -> int:
        """Number of recorded exits."""
        return sum(self.checked.exits.values())

    @property
    def known(self) -> int:
        """Number of divergences that the catalogue explains."""
        return len(self.checked.judged) - self.unexplained

    @property
    def unexplained(self) -> int:
        """Number of divergences that the catalogue does not explain."""
        return len(self.checked.unexplained)

    @property
    def unmet(self) -> int:
        """Number of values that the scenario expects and that were not observed."""
        return sum(one.failed for one in self.expected)

    @property
    def not_compared(self) -> Mapping[str, int]:
        """Comparisons that were not made, by reason: the value is unknown, or the model is undefined there."""
        undefined = {f"model undefined: {why}": count for why, count in self.checked.undefined.items()}
        return {**self.checked.unchecked, **undefined}


@dataclass(frozen=True, slots=True)
class Lost:
    """A lost target: the job (None: during boot), the reason, and the end of its console."""

    job: Job | None
    reason: str
    console_tail: str


@dataclass(frozen=True, slots=True)
class TargetResult:
    """All results of one target; ``seconds`` of wall clock include its boots.

    ``boot_alarms``: alarms of its kernel during boot, which no scenario caused.
    """

    target: str
    kernel: str
    boots: int
    seconds: float
    ran: tuple[Ran, ...]
    lost: tuple[Lost, ...]
    boot_alarms: tuple[Alarm, ...] = ()

    @property
    def totals(self) -> Mapping[str, int]:
        """Sums: ``runs``, ``exits``, ``known``, ``unexplained``, ``not_compared``, ``lost``, ``alarms``,
        ``asserted``, ``failed`` (host steps), ``unmet`` (expected values that were not observed)."""
        return {
            "runs": len(self.ran),
            "exits": sum(r.exits for r in self.ran),
            "known": sum(r.known for r in self.ran),
            "unexplained": sum(r.unexplained for r in self.ran),
            "not_compared": sum(sum(r.not_compared.values()) for r in self.ran),
            "lost": len(self.lost),
            "alarms": sum(len(r.alarms) for r in self.ran),
            "asserted": sum(len(r.asserted) for r in self.ran),
            "failed": sum(len(r.failed) for r in self.ran),
            "unmet": sum(r.unmet for r in self.ran),
        }

    def exits_by_class(self) -> Counter[str]:
        """Exits by class."""
        return _sum(r.checked.exits for r in self.ran)

    def relations(self) -> Counter[str]:
        """Comparisons by relation."""
        return _sum(r.checked.relations for r in self.ran)

    def causes(self) -> Counter[str]:
        """Unexplained divergences with a known cause, by cause."""
        return Counter(d.cause for ran in self.ran for d in ran.checked.unexplained if d.cause)

    @property
    def complete_share(self) -> float:
        """The share of comparisons without gaps."""
        return complete_share(_sum(r.checked.attempted for r in self.ran), _sum(r.checked.incomplete for r in self.ran))

    def stood_in(self) -> Counter[str]:
        """Comparisons that another relation made instead of one that could not, by reason."""
        return _sum(r.checked.stood_in for r in self.ran)

    def not_compared(self) -> Counter[str]:
        """Comparisons that were not made, by reason."""
        return _sum(r.not_compared for r in self.ran)


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


@dataclass(frozen=True, slots=True)
class Cluster:
    """Unexplained divergences of one signature: their number on each target, the runs that show it, and the first.

    ``reproduced`` counts runs that show it among all runs of the scenarios that show it at least once.  ``first`` is
    the label of the first of them.
    """

    signature: Signature
    counts: Mapping[str, int]
    reproduced: tuple[int, int]
    first: str


def clusters(results: Iterable[TargetResult]) -> tuple[Cluster, ...]:
    """Group the unexplained divergences of all targets, the most frequent first."""
    counts: dict[Signature, Counter[str]] = {}
    first: dict[Signature, str] = {}
    seen: dict[Signature, Counter[tuple[str, str]]] = {}
    runs: Counter[tuple[str, str]] = Counter()
    for target, ran in _runs(results):
        where = target, ran.job.name
        runs[where] += 1
        found = Counter(signature(divergence) for divergence in ran.checked.unexplained)
        for key, count in found.items():
            counts.setdefault(key, Counter())[target] += count
            seen.setdefault(key, Counter())[where] += 1
            first.setdefault(key, ran.job.label)
    return tuple(
        Cluster(key, counts[key], (seen[key].total(), sum(runs[where] for where in seen[key])), first[key])
        for key in sorted(counts, key=lambda key: (-counts[key].total(), key))
    )


def known_counts(results: Iterable[TargetResult]) -> Mapping[tuple[str, str], Counter[str]]:
    """Count the known divergences: (id of the entry, verdict) to how many on each target, the most frequent first."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for target, ran in _runs(results):
        for judged in ran.checked.judged:
            if judged.known is not None:
                counts.setdefault((judged.known.id, judged.known.verdict), Counter())[target] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1].total(), item[0])))


def _runs(results: Iterable[TargetResult]) -> Iterator[tuple[str, Ran]]:
    for result in results:
        for ran in result.ran:
            yield result.target, ran


def exit_status(results: Iterable[TargetResult]) -> ExitStatus:
    """Return the exit status: a target was lost, a divergence is unexplained or an expectation unmet, or OK."""
    all_results = tuple(results)
    if any(result.lost for result in all_results):
        return ExitStatus.FAILED
    wrong = any(result.totals[key] for result in all_results for key in ("unexplained", "unmet", "alarms"))
    return ExitStatus.DIVERGENCE if wrong else ExitStatus.OK
