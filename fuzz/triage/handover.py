# SPDX-License-Identifier: Apache-2.0
"""Make a mail or a KVM selftest from a finding, for people without shadowfuzz."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from fuzz.paths import ALARMS, KEPT, SHOWN
from fuzz.store.kept_findings import kept_files, kept_rows
from harness.errors import InputError
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import difference, is_member, place_text
from harness.findings.regressions import Regression
from harness.handover.letter import Command, Letter, of_erratum, of_story
from harness.handover.mail import mail_text
from harness.handover.selftest import ProgramDescription, build_commands, file_name, selftest, why_no_selftest
from harness.handover.shown import Origin, Shown, load_shown, log_checks, shown_in, simplest
from harness.relations.divergence import Divergence, causes
from harness.relations.errata import SHARED
from harness.report.finding_data import Story, replay_command
from harness.scenario.requirements import first_context
from harness.scenario.scenario import Scenario, load
from harness.trace.events import Trace
from harness.vm.config import PROJECT


@dataclass(frozen=True, slots=True)
class Handover:
    """A finding to hand over: its name, its kept row or its story of a campaign, and the divergence to show.

    Exactly one of ``row`` and ``story`` is set; ``shown`` is None if there is no scenario.  ``rows`` are all kept
    findings, ``folder`` has the scenarios of ``row``; ``handled`` names the function of KVM that handles the exit of
    ``story``.
    """

    name: str
    row: Regression | None
    story: Story | None
    shown: Shown | None
    rows: tuple[Regression, ...]
    folder: Path = Path()
    handled: str = ""

    @property
    def file(self) -> str:
        """Return the path of the kept finding's first scenario in a checkout, without the suffix."""
        assert self.row is not None
        return self.file_of(self.row.scenarios[0])

    def file_of(self, scenario: str) -> str:
        """Return the path of a scenario of the kept finding in a checkout, without the suffix."""
        return (self.folder / scenario).relative_to(PROJECT).as_posix()


def kept_handover(name: str) -> Handover | None:
    """Return the kept finding with a name, None if there is none.  InputError: a file of the project is invalid."""
    files = kept_files()
    for folder, rows in files.items():
        row = next((row for row in rows if row.id == name), None)
        if row is not None:
            return Handover(name, row, None, _kept_shown(row, folder), tuple(chain(*files.values())), folder)
    return None


def _kept_shown(row: Regression, folder: Path) -> Shown | None:
    def scenario(name: str) -> Scenario:
        return load(folder / f"{name}.scn")

    if folder == KEPT.parent:
        found = load_shown(SHOWN, scenario).get(row.id)
        if found is not None:
            return found
    name = row.scenarios[0]
    if not (folder / f"{name}.scn").is_file():
        return None
    one = scenario(name)
    kind, _, where = row.signatures[0].partition("/")
    checks = log_checks(kind, where) if folder == ALARMS.parent else ()
    return Shown(_target(row), "", name, one, len(one.steps), first_context(one), checks)


def _target(row: Regression) -> str:
    return row.targets[0] if row.targets else row.elsewhere.partition(" ")[0]


def story_handover(story: Story, handled: str = "") -> Handover:
    """Return a campaign's finding, with the divergence that its trace shows; ``handled`` as in :class:`Handover`."""
    shown = None if story.ran is None else _story_shown(story)
    scenario, subject = story.kept.scenario, story.kept.finding.subject
    if shown is None and scenario is not None:  # a loss, or a difference between two releases: no contract
        origin = Origin(subject.target, subject.kernel_release, story.id)
        finding = story.kept.finding
        checks = log_checks(*finding.signature[:2]) if finding.kind == "alarm" and len(finding.signature) > 1 else ()
        shown = Shown(*origin, scenario, len(scenario.steps), first_context(scenario), checks)
    return Handover(story.id, None, story, shown, kept_rows(), handled=handled)


def _story_shown(story: Story) -> Shown | None:
    ran, finding = story.ran, story.kept.finding
    assert ran is not None
    subject = finding.subject
    members = [d for d in ran.checked.unexplained if is_member(signature(d), finding.signature)]
    places = {(d.event, d.register) for d in members}

    def wanted(divergence: Divergence) -> bool:
        # For a divergence from the model, select the contract's divergence of the register at the same event.
        return divergence in members or (divergence.event, divergence.register) in places

    origin = Origin(subject.target, subject.kernel_release, finding.id)
    return simplest(shown_in(origin, ran.job.scenario, ran.trace, ran.checked, wanted))


def belongs_only_to(row: Regression, divergence: Divergence) -> bool:
    """Return whether a divergence is that of a kept finding only: by its cause, or by its signature without one."""
    alone = not divergence.cause or causes(divergence.cause) == (SHARED.get(row.id, row.id),)
    return alone and row.shows(place_text(signature(divergence)), [difference(divergence)])


CheckedRun = tuple[Origin, Scenario, Trace, CheckResult]
"""A scenario that was run and checked, and its target."""


def best_shown(row: Regression, rows: Sequence[Regression], seen: Sequence[CheckedRun]) -> Shown | None:
    """Return the divergence that shows a kept finding best in runs of its scenarios; None: no run shows it.

    ``rows`` are all kept findings: a scenario that shows fewer of them is better.
    """

    def others(name: str) -> int:
        return sum(name in each.scenarios for each in rows)

    found = [
        shown
        for origin, scenario, trace, checked in seen
        for shown in shown_in(origin, scenario, trace, checked, lambda divergence: belongs_only_to(row, divergence))
    ]
    good = [shown for shown in found if why_no_selftest(shown) is None]
    return simplest(good or found, others)


def letter_of(handover: Handover, out: str) -> Letter:
    """Return the contents of a mail on a finding; ``out`` is the campaign's directory, empty for the current one."""
    commands = tuple(_commands(handover, out))
    if handover.story is not None:
        letter = of_story(handover.story, handover.rows, handover.shown, commands)
        where = (f"In KVM: {handover.handled}.",) if handover.handled else ()
        return replace(letter, why=(*letter.why, *where))
    assert handover.row is not None
    return of_erratum(handover.row, handover.rows, handover.shown, commands)


def mail(handover: Handover, out: str) -> str:
    """Return the mail on a finding."""
    return mail_text(letter_of(handover, out))


def _commands(handover: Handover, out: str) -> Iterator[Command]:
    if handover.shown is not None and why_no_selftest(handover.shown) is None:
        name = _program_name(handover)
        what = (
            f"The KVM selftest {file_name(name)} (attached) fails on a kernel with this bug and passes on one without"
        )
        yield Command(f"{what}. In tools/testing/selftests/kvm/aarch64 of a 6.12 tree:", build_commands(name))
    story, row = handover.story, handover.row
    if story is not None:
        if story.kept.scenario is not None:
            yield Command(_REPLAY, (replay_command(story.kept, out, story.crash),))
        return
    assert row is not None
    if handover.shown is not None:
        file, where = handover.file_of(handover.shown.name), handover.shown.target
        yield Command(_REPLAY, (shlex.join(["shadowfuzz", "replay", f"{file}.scn", "--target", where]),))
    else:
        name, where = row.scenarios[0], _target(row)
        compiler = f"aarch64-linux-gnu-gcc -static -o {name} {handover.file}.c"
        record = shlex.join(["shadowfuzz", "recording", "record", "--target", where, "--out", f"{name}.trace", name])
        yield Command("A program that uses /dev/kvm; it needs nothing else:", (compiler, record))


_REPLAY = "The scenario on this kernel in QEMU, with shadowfuzz, which found it (in its checkout):"


def _program_name(handover: Handover) -> str:
    like = handover.story.like if handover.story is not None else ()
    return like[0] if like else handover.name


def program(handover: Handover) -> tuple[str, str]:
    """Return the name and the text of a program for the kernel's KVM selftests.

    InputError: no program can show it; the text has the reason and the step.
    """
    name = _program_name(handover)
    if handover.shown is None:
        why = "it has no scenario with a trace"
        if handover.row is not None:
            why = f"another program shows it, {handover.file}.c"
        raise InputError(handover.name, None, f"no selftest: {why}")
    letter = letter_of(handover, "")
    source = next((line for line in letter.why if line.startswith(("Sources: ", "Required: "))), "")
    about = ProgramDescription(name, " ".join(letter.wrong), source.partition(": ")[2].rstrip("."))
    return file_name(name), selftest(about, handover.shown)
