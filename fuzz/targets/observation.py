# SPDX-License-Identifier: Apache-2.0
"""What one run of a scenario showed, on one target or two: its clusters, its texts, and what a second run must show."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from fuzz.store.findings import OTHER_TRACE, TRACE
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Signature, Subject
from harness.relations.divergence import Divergence
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.trace.tracefile import format_trace


@dataclass(frozen=True, slots=True)
class Seen:
    """What one comparison made of a scenario's run: of ``subject`` alone, or of it and ``other``, a trace each."""

    subject: Subject
    checked: CheckResult
    traces: tuple[Trace, ...]
    other: Subject | None = None


Watch = Callable[[Scenario, bool], tuple[Seen, ...]]
"""Runs a scenario, in a fresh VM or not, and compares: on one target, or on two and then with each other."""
Key = tuple[Subject, Subject | None, Signature]
"""Names a cluster: what was tested, alone or against what, and the signature."""


def clusters_of(found: tuple[Seen, ...]) -> dict[Key, list[Divergence]]:
    """Return what is unexplained, by cluster."""
    clusters: dict[Key, list[Divergence]] = {}
    for seen in found:
        for divergence in seen.checked.unexplained:
            clusters.setdefault((seen.subject, seen.other, signature(divergence)), []).append(divergence)
    return clusters


def texts_of(seen: Seen) -> dict[str, str]:
    """Return what a finding keeps of a run, by name."""
    return {name: format_trace(trace) for name, trace in zip((TRACE, OTHER_TRACE), seen.traces, strict=False)}


def told(found: tuple[Seen, ...]) -> Hashable:
    """Return what a stable scenario shows again: how it ended, its clusters, and the known entries of its divergences.

    What shows at an interrupt of the host's, which comes when it likes, is left out.
    """
    return tuple(
        (
            seen.checked.status,
            frozenset(signature(d) for d in seen.checked.unexplained if d.exit_class != "IRQ"),
            frozenset(j.known.id for j in seen.checked.judged if j.known and j.divergence.exit_class != "IRQ"),
        )
        for seen in found
    )
