# SPDX-License-Identifier: Apache-2.0
"""The result of a run of a scenario on one target or two: traces, check results, alarms, clusters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from fuzz.store.findings import OTHER_TRACE, TRACE
from harness.findings.asserted_alarms import Asserted
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Signature, Subject, cause_of
from harness.relations.divergence import Divergence, is_new
from harness.trace.events import Trace
from harness.trace.tracefile import format_trace
from harness.vm.alarms import KINDS as ALARMS
from harness.vm.alarms import Alarm

ALARM_KINDS = frozenset(kind.name for kind in ALARMS)


@dataclass(frozen=True, slots=True)
class Observation:
    """The check result of a run on ``subject``, or on it and ``other``, with a trace of each.

    ``alarms`` are those of the kernel of ``subject`` during the run, without the ``asserted`` ones: KVM's own warnings
    on forged exits.
    """

    subject: Subject
    checked: CheckResult
    traces: tuple[Trace, ...]
    other: Subject | None = None
    alarms: tuple[Alarm, ...] = ()
    asserted: tuple[Asserted, ...] = ()

    @property
    def trace(self) -> Trace:
        """Return the trace of ``subject``."""
        return self.traces[0]


ClusterKey = tuple[Subject, Subject | None, Signature]
"""The key of a cluster: the tested subject, the second one or None, and the signature."""


def signatures(checked: CheckResult) -> tuple[Signature, ...]:
    """Return the signatures of unexplained divergences, each once, in the order of the trace."""
    return tuple(dict.fromkeys(signature(divergence) for divergence in checked.unexplained))


def signatures_shown(observation: Observation) -> tuple[Signature, ...]:
    """Return all signatures of a run: of unexplained divergences, then of alarms."""
    alarms = (alarm.signature for alarm in observation.alarms)
    return tuple(dict.fromkeys((*signatures(observation.checked), *alarms)))


def is_alarm(signature: Signature) -> bool:
    """Return whether a signature is that of an alarm: its first field is a kind of alarm, not a relation."""
    return len(signature) == 2 and signature[0] in ALARM_KINDS


def clusters_of(found: Sequence[Observation]) -> dict[ClusterKey, list[Divergence]]:
    """Return the unexplained divergences by cluster."""
    clusters: dict[ClusterKey, list[Divergence]] = {}
    for each in found:
        for divergence in each.checked.unexplained:
            clusters.setdefault((each.subject, each.other, signature(divergence)), []).append(divergence)
    return clusters


def leaders_of(clusters: Mapping[ClusterKey, list[Divergence]]) -> dict[ClusterKey, ClusterKey]:
    """Map each cluster that no erratum explains to the first of them in the trace of the same targets."""
    leaders: dict[tuple[Subject, Subject | None], tuple[int, ClusterKey]] = {}
    open_ = [key for key in clusters if not (cause := cause_of(key[2])) or is_new(cause)]
    for key in open_:
        first = min(divergence.event for divergence in clusters[key]), key
        leaders[key[:2]] = min(leaders.get(key[:2], first), first, key=lambda one: one[0])
    return {key: leaders[key[:2]][1] for key in open_}


def texts_of(observation: Observation) -> dict[str, str]:
    """Return the texts of a run that are stored with a finding, by name."""
    return {name: format_trace(trace) for name, trace in zip((TRACE, OTHER_TRACE), observation.traces, strict=False)}


def stability_key(found: Sequence[Observation]) -> Hashable:
    """Return the parts of a result that are identical when a stable scenario is run again.

    These are how it ended, its clusters, and the known entries of its divergences.  Divergences at an interrupt of the
    host are left out, because it is asynchronous.
    """
    return tuple(
        (
            each.checked.status,
            frozenset(signature(d) for d in each.checked.unexplained if d.exit_class != "IRQ"),
            frozenset(j.known.id for j in each.checked.judged if j.known and j.divergence.exit_class != "IRQ"),
        )
        for each in found
    )
