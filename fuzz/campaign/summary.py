# SPDX-License-Identifier: Apache-2.0
"""The counts and findings of a campaign as one value, with its exit status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from fuzz.campaign.campaign_results import CampaignOptions, Cluster, ErratumSeen, ProblemSeen, one_line, results_of
from fuzz.campaign.counters_file import Stats
from fuzz.campaign.guidance import edges_in
from fuzz.campaign.limits import MODEL
from fuzz.campaign.parent import CORPUS, RUN, Outcome
from harness.exit_status import ExitStatus
from harness.findings.checked import complete_share
from harness.findings.regressions import Regression

VERSION = 2
"""Version of the JSON form; 2 added ``version``, ``problems`` and ``errata``."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All counts of one campaign; the names of the attributes are the keys of the JSON form.

    ``asked_targets`` are the names of the one or two targets as given, for commands.  ``seconds`` run from the first
    ready worker; ``checked_exits`` are the exits after which the host's part of the round was replayed on the model and
    compared; ``divergences_*`` count registers and flags, not scenarios; ``unchecked`` counts, by reason, single
    comparisons that were masked or impossible.  ``complete`` is the share of comparisons without a masked part,
    ``stood_in`` counts comparisons by one relation in place of another that was impossible.  ``against``: the second
    target, its kernel and the hash of that kernel, empty if there is none; otherwise counts are sums over both targets.
    ``coverage`` counts features of the model's replay, ``kvm_edges`` edges between blocks of KVM's own code (None: not
    counted).  ``growth`` is the relative growth of ``coverage`` in the last ``growth_seconds`` (None: the campaign was
    too short).  ``kvm_off``: why KVM's edges do not guide although no option excluded them, else empty.  ``clusters``
    and ``clusters_new`` count the findings with divergences; ``problems`` are the new ones, ``errata`` the known ones
    (:mod:`fuzz.campaign.campaign_results`).  ``run_again`` counts a sample of scenarios that were run twice,
    ``unstable`` those of them with another result (:func:`fuzz.targets.observation.stability_key`).  ``known_by_rule``:
    the share of the known divergences that a rule of the contract determines.  ``asserted``: warnings with which KVM
    reacts to a forged exit, by function and syndrome; ``boot_alarms``: warnings of the kernel while it booted.
    ``program``: the name by which this program was called, for commands.  ``confirmed_on``: the version of Debian's own
    QEMU, on which every problem was confirmed, if the campaign ran on the fast one, else empty.  ``store``: the URL of
    the database, without a password, if it is not in the campaign's directory, else empty.
    """

    target: str
    asked_targets: tuple[str, ...]
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
    growth_seconds: float
    growth: float | None
    kvm_edges: int | None
    kvm_off: str
    corpus: int
    divergences_known: int
    known_by_entry: Mapping[str, int]
    known_by_rule: float
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
    problems: tuple[ProblemSeen, ...]
    errata: tuple[ErratumSeen, ...]
    program: str
    confirmed_on: str
    store: str

    @property
    def exit_status(self) -> ExitStatus:
        """Return 1 for a divergence or an alarm, else 3 for a lost target or an internal failure, else 0.

        With ``accept_kept`` only new clusters, new alarms and new kinds of loss count.
        """
        if self.failure:
            return ExitStatus.FAILED
        if any(cluster.kind == "alarm" for cluster in self.findings):
            return ExitStatus.DIVERGENCE
        if self.clusters_new or (self.divergences_unexplained and not self.accept_kept):
            return ExitStatus.DIVERGENCE
        crashes = [cluster for cluster in self.findings if cluster.kind == "crash"]
        expected = self.accept_kept and crashes and not any(cluster.new for cluster in crashes)
        lost = self.lost_vms and not expected
        failed = lost or self.internal_errors or self.findings_unwritten
        return ExitStatus.FAILED if failed else ExitStatus.OK

    def to_json(self) -> dict[str, object]:
        """Return plain data for :mod:`json`."""
        return {"version": VERSION, **asdict(self)}


def summarise(
    options: CampaignOptions,
    outcome: Outcome,
    kept: Iterable[Regression] = (),
    unwritten: Mapping[str, int] = MappingProxyType({}),
    kvm_edges: int | None = None,
) -> Summary:
    """Return the summary of a campaign that has ended; reads the findings from the campaign's directory.

    ``kept`` are the findings of the corpus; ``unwritten`` counts, by reason, the files that could not be written at the
    end.
    ``kvm_edges``: the number of edges that guided it, where their maps are not in the directory.
    """
    stats, subject = outcome.stats, options.subject
    results = results_of(options, stats, tuple(kept))
    divergent = [cluster for cluster in results.clusters if cluster.kind == "divergence"]
    checked, first = stats.get("count", "checked_exits"), stats.get("time", "first_exit")
    return Summary(
        target=subject.target,
        asked_targets=options.targets,
        kernel_release=subject.kernel_release,
        kernel_sha256=subject.kernel_sha256,
        level=subject.level,
        against=tuple(x for s in options.subjects[1:] for x in (s.target, s.kernel_release, s.kernel_sha256)),
        seed=options.seed,
        jobs=options.jobs,
        out=str(options.out),
        seconds=round(outcome.seconds, 3),
        seconds_to_first_checked_exit=round(first / 1e9 - options.started, 3) if first else None,
        scenarios=stats.get("count", "scenarios"),
        exits=stats.total("exits"),
        exits_by_class=stats.group("exits"),
        checked_exits=checked,
        checked_exits_per_s=round(checked / outcome.seconds, 1) if outcome.seconds else 0.0,
        relations=stats.group("relations"),
        guide=options.guide,
        coverage=stats.coverage,
        growth_seconds=growth_window(outcome.seconds),
        growth=growth(outcome.course),
        kvm_edges=None
        if options.guide == MODEL
        else len(edges_in(options.out / RUN))
        if kvm_edges is None
        else kvm_edges,
        kvm_off=one_line(options.kvm_off),
        corpus=sum(1 for _ in (options.out / CORPUS).iterdir()),
        divergences_known=stats.total("known"),
        known_by_entry=stats.group("known"),
        known_by_rule=round(1 - stats.get("count", "by_conditions") / max(1, stats.total("known")), 4),
        divergences_unexplained=stats.total("unexplained"),
        unexplained_by_cluster=stats.group("unexplained"),
        clusters=len(divergent),
        clusters_new=sum(cluster.new for cluster in divergent),
        accept_kept=options.accept_kept,
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
        boot_alarms=tuple(map(one_line, stats.group("boot_alarms"))),
        internal_errors=stats.total("internal"),
        overflow=stats.total("overflow"),
        worker_deaths=outcome.deaths,
        findings=results.clusters,
        findings_unwritten={**stats.group("unwritten"), **unwritten},
        failure=outcome.failure,
        interrupted=outcome.interrupted,
        problems=results.problems,
        errata=results.errata,
        program=options.program,
        confirmed_on=options.own_qemu,
        store=options.shown_store,
    )


def _kvm_edges(options: CampaignOptions) -> int:
    """Return the number of edges in the maps of a campaign's directory."""
    return len(edges_in(options.out / RUN))


def growth_window(seconds: float) -> float:
    """Return the length in seconds of the window for :func:`growth`: a sixth of the campaign, within limits."""
    return round(min(600.0, max(10.0, seconds / 6)), 1)


def growth(course: Sequence[tuple[float, int]]) -> float | None:
    """Return the relative growth of coverage at the end of a campaign; None: the campaign was too short.

    ``course`` has pairs (seconds, coverage), in order of time.
    """
    end, last = course[-1] if course else (0.0, 0)
    before = [covered for second, covered in course if 0 < second <= end - growth_window(end)]
    if not before or not before[-1]:
        return None
    return round(last / before[-1] - 1, 4)


def _complete_by_relation(stats: Stats) -> Mapping[str, float]:
    incomplete = stats.group("incomplete")
    attempted = stats.group("attempted").items()
    return {name: round(1 - incomplete.get(name, 0) / count, 4) for name, count in attempted if count}
