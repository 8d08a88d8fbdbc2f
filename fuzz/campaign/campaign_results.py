# SPDX-License-Identifier: Apache-2.0
"""Read what a campaign found: clusters, the new problems among them, and the known errata that occurred again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.campaign.counters_file import Stats
from fuzz.campaign.limits import MODEL
from fuzz.paths import out_words
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, SCENARIO, Store
from harness.errors import InputError
from harness.findings.finding import Finding, Subject
from harness.findings.problems import group_by_erratum, group_problems
from harness.findings.regressions import Regression, is_by_cause, like
from harness.relations import hyp_copy
from harness.report.glossary import in_words


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """The options of a campaign, with which it can be repeated.

    ``subjects`` are the one or two tested systems, ``targets`` their names as given; ``store`` is the database's URL,
    ``guide`` the mode of guidance (:mod:`fuzz.campaign.guidance`).  ``accept_kept``: a finding like a kept regression
    does not make the exit status 1.  ``kvm_off``: why KVM's edges do not guide although no option excluded them.
    ``program`` is the name by which this program was called.  ``own_qemu`` is the version of Debian's own QEMU, if the
    campaign runs on the fast one.
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
    own_qemu: str = ""

    @property
    def shown_store(self) -> str:
        """Return the database's URL for commands, without a password; empty: it is in the campaign's directory."""
        return "" if self.store == default_url(self.out) else Database(self.store).without_password()

    @property
    def subject(self) -> Subject:
        """Return the tested subject; of two, the first."""
        return self.subjects[0]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A finding that this campaign observed.

    ``members`` is the number of divergences (or losses) in this campaign, ``scenarios`` that of the stored scenarios;
    ``where`` is the finding's directory, ``replay`` the command that shows it (empty if there is no scenario).
    ``like`` names the errata that are its cause, or, if the cause is not determined, the kept findings that show its
    signature on its target; ``new``: ``like`` is empty.  ``by_cause``: the cause is determined.
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
    """New clusters that probably have one cause; ``id`` is their leading cluster.

    ``what`` is its first divergence, ``words`` a sentence about it (may be empty).  ``members`` is the number of
    divergences in this campaign; ``hits`` of the ``runs`` of its confirmation showed it.  ``first_seen`` is ISO 8601.
    ``show`` is the command that shows it.
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
    """An erratum that occurred again; ``by_signature`` of its ``clusters`` match it by signature only, not by cause."""

    id: str
    what: str
    clusters: int
    by_signature: int
    members: int


@dataclass(frozen=True, slots=True)
class CampaignResults:
    """The results of a campaign: ``clusters``, new ones first; the new ones' ``problems``, the others' ``errata``."""

    clusters: tuple[Cluster, ...]
    problems: tuple[ProblemSeen, ...]
    errata: tuple[ErratumSeen, ...]


def results_of(options: CampaignOptions, stats: Stats, kept: Sequence[Regression]) -> CampaignResults:
    """Return the results of a campaign; reads its findings from the database."""
    store = Store(Database(options.store), FINDINGS)
    found: dict[str, Cluster] = {}
    findings: dict[str, Finding] = {}
    for group in ("unexplained", "alarms", "crashes", "internal"):
        for id_, members in stats.group(group).items():
            finding = _load(store, id_)
            if isinstance(finding, Finding):
                findings[id_] = finding
            found[id_] = _cluster(options, store, kept, finding, (id_, members), stats)
    clusters = tuple(sorted(found.values(), key=lambda cluster: not cluster.new))
    new = {cluster.id: cluster for cluster in clusters if cluster.new}
    return CampaignResults(clusters, _problems(options, store, new, findings), _errata(clusters, kept))


def _cluster(
    options: CampaignOptions,
    store: Store,
    kept: Sequence[Regression],
    finding: Finding | InputError,
    seen: tuple[str, int],
    stats: Stats,
) -> Cluster:
    id_, members = seen
    place = options.out / FINDINGS / id_
    names: tuple[str, ...] = ()
    replay, by_cause = "", False
    if isinstance(finding, Finding):
        names = like(kept, finding)
        by_cause = bool(names) and is_by_cause(finding)
        replay = _replay(options, finding, place / SCENARIO) if (place / SCENARIO).is_file() else ""
    kind, what = id_.partition("-")[0], _what(finding, id_, stats)
    return Cluster(id_, kind, what, names, not names, members, _count(store, id_), str(place), replay, by_cause)


def _problems(
    options: CampaignOptions, store: Store, new: Mapping[str, Cluster], findings: Mapping[str, Finding]
) -> tuple[ProblemSeen, ...]:
    try:
        examples = store.examples()
    except InputError:
        examples = {}
    grouped = group_problems({id_: examples.get(id_, ()) for id_ in new})
    return tuple(
        _problem(options, [new[id_] for id_ in problem.clusters], findings.get(problem.id)) for problem in grouped
    )


def _problem(options: CampaignOptions, clusters: Sequence[Cluster], finding: Finding | None) -> ProblemSeen:
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
        shlex.join([options.program, "findings", "show", first.id]) + out_words(options.out, options.shown_store),
    )


def _errata(clusters: Iterable[Cluster], kept: Sequence[Regression]) -> tuple[ErratumSeen, ...]:
    """Return the errata of clusters, those with the most divergences first; a cluster may have several errata."""
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
    """Escape control characters: the text comes from a kernel or a file and is shown on a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def _replay(options: CampaignOptions, finding: Finding, scenario: Path) -> str:
    if finding.other is not None:
        return shlex.join([options.program, "kernels", "against", *options.targets, str(scenario)])
    first = finding.subject == options.subject
    ours = finding.subject in options.subjects  # nodes of a cluster may have others
    target = options.targets[0 if first else -1] if ours else finding.subject.target
    words = [options.program, "replay", str(scenario), "--target", target]
    words += hyp_copy.options(finding.signature)
    if options.kernel is not None and first:
        words += ["--kernel", str(options.kernel)]
    return shlex.join([*words, "--level", options.subject.level])
