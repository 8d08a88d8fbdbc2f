# SPDX-License-Identifier: Apache-2.0
"""What a campaign found, as one value: for people as text, for machines as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from fuzz.campaign.counters_file import Stats
from fuzz.campaign.guidance import MODEL, edges_in
from fuzz.campaign.parent import CORPUS, RUN, Outcome
from fuzz.store.database import Database
from fuzz.store.dumps import DUMPS
from fuzz.store.findings import FINDINGS, FLAKY, SCENARIO, Store
from harness.errors import InputError
from harness.findings.checked import complete_share
from harness.findings.finding import Finding, Subject
from harness.findings.regressions import NEW, Regression, like, likeness, new_text
from harness.relations import hyp_copy
from harness.trace.events import FORGED

OK, DIVERGENT, FAILED = 0, 1, 3


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """How the campaign was called: what a summary needs to be repeated.

    ``subjects`` are what was tested, one or two, ``targets`` their names as they were given; ``store`` is the
    database's URL, ``guide`` what guides the search (:mod:`fuzz.campaign.guidance`).  ``accept_kept``: what is like a
    kept regression does not make its exit status 1.  ``kvm_off``: why KVM's edges do not guide, if that was not
    asked for.
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

    @property
    def subject(self) -> Subject:
        """What was tested; of two, the first."""
        return self.subjects[0]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A finding that this campaign saw.

    ``members`` are divergences (or losses) that this campaign saw, ``scenarios`` those that the directory remembers;
    ``where`` is the finding's directory, ``replay`` the command that shows it (empty if there is no scenario).
    ``like``: the kept regressions that show its signature on its target; ``new``: there is none.
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


@dataclass(frozen=True, slots=True)
class Summary:
    """All counts of one campaign; the names are the keys of the JSON form.

    ``seconds`` run from the first worker being ready; ``checked_exits`` are the exits whose host turn was replayed
    on the model and compared; ``divergences_*`` count registers and flags, not scenarios; ``unchecked`` counts, by
    reason, single comparisons that were masked or impossible.  ``complete`` is the share of comparisons of which
    nothing was left out, ``stood_in`` counts those that another relation made in the place of one that could not.
    ``against``: the second target, its kernel and that one's hash, empty if there was none; counts are then those
    of both.  ``coverage`` counts features of the model's replay, ``kvm_edges`` edges between blocks of KVM's own
    code (None: not counted).  ``kvm_off``: why they do not guide although they were not left out; empty if they do,
    or are not to.  ``clusters`` of divergences, and how many of them are new (:class:`Cluster`).  ``run_again``: a
    sample of scenarios that were run twice, ``unstable`` those of them that showed something else
    (:func:`fuzz.targets.observation.stability_key`).  ``asserted``: complaints of the kernel that are KVM's answer
    to a forged exit, by function and syndrome; ``boot_alarms`` what it complained of while it booted.
    """

    target: str
    kernel_release: str
    kernel_sha256: str
    level: str
    against: tuple[str, ...]
    seed: int
    jobs: int
    out: str
    seconds: float
    seconds_to_first_checked_exit: float | None
    scenarios: int
    exits: int
    exits_by_class: Mapping[str, int]
    checked_exits: int
    checked_exits_per_s: float
    relations: Mapping[str, int]
    guide: str
    coverage: int
    kvm_edges: int | None
    kvm_off: str
    corpus: int
    divergences_known: int
    known_by_entry: Mapping[str, int]
    divergences_unexplained: int
    unexplained_by_cluster: Mapping[str, int]
    clusters: int
    clusters_new: int
    accept_kept: bool
    divergences_flaky: int
    flaky_by_cluster: Mapping[str, int]
    confirmations: int
    run_again: int
    unstable: int
    complete: float
    complete_by_relation: Mapping[str, float]
    stood_in: Mapping[str, int]
    unchecked: Mapping[str, int]
    undefined: Mapping[str, int]
    branches: Mapping[str, int]
    statuses: Mapping[str, int]
    dropped_records: int
    invalid_inputs: int
    lost_vms: int
    lost_by_reason: Mapping[str, int]
    memory_dumps: Mapping[str, int]
    losses_reproduced: Mapping[str, int]
    asserted: Mapping[str, int]
    boot_alarms: tuple[str, ...]
    internal_errors: int
    overflow: int
    worker_deaths: tuple[str, ...]
    findings: tuple[Cluster, ...]
    findings_unwritten: Mapping[str, int]
    failure: str
    interrupted: bool

    @property
    def exit_status(self) -> int:
        """0 nothing unexplained, 1 a divergence or an alarm, 3 the target was lost or something of ours failed.

        With ``accept_kept`` 1 is for new clusters and alarms only, and 3 for machines that were lost in new ways.
        """
        if self.failure:
            return FAILED
        if any(cluster.kind == "alarm" for cluster in self.findings):
            return DIVERGENT
        if self.clusters_new or (self.divergences_unexplained and not self.accept_kept):
            return DIVERGENT
        crashes = [cluster for cluster in self.findings if cluster.kind == "crash"]
        expected = self.accept_kept and crashes and not any(cluster.new for cluster in crashes)
        lost = self.lost_vms and not expected
        return FAILED if lost or self.internal_errors or self.findings_unwritten else OK

    def to_json(self) -> dict[str, object]:
        """Return plain data for :mod:`json`."""
        return asdict(self)


def summarise(
    asked: CampaignOptions,
    outcome: Outcome,
    kept: Iterable[Regression] = (),
    unwritten: Mapping[str, int] = MappingProxyType({}),
) -> Summary:
    """Return the summary of a campaign that has ended; reads the directory for what the findings are.

    ``kept`` are the findings of the corpus; ``unwritten`` counts what could not be written after its end, by reason.
    """
    stats, subject = outcome.stats, asked.subject
    found = _clusters(asked, stats, tuple(kept))
    divergent = [cluster for cluster in found if cluster.kind == "divergence"]
    checked, first = stats.get("count", "checked_exits"), stats.get("time", "first_exit")
    return Summary(
        target=subject.target,
        kernel_release=subject.kernel_release,
        kernel_sha256=subject.kernel_sha256,
        level=subject.level,
        against=tuple(x for s in asked.subjects[1:] for x in (s.target, s.kernel_release, s.kernel_sha256)),
        seed=asked.seed,
        jobs=asked.jobs,
        out=str(asked.out),
        seconds=round(outcome.seconds, 3),
        seconds_to_first_checked_exit=round(first / 1e9 - asked.started, 3) if first else None,
        scenarios=stats.get("count", "scenarios"),
        exits=stats.total("exits"),
        exits_by_class=stats.group("exits"),
        checked_exits=checked,
        checked_exits_per_s=round(checked / outcome.seconds, 1) if outcome.seconds else 0.0,
        relations=stats.group("relations"),
        guide=asked.guide,
        coverage=stats.coverage,
        kvm_edges=len(edges_in(asked.out / RUN)) if asked.guide != MODEL else None,
        kvm_off=_one_line(asked.kvm_off),
        corpus=sum(1 for _ in (asked.out / CORPUS).iterdir()),
        divergences_known=stats.total("known"),
        known_by_entry=stats.group("known"),
        divergences_unexplained=stats.total("unexplained"),
        unexplained_by_cluster=stats.group("unexplained"),
        clusters=len(divergent),
        clusters_new=sum(cluster.new for cluster in divergent),
        accept_kept=asked.accept_kept,
        divergences_flaky=stats.total("flaky"),
        flaky_by_cluster=stats.group("flaky"),
        confirmations=stats.get("count", "confirmations"),
        run_again=stats.get("count", "again"),
        unstable=stats.get("count", "unstable"),
        complete=round(complete_share(stats.group("attempted"), stats.group("incomplete")), 4),
        complete_by_relation=_complete_by_relation(stats),
        stood_in=stats.group("stood_in"),
        unchecked=stats.group("unchecked"),
        undefined=stats.group("undefined"),
        branches=stats.group("branches"),
        statuses=stats.group("status"),
        dropped_records=stats.get("count", "dropped"),
        invalid_inputs=stats.get("count", "invalid"),
        lost_vms=stats.total("lost"),
        lost_by_reason=stats.group("lost"),
        memory_dumps=stats.group("dumps"),
        losses_reproduced=stats.group("reproduced"),
        asserted=stats.group("asserted"),
        boot_alarms=tuple(map(_one_line, stats.group("boot_alarms"))),
        internal_errors=stats.total("internal"),
        overflow=stats.total("overflow"),
        worker_deaths=outcome.deaths,
        findings=found,
        findings_unwritten={**stats.group("unwritten"), **unwritten},
        failure=outcome.failure,
        interrupted=outcome.interrupted,
    )


def _complete_by_relation(stats: Stats) -> Mapping[str, float]:
    incomplete = stats.group("incomplete")
    attempted = stats.group("attempted").items()
    return {name: round(1 - incomplete.get(name, 0) / count, 4) for name, count in attempted if count}


def _clusters(asked: CampaignOptions, stats: Stats, kept: Sequence[Regression]) -> tuple[Cluster, ...]:
    """Return all clusters, new ones first."""
    store = Store(Database(asked.store), FINDINGS)
    found: list[Cluster] = []
    for group in ("unexplained", "alarms", "crashes", "internal"):
        for id_, members in stats.group(group).items():
            place = asked.out / FINDINGS / id_
            finding = _load(store, id_)
            names: tuple[str, ...] = ()
            replay = ""
            if isinstance(finding, Finding):
                names = like(kept, finding)
                replay = _replay(asked, finding, place / SCENARIO) if (place / SCENARIO).is_file() else ""
            found.append(
                Cluster(
                    id_,
                    id_.partition("-")[0],
                    _what(finding, id_, stats),
                    names,
                    not names,
                    members,
                    _count(store, id_),
                    str(place),
                    replay,
                )
            )
    return tuple(sorted(found, key=lambda cluster: not cluster.new))


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
        return _one_line(f"not stored: {', '.join(signatures) or finding}")
    return _one_line(finding.title)


def _one_line(words: str) -> str:
    """Escape what a terminal must not be shown: a kernel or a file said it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def _replay(asked: CampaignOptions, finding: Finding, scenario: Path) -> str:
    if finding.other is not None:
        return shlex.join(["shadowfuzz", "against", *asked.targets, str(scenario)])
    first = finding.subject == asked.subject
    words = ["shadowfuzz", "replay", str(scenario), "--target", asked.targets[0 if first else -1]]
    words += hyp_copy.options(finding.signature)
    if asked.kernel is not None and first:
        words += ["--kernel", str(asked.kernel)]
    return shlex.join([*words, "--level", asked.subject.level])


def text(summary: Summary) -> str:
    """Return a summary for people."""
    s = summary
    first = s.seconds_to_first_checked_exit
    lines = [
        f"target {s.target}, Linux {s.kernel_release}, level {s.level}, {s.jobs} workers, seed {s.seed}",
        *([f"against {s.against[0]}, Linux {s.against[1]}"] if s.against else []),
        f"{s.seconds:.1f} s of fuzzing" + (f", first checked exit after {first:.1f} s" if first is not None else ""),
        f"scenarios          {s.scenarios}  (invalid inputs {s.invalid_inputs})",
        f"coverage           {s.coverage} of the model{_edges(s.kvm_edges)}  (corpus {s.corpus})",
        *([f"coverage of KVM    OFF, the model alone guided: {s.kvm_off}"] if s.kvm_off else []),
        f"checked exits/s    {s.checked_exits_per_s:.0f}  ({s.checked_exits} checked of {s.exits})",
        f"exits by class     {_exits(s.exits_by_class)}",
        f"relations checked  {_row(s.relations)}",
        f"scenarios ended    {_row(s.statuses)}" + (f", records dropped {s.dropped_records}" * bool(s.dropped_records)),
        *_table(f"known divergences  {s.divergences_known}", s.known_by_entry),
        f"complete           {s.complete:.1%} of all comparisons  ({_shares(s.complete_by_relation)})",
        *(_table(f"stood in           {sum(s.stood_in.values())}", s.stood_in) if s.stood_in else []),
        *_table(f"not compared       {sum(s.unchecked.values())}", s.unchecked),
        *_table(f"model undefined    {sum(s.undefined.values())}", s.undefined),
        *_table(f"flaky              {s.divergences_flaky}  (in {Path(s.out) / FLAKY})", s.flaky_by_cluster),
        *([f"unstable           {_unstable(s)}"] if s.run_again else []),
        *_table(f"lost VMs           {s.lost_vms}", s.lost_by_reason),
        *([f"memory dumps       {_row(s.memory_dumps)}  (in {Path(s.out) / DUMPS})"] if s.memory_dumps else []),
        *(
            _table(f"asserted           {sum(s.asserted.values())}  of exits that were forged", s.asserted)
            * bool(s.asserted)
        ),
        *([f"brought back       {_row(s.losses_reproduced)}"] if s.losses_reproduced else []),
    ]
    lines += [f"alarm at boot      {sentence}" for sentence in s.boot_alarms]
    if s.worker_deaths:
        lines.append(f"dead workers       {len(s.worker_deaths)}")
        lines += [f"    {why}" for why in dict.fromkeys(s.worker_deaths)]
    if s.overflow:
        lines.append(f"counted under no name: {s.overflow} (too many different reasons)")
    news = f", {new_text(s.clusters_new)}" if s.clusters else ""
    lines.append(f"unexplained        {s.divergences_unexplained} divergences in {s.clusters} clusters{news}")
    for cluster in s.findings:
        lines.append(f"  {cluster.id}{f', {NEW}' if cluster.new else ''}: {cluster.what}")
        named = "" if cluster.new else f", {likeness(cluster.like)}"
        lines.append(f"    {cluster.members} times{named}; {cluster.replay or cluster.where}")
    for why, count in s.findings_unwritten.items():
        lines.append(f"findings could not be written, {count} times: {why}")
    if s.interrupted:
        lines.append("stopped before its time, as asked")
    if s.failure:
        lines.append(f"stopped before its time: {s.failure}")
    return "\n".join(lines)


def _unstable(s: Summary) -> str:
    return f"{s.unstable / s.run_again:.1%} ({s.unstable} of {s.run_again} scenarios that were run again)"


def _edges(count: int | None) -> str:
    return "" if count is None else f", {count} edges of KVM"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _row(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _exits(by_class: Mapping[str, int]) -> str:
    """Write exits by class, the forged ones, of which there are too many kinds to read, in sum."""
    forged = {name: count for name, count in by_class.items() if name.startswith(FORGED)}
    text = _row({name: count for name, count in by_class.items() if name not in forged})
    return f"{text}, forged {sum(forged.values())} (of {len(forged)} classes)" if forged else text


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return [title.partition("  (in")[0]]
    width = max(len(str(count)) for count in counts.values())
    return [title, *(f"    {count:{width}}  {name}" for name, count in counts.items())]
