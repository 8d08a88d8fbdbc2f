# SPDX-License-Identifier: Apache-2.0
"""A kept finding with all that a reader needs, recomputed from its scenario and its trace: pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

from harness.arch.cpu_models import Cpu
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.compare_releases import Versions, compare
from harness.findings.finding import Finding, Signature, Tries, is_member, signature_text
from harness.findings.intended_changes import Intended, between
from harness.findings.known_divergences import Catalogue
from harness.findings.release_history import ReleaseResult
from harness.findings.verdict import (
    STAGES,
    EmulatorResult,
    Evidence,
    Stage,
    Verdict,
    classify,
    evidence,
    first_of,
    rate_text,
)
from harness.relations import hyp_copy
from harness.relations.divergence import Divergence
from harness.relations.errata import NO_ERRATA, TargetErrata
from harness.report.replay_result import Job, Ran
from harness.report.sites import sites
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.config import MachineConfig, list_configs
from harness.vm.config_text import OTHER_TARGET, TARGET
from harness.vm.crash import CRASH, EARLIER, ENDS, Report, from_text


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store holds of a finding: ``confirmed`` or flaky; ``texts`` are consoles and earlier scenarios.

    ``fresh_qemu`` counts reproductions in fresh machines, None if that was not tried; ``elsewhere`` is what other
    emulators showed, None if none was tried.
    ``scenario`` and the traces are None where there is none, or none that this version can read; ``other_trace`` is
    that of the second target, where two were compared.  ``history``: which kernels show it, empty if none was asked.
    ``config`` and ``other_config`` are the targets as they were then, None if that was not stored.
    """

    finding: Finding
    confirmed: bool
    count: int
    last_seen: str
    scenario: Scenario | None
    trace: Trace | None
    texts: Mapping[str, str]
    fresh_qemu: Tries | None = None
    other_trace: Trace | None = None
    elsewhere: tuple[EmulatorResult, ...] | None = None
    history: tuple[ReleaseResult, ...] = ()
    config: MachineConfig | None = None
    other_config: MachineConfig | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """A finding, explained; ``ran`` holds only the sites of its own signature, None if there is no trace.

    ``crash`` is what was left of a target that was lost, None if nothing that this version can read.  ``like``: the
    kept regressions that show its signature on its target, none if it is new.
    """

    kept: Kept
    verdict: Verdict
    evidence: Evidence | None
    ran: Ran | None
    divergence: Divergence | None
    crash: Report | None = None
    like: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The finding's name."""
        return self.kept.finding.id

    @property
    def anchor(self) -> str:
        """Its name on a page: a finding may be confirmed in one campaign and flaky in another."""
        return self.id if self.kept.confirmed else f"flaky-{self.id}"

    @property
    def title(self) -> str:
        """What it is, in one line."""
        return self.kept.finding.title


_NOT_JUDGED = "nothing that it was running then can be judged"
_NO_TRACE: Mapping[str, Verdict] = {
    "crash": Verdict("crash", f"the target was lost: {_NOT_JUDGED}"),
    "internal": Verdict("internal", "shadowfuzz itself failed"),
    "alarm": Verdict("alarm", "the target's kernel complained in its log"),
    "divergence": Verdict("unexplained", "its trace was not kept"),
}


_NO_TARGET = Verdict("unexplained", "its trace was not checked: its target was not stored with it, and is not here")


def tell(
    kept: Kept,
    cpu: Cpu | None,
    catalogue: Catalogue,
    changes: tuple[Intended, ...] = (),
    errata: TargetErrata = NO_ERRATA,
) -> Story:
    """Return the story of a finding: its trace is checked again, its sites found, its verdict given.

    ``cpu`` is the target's, None if that is not known; ``errata`` are the target's.  Where two targets were compared
    their traces are, with the intended ``changes``; there are no sites then.
    """
    finding = kept.finding
    if finding.kind == "crash":
        return _crash(kept)
    if finding.kind == "alarm":
        return Story(kept, Verdict("alarm", _alarm_text(kept)), None, None, None)
    plain = Story(kept, _NO_TRACE[finding.kind], None, None, None)
    if kept.scenario is None or kept.trace is None:
        return plain
    if finding.other is None and cpu is None:
        return Story(kept, _NO_TARGET, None, None, None)
    if finding.other is None:
        assert cpu is not None
        checked = check(kept.scenario, kept.trace, finding.subject.level, cpu, catalogue, errata=errata)
    elif kept.other_trace is not None:
        versions = Versions(finding.subject.kernel_release, finding.other.kernel_release)
        meant = between(changes, versions.one, versions.other)
        checked = compare(kept.scenario, kept.trace, kept.other_trace, meant, versions)
    else:
        return plain
    divergence = first_of(checked, finding.signature)
    if divergence is None:
        why = "this version explains it, or does not see it any more, in the trace that was kept"
        return Story(kept, Verdict("abstraction", why), None, None, None)
    counted = (finding.same_vm, finding.fresh_vm, kept.fresh_qemu or Tries(0, 0))
    stages = tuple(Stage(name, tries) for name, tries in zip(STAGES, counted, strict=True))
    known = evidence(kept.trace, checked, divergence, tuple(s for s in stages if s.tries.runs), kept.elsewhere or ())
    if finding.other is not None:
        return Story(kept, classify(known), known, None, divergence)
    ours = [j for j in checked.judged if j.known is None and is_member(signature(j.divergence), finding.signature)]
    found = sites(kept.scenario, kept.trace, finding.subject.level, ours)
    job = Job(f"{finding.id}/scenario.scn", finding.id, kept.scenario, 1)
    return Story(kept, classify(known), known, Ran(job, kept.trace, checked, found), divergence)


def _crash(kept: Kept) -> Story:
    try:
        report = from_text(kept.texts.get(CRASH, ""))
    except ValueError:  # of a campaign before there were reports
        return Story(kept, _NO_TRACE["crash"], None, None, None)
    texts = {name: text for name, text in kept.texts.items() if name != CRASH}
    why = f"{ENDS.get(report.kind, 'the target was lost')}: {_NOT_JUDGED}"
    return Story(replace(kept, texts=texts), Verdict("crash", why), None, None, None, report)


def _alarm_text(kept: Kept) -> str:
    """Say that a kernel complained, and how often it does in fresh machines."""
    why, before = _NO_TRACE["alarm"].why, _before(kept)
    if kept.fresh_qemu is None:
        return f"{why}; it was not tried in fresh machines"
    how = f"after {before} of the scenarios that ran before it" if before else "alone"
    return f"{why}; the scenario {how}, in fresh machines: {rate_text(kept.fresh_qemu)}"


def _before(kept: Kept) -> int:
    """Return how many scenarios were kept that ran before."""
    return sum(name.startswith(EARLIER) for name in kept.texts)


def cluster_name(finding: Finding) -> str:
    """Return what people call a finding's cluster."""
    if finding.kind == "divergence":
        return signature_text(finding.signature)
    return f"{finding.kind}: {', '.join(finding.signature)}"


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of one kind and signature: one cluster, whatever target, kernel and level they were seen on."""

    kind: str
    signature: Signature
    stories: tuple[Story, ...]

    @property
    def name(self) -> str:
        """The cluster as people write it."""
        return cluster_name(self.stories[0].kept.finding)

    @property
    def count(self) -> int:
        """Scenarios that showed it."""
        return sum(story.kept.count for story in self.stories)

    @property
    def targets(self) -> tuple[str, ...]:
        """Where it was seen."""
        return tuple(dict.fromkeys(story.kept.finding.where for story in self.stories))

    @property
    def new(self) -> bool:
        """Whether it is like no kept regression, on one target at least."""
        return not all(story.like for story in self.stories)


def groups(stories: Iterable[Story]) -> tuple[Group, ...]:
    """Group findings by kind and signature: crashes first, then new ones, then the most frequent first."""
    by_key: dict[tuple[str, Signature], list[Story]] = {}
    for story in stories:
        by_key.setdefault((story.kept.finding.kind, story.kept.finding.signature), []).append(story)
    found = [Group(kind, key, tuple(members)) for (kind, key), members in by_key.items()]
    return tuple(sorted(found, key=lambda g: (g.kind != "crash", g.kind, not g.new, -g.count, g.signature)))


def replay_command(kept: Kept, out: str = "", crash: Report | None = None) -> str:
    """Return the command that shows a finding again; ``out`` is the campaign's directory (empty: the current one).

    A ``crash`` may want the scenarios before it, and so may an alarm.
    """
    subject, other = kept.finding.subject, kept.finding.other
    shelf = "findings" if kept.confirmed else "flaky"
    file = f"{shelf}/{kept.finding.id}/scenario.scn"
    place = PurePath(out) / file
    first = _target_word(subject.target, kept.config, place.with_name(TARGET))
    if other is not None:
        second = _target_word(other.target, kept.other_config, place.with_name(OTHER_TARGET))
        return shlex.join(["shadowfuzz", "kernels", "against", first, second, str(place)])
    before = 0 if crash is None or crash.again is None else crash.again.before
    before = _before(kept) if kept.finding.kind == "alarm" else before
    earlier = [str(place.with_name(f"{EARLIER}{number:02}.scn")) for number in range(before, 0, -1)]
    words = ["shadowfuzz", "replay", *(["--same-vm"] if earlier else []), *earlier, str(place)]
    words += hyp_copy.options(kept.finding.signature)
    return shlex.join([*words, "--target", first, "--level", subject.level])


def _target_word(target: str, config: MachineConfig | None, copy: PurePath) -> str:
    """Return what a command is given: of a target file without a path in its name, the copy beside the scenario."""
    base, mark, emulator = target.partition("%") if "/" not in target else (target, "", "")
    if config is None or "@" in target or base in list_configs():
        return target
    return f"{copy}{mark}{emulator}"
