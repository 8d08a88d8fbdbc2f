# SPDX-License-Identifier: Apache-2.0
"""Collect all data that a report shows of a kept finding, recomputed from its scenario and its trace: pure."""

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
    """The stored data of a finding: ``confirmed`` or flaky; ``texts`` are consoles and earlier scenarios.

    ``fresh_qemu`` counts reproductions in fresh machines, None if not tested; ``elsewhere`` has the results on other
    emulators, None if not tested.  ``scenario`` and the traces are None if they are missing, or unreadable for this
    version; ``other_trace`` is that of the second target, if two were compared.  ``history``: which kernels show it,
    empty if none was tested.  ``config`` and ``other_config`` are the targets' configurations at that time, None if
    they were not stored.
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
    """An explained finding; ``ran`` holds only the sites of its own signature, None without a trace.

    ``crash`` is the report of a lost target, None if there is none that this version can read.  ``like``: the kept
    regressions that show its signature on its target, empty if it is new.
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
        """Its name on a page; different for confirmed and flaky, because a finding may be both in different
        campaigns."""
        return self.id if self.kept.confirmed else f"flaky-{self.id}"

    @property
    def title(self) -> str:
        """Its description in one line."""
        return self.kept.finding.title


_NOT_JUDGED = "the result of what it was running is unknown"
_NO_TRACE: Mapping[str, Verdict] = {
    "crash": Verdict("crash", f"the target was lost: {_NOT_JUDGED}"),
    "internal": Verdict("internal", "shadowfuzz itself failed"),
    "alarm": Verdict("alarm", "the log of the target's kernel has an alarm"),
    "divergence": Verdict("unexplained", "its trace was not kept"),
}


_NO_TARGET = Verdict("unexplained", "its trace was not checked: its target was not stored and does not exist here")


def build_story(
    kept: Kept,
    cpu: Cpu | None,
    catalogue: Catalogue,
    changes: tuple[Intended, ...] = (),
    errata: TargetErrata = NO_ERRATA,
) -> Story:
    """Return the story of a finding: check its trace again, find its sites, and give its verdict.

    ``cpu`` is the target's CPU model, None if it is unknown; ``errata`` are the target's.  If two targets were
    compared, their traces are compared with the intended ``changes``; there are no sites then.
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
        why = "in the kept trace, this version explains it, or does not find it any more"
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
    except ValueError:  # of a campaign of an older version without reports
        return Story(kept, _NO_TRACE["crash"], None, None, None)
    texts = {name: text for name, text in kept.texts.items() if name != CRASH}
    why = f"{ENDS.get(report.kind, 'the target was lost')}: {_NOT_JUDGED}"
    return Story(replace(kept, texts=texts), Verdict("crash", why), None, None, None, report)


def _alarm_text(kept: Kept) -> str:
    """Describe an alarm, and how often it was reproduced in fresh machines."""
    why, before = _NO_TRACE["alarm"].why, _before(kept)
    if kept.fresh_qemu is None:
        return f"{why}; not tested in fresh machines"
    how = f"after {before} of the scenarios that ran before it" if before else "alone"
    return f"{why}; the scenario {how}, in fresh machines: {rate_text(kept.fresh_qemu)}"


def _before(kept: Kept) -> int:
    """Return the number of kept scenarios that ran before."""
    return sum(name.startswith(EARLIER) for name in kept.texts)


def cluster_name(finding: Finding) -> str:
    """Return the name of a finding's cluster, for people."""
    if finding.kind == "divergence":
        return signature_text(finding.signature)
    return f"{finding.kind}: {', '.join(finding.signature)}"


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of one kind and signature: one cluster, on any target, kernel and level."""

    kind: str
    signature: Signature
    stories: tuple[Story, ...]

    @property
    def name(self) -> str:
        """The name of the cluster."""
        return cluster_name(self.stories[0].kept.finding)

    @property
    def count(self) -> int:
        """Number of scenarios that showed it."""
        return sum(story.kept.count for story in self.stories)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets on which it was observed."""
        return tuple(dict.fromkeys(story.kept.finding.where for story in self.stories))

    @property
    def new(self) -> bool:
        """Whether on at least one target no kept regression has its signature."""
        return not all(story.like for story in self.stories)


def groups(stories: Iterable[Story]) -> tuple[Group, ...]:
    """Group findings by kind and signature: crashes first, then new ones, then the most frequent first."""
    by_key: dict[tuple[str, Signature], list[Story]] = {}
    for story in stories:
        by_key.setdefault((story.kept.finding.kind, story.kept.finding.signature), []).append(story)
    found = [Group(kind, key, tuple(members)) for (kind, key), members in by_key.items()]
    return tuple(sorted(found, key=lambda g: (g.kind != "crash", g.kind, not g.new, -g.count, g.signature)))


def replay_command(kept: Kept, out: str = "", crash: Report | None = None) -> str:
    """Return the command that reproduces a finding; ``out`` is the campaign's directory (empty: the current one).

    A ``crash`` or an alarm may need the scenarios before it.
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


def show_command(story: Story, out: str = "") -> str:
    """Return the command that shows a finding in full; ``out`` as for :func:`replay_command`."""
    return shlex.join(["shadowfuzz", "findings", "show", story.id, *(["--campaign", out] if out else [])])


def _target_word(target: str, config: MachineConfig | None, copy: PurePath) -> str:
    """Return the target argument of a command: for a target file without a path in its name, the copy next to the
    scenario."""
    base, mark, emulator = target.partition("%") if "/" not in target else (target, "", "")
    if config is None or "@" in target or base in list_configs():
        return target
    return f"{copy}{mark}{emulator}"
