# SPDX-License-Identifier: Apache-2.0
"""What a campaign found: clusters, the problems that they are, and the errata that came back."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.campaign.counters_file import Stats
from fuzz.campaign.limits import MODEL
from fuzz.paths import out_words
from fuzz.store.database import Database
from fuzz.store.findings import FINDINGS, SCENARIO, Store
from harness.errors import InputError
from harness.findings.finding import Finding, Subject
from harness.findings.problems import group_by_erratum, group_problems
from harness.findings.regressions import Regression, is_by_cause, like
from harness.relations import hyp_copy
from harness.report.glossary import in_words


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """How the campaign was called: what a summary needs to be repeated.

    ``subjects`` are what was tested, one or two, ``targets`` their names as they were given; ``store`` is the
    database's URL, ``guide`` what guides the search (:mod:`fuzz.campaign.guidance`).  ``accept_kept``: what is like a
    kept regression does not make its exit status 1.  ``kvm_off``: why KVM's edges do not guide, if that was not
    asked for.  ``program`` is how this program was called.
    """

    subjects: tuple[Subject, ...]
    targets: tuple[str, ...]
    kernel: Path | None
    seed: int
    jobs: int
    out: Path
    started: float
    store: str
    guide: str = MODEL
    accept_kept: bool = False
    kvm_off: str = ""
    program: str = "shadowfuzz"

    @property
    def subject(self) -> Subject:
        """What was tested; of two, the first."""
        return self.subjects[0]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A finding that this campaign saw.

    ``members`` are divergences (or losses) that this campaign saw, ``scenarios`` those that the directory remembers;
    ``where`` is the finding's directory, ``replay`` the command that shows it (empty if there is no scenario).
    ``like``: the errata that are its cause, or, where the cause is not determined, the kept findings that show its
    signature on its target; ``new``: there is none.  ``by_cause``: it is determined.
    """

    id: str
    kind: str
    what: str
    like: tuple[str, ...]
    new: bool
    members: int
    scenarios: int
    where: str
    replay: str
    by_cause: bool = False


@dataclass(frozen=True, slots=True)
class ProblemSeen:
    """Clusters that are new and probably have one cause; ``id`` is the cluster that leads them.

    ``what`` is its first divergence, ``words`` a sentence about it (may be empty).  ``members`` are divergences that
    this campaign saw; of ``runs`` when it was confirmed ``hits`` showed it.  ``first_seen`` is ISO 8601.  ``show`` is
    the command that shows it.
    """

    id: str
    kind: str
    what: str
    words: str
    clusters: tuple[str, ...]
    members: int
    hits: int
    runs: int
    first_seen: str
    show: str


@dataclass(frozen=True, slots=True)
class ErratumSeen:
    """An erratum that came back; ``by_signature`` of its ``clusters`` are its only by signature, not by cause."""

    id: str
    what: str
    clusters: int
    by_signature: int
    members: int


@dataclass(frozen=True, slots=True)
class Results:
    """All that a campaign found: ``clusters``, new ones first; the new ones as ``problems``; the others' errata."""

    clusters: tuple[Cluster, ...]
    problems: tuple[ProblemSeen, ...]
    errata: tuple[ErratumSeen, ...]


def results_of(asked: CampaignOptions, stats: Stats, kept: Sequence[Regression]) -> Results:
    """Return what a campaign found; reads the database for what the findings are."""
    store = Store(Database(asked.store), FINDINGS)
    found: dict[str, Cluster] = {}
    findings: dict[str, Finding] = {}
    for group in ("unexplained", "alarms", "crashes", "internal"):
        for id_, members in stats.group(group).items():
            finding = _load(store, id_)
            if isinstance(finding, Finding):
                findings[id_] = finding
            found[id_] = _cluster(asked, store, kept, finding, (id_, members), stats)
    clusters = tuple(sorted(found.values(), key=lambda cluster: not cluster.new))
    new = {cluster.id: cluster for cluster in clusters if cluster.new}
    return Results(clusters, _problems(asked, store, new, findings), _errata(clusters, kept))


def _cluster(
    asked: CampaignOptions,
    store: Store,
    kept: Sequence[Regression],
    finding: Finding | InputError,
    seen: tuple[str, int],
    stats: Stats,
) -> Cluster:
    id_, members = seen
    place = asked.out / FINDINGS / id_
    names: tuple[str, ...] = ()
    replay, by_cause = "", False
    if isinstance(finding, Finding):
        names = like(kept, finding)
        by_cause = bool(names) and is_by_cause(finding)
        replay = _replay(asked, finding, place / SCENARIO) if (place / SCENARIO).is_file() else ""
    kind, what = id_.partition("-")[0], _what(finding, id_, stats)
    return Cluster(id_, kind, what, names, not names, members, _count(store, id_), str(place), replay, by_cause)


def _problems(
    asked: CampaignOptions, store: Store, new: Mapping[str, Cluster], findings: Mapping[str, Finding]
) -> tuple[ProblemSeen, ...]:
    try:
        examples = store.examples()
    except InputError:
        examples = {}
    grouped = group_problems({id_: examples.get(id_, ()) for id_ in new})
    return tuple(
        _problem(asked, [new[id_] for id_ in problem.clusters], findings.get(problem.id)) for problem in grouped
    )


def _problem(asked: CampaignOptions, clusters: Sequence[Cluster], finding: Finding | None) -> ProblemSeen:
    first = clusters[0]
    tries = () if finding is None else (finding.same_vm, finding.fresh_vm)
    return ProblemSeen(
        first.id,
        first.kind,
        first.what,
        "" if finding is None else one_line(in_words(finding)),
        tuple(cluster.id for cluster in clusters),
        sum(cluster.members for cluster in clusters),
        sum(each.hits for each in tries),
        sum(each.runs for each in tries),
        "" if finding is None else finding.first_seen,
        shlex.join([asked.program, "findings", "show", first.id]) + out_words(asked.out),
    )


def _errata(clusters: Iterable[Cluster], kept: Sequence[Regression]) -> tuple[ErratumSeen, ...]:
    """Return the errata of clusters, those with the most divergences first; a cluster may be of several."""
    words = {row.id: row.does for row in kept}
    seen = [
        ErratumSeen(
            name,
            words.get(name, ""),
            len(members),
            sum(not cluster.by_cause for cluster in members),
            sum(cluster.members for cluster in members),
        )
        for name, members in group_by_erratum(clusters, lambda cluster: cluster.like).items()
    ]
    return tuple(sorted(seen, key=lambda each: (-each.members, each.id)))


def _count(store: Store, id_: str) -> int:
    try:
        return store.count(id_)
    except InputError:
        return 0


def _load(store: Store, id_: str) -> Finding | InputError:
    try:
        return store.load(id_)
    except InputError as error:
        return error


def _what(finding: Finding | InputError, id_: str, stats: Stats) -> str:
    if isinstance(finding, InputError):
        signatures = [name.partition(" ")[2] for name in stats.group("missing") if name.startswith(id_)]
        return one_line(f"not stored: {', '.join(signatures) or finding}")
    return one_line(finding.title)


def one_line(words: str) -> str:
    """Escape what a terminal must not be shown: a kernel or a file said it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def _replay(asked: CampaignOptions, finding: Finding, scenario: Path) -> str:
    if finding.other is not None:
        return shlex.join([asked.program, "kernels", "against", *asked.targets, str(scenario)])
    first = finding.subject == asked.subject
    ours = finding.subject in asked.subjects  # nodes of a cluster may have others
    target = asked.targets[0 if first else -1] if ours else finding.subject.target
    words = [asked.program, "replay", str(scenario), "--target", target]
    words += hyp_copy.options(finding.signature)
    if asked.kernel is not None and first:
        words += ["--kernel", str(asked.kernel)]
    return shlex.join([*words, "--level", asked.subject.level])
