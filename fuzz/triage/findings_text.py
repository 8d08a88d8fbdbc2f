# SPDX-License-Identifier: Apache-2.0
"""Format findings as text: an overview by clusters, one finding in full, and machine-readable formats."""

from __future__ import annotations

import importlib.metadata
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.paths import out_words
from fuzz.store.database import Unreadable
from fuzz.store.marks import Mark
from harness.findings.regressions import NEW, Regression, is_by_cause, likeness, new_text
from harness.findings.release_history import sentences
from harness.findings.verdict import rate_text, together, verdict_lines
from harness.report import crash, exchange_formats, terminal
from harness.report.finding_data import Group, Story, groups, replay_command
from harness.report.glossary import in_words
from harness.report.sarif import sarif
from harness.report.terminal import Style, many, printable
from harness.report.trace_text import trace_lines
from harness.scenario.scenario import format_scenario

WIDTH, _INDENT = 100, 12


def machine_format(found: Sequence[Story], form: str, unreadable: Sequence[Unreadable] = ()) -> str:
    """Return findings as JUnit XML or SARIF; SARIF also names ``unreadable`` rows."""
    if form == "junit":
        return exchange_formats.junit(found)
    version = importlib.metadata.version("shadowfuzz")
    return json.dumps(sarif(found, version, tuple(map(str, unreadable))), indent=1) + "\n"


def overview(found: Sequence[Story], style: Style, what: str = "findings") -> Iterator[str]:
    """Yield a line for each cluster, then one for each of its findings; without findings, yield ``no {what}``."""
    confirmed = groups(story for story in found if story.kept.confirmed)
    flaky = groups(story for story in found if not story.kept.confirmed)
    if not found:
        yield f"no {what}"
    for title, some in (("confirmed", confirmed), ("flaky: not reproduced when run again", flaky)):
        if some:
            new = f", {new_text(sum(group.new for group in some))}"
            yield style.paint("bold", f"{many(len(some), 'cluster')} {title}{new}" if some is confirmed else title)
        for group in some:
            yield from _group(group, style)


def _group(group: Group, style: Style) -> Iterator[str]:
    verdicts = ", ".join(dict.fromkeys(story.verdict.name for story in group.stories))
    head = f"{group.count:6}x  {NEW if group.new else '':3}  {verdicts:12} {printable(group.name)}"
    yield style.paint("red" if verdicts in ("kvm", "crash", "alarm") else "yellow", head)
    for story in group.stories:
        kernel = story.kept.finding.subject
        where = f"{kernel.target}, Linux {kernel.kernel_release}"
        yield style.paint("dim", f"         {story.id}  {where}, {likeness(story.like)}")
        yield f"         {printable(story.title)}"


@dataclass(frozen=True, slots=True)
class Background:
    """The kept findings that a finding is like, and the function of KVM that handles its exit, as text."""

    errata: tuple[Regression, ...] = ()
    handled: str = ""


def finding_text(story: Story, style: Style, out: str, about: Background, *, trace: bool = False) -> Iterator[str]:
    """Yield one finding in full."""
    kept, finding = story.kept, story.kept.finding
    subject = finding.subject
    yield style.paint("bold", f"{story.id}: {printable(story.title)}")
    if words := in_words(finding):
        yield f"  {printable(words)}"
    yield f"  seen on   {subject.target}, Linux {subject.kernel_release}, level {subject.level}"
    if finding.other is not None:
        yield f"  against   {finding.other.target}, Linux {finding.other.kernel_release}"
    yield f"  seen      {kept.count} times, first {finding.first_seen}, last {kept.last_seen}"
    if story.like and is_by_cause(finding):
        yield f"  cause     {', '.join(story.like)}: predicted bit for bit with its rule (docs/errata.md)"
    elif story.like:
        yield f"  like      {', '.join(story.like)}: the same signature, which does not prove the same cause"
    else:
        yield f"  new       no erratum of {finding.where} explains it"
    for row in about.errata:
        yield from _field("erratum", f"{row.id}: {row.summary}")
        yield from _field("why", row.why)
        yield from _field("source", row.source)
    if about.handled:
        yield from _field("in KVM", about.handled)
    if story.evidence is None:
        yield f"  verdict {story.verdict.name}: {story.verdict.why}"
    else:
        yield from (f"  {line}" for line in verdict_lines(story.verdict, story.evidence))
        yield f"  reproduced {rate_text(together(story.evidence.stages))}"
    if story.crash is not None:
        yield from (f"  {name:13} {printable(words)}" for name, words in crash.facts(story.crash))
    yield from (f"  releases  {sentence}" for sentence in sentences(kept.history))
    yield f"  replay    {replay_command(kept, out, story.crash)}"
    yield f"  mail      shadowfuzz findings export {story.id} --mail{out_words(Path(out))}"
    if kept.scenario is not None:
        yield style.paint("bold", "scenario")
        yield from (f"    {line}" for line in format_scenario(kept.scenario).splitlines())
    if story.ran is not None:
        yield style.paint("bold", "differences")
        yield from terminal.sites(story.ran, subject.level, style)
        if trace:
            yield style.paint("bold", "trace")
            yield from trace_lines(story.ran.trace)
    if finding.other is not None:
        yield style.paint("bold", "differences: first target and second target")
        yield from (f"    {d.register} at {d.exit_class}: {d.expected} and {d.observed}" for d in finding.divergences)
    if story.crash is not None and story.crash.remains.registers:
        yield style.paint("bold", "registers")
        yield from (f"    {line}" for line in crash.register_lines(story.crash))
    for name, text in kept.texts.items():
        yield style.paint("bold", name)
        yield from (f"    | {printable(line)}" for line in text.splitlines())


def _field(name: str, text: str) -> Iterator[str]:
    """Yield a name and its text, wrapped to several lines if necessary."""
    lines = textwrap.wrap(printable(text), WIDTH - _INDENT) or [""]
    yield f"  {name:{_INDENT - 2}}{lines[0]}"
    yield from (" " * _INDENT + line for line in lines[1:])


def mark_lines(mark: Mark | None) -> Iterator[str]:
    """Yield a line for each field of a finding's mark."""
    if mark is not None:
        for name in ("status", "assignee", "note", "changed"):
            if said := getattr(mark, name):
                yield f"  {name:9} {printable(said)}"
