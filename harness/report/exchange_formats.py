# SPDX-License-Identifier: Apache-2.0
"""Export findings for programs: JSON and JUnit XML.  Pure.

JSON keys: ``unreadable[]`` (where, why) and ``findings[]`` with id, kind, title, verdict, why, confirmed, signature[],
cluster, like[] (kept regressions that show its signature), new (like[] is empty), target, kernel_release,
kernel_sha256, level, against (the second target, or null), count, first_seen, last_seen, rate, levels{level: stand},
elsewhere{emulator: rate}, releases[] (config, version, answer, seen, runs), scenario (text or null), sites[] (as in
``replay --json``).  docs/schema/findings.json has their types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from harness.findings.finding import signature_text
from harness.findings.regressions import likeness
from harness.findings.verdict import elsewhere_text, rate_text, together
from harness.report.crash import facts
from harness.report.finding_data import Story, replay_command
from harness.report.replay_json import site_json
from harness.scenario.scenario import format_scenario
from harness.vm.crash import Report


def story_json(story: Story) -> Mapping[str, object]:
    """Return one finding as plain data."""
    kept, finding = story.kept, story.kept.finding
    stages = story.evidence.stages if story.evidence else ()
    return {
        "id": story.id,
        "kind": finding.kind,
        "title": story.title,
        "verdict": story.verdict.name,
        "why": story.verdict.why,
        "confirmed": kept.confirmed,
        "signature": list(finding.signature),
        "cluster": signature_text(finding.signature),
        "like": list(story.like),
        "new": not story.like,
        "target": finding.subject.target,
        "kernel_release": finding.subject.kernel_release,
        "kernel_sha256": finding.subject.kernel_sha256,
        "level": finding.subject.level,
        "against": None if finding.other is None else asdict(finding.other),
        "count": kept.count,
        "first_seen": finding.first_seen,
        "last_seen": kept.last_seen,
        "rate": rate_text(together(stages)),
        "levels": {side.level: side.stand for side in story.evidence.sides} if story.evidence else {},
        "elsewhere": {p.name: elsewhere_text(p) for p in story.evidence.elsewhere} if story.evidence else {},
        "crash": None if story.crash is None else _crash_json(story.crash),
        "texts": dict(kept.texts),
        "releases": [asdict(asked) for asked in kept.history],
        "scenario": None if kept.scenario is None else format_scenario(kept.scenario),
        "sites": [site_json(site, finding.subject.level) for site in story.ran.sites] if story.ran else [],
    }


def _crash_json(crash: Report) -> Mapping[str, object]:
    """Return the state of a lost target: registers in hexadecimal, numbers of tries as [hits, runs]."""
    registers = {name: hex(value) for name, value in crash.remains.registers.items()}
    return {**asdict(crash), "remains": {**asdict(crash.remains), "registers": registers}}


def _said(story: Story) -> str:
    """Return the facts of a crash, one line for each."""
    return "" if story.crash is None else "".join(f"{name}: {words}\n" for name, words in facts(story.crash))


def findings_json(stories: Sequence[Story], unreadable: Sequence[tuple[str, str]] = ()) -> Mapping[str, object]:
    """Return all findings as plain data, with the place and reason of each row that could not be read."""
    return {
        "findings": [story_json(story) for story in stories],
        "unreadable": [{"where": where, "why": why} for where, why in unreadable],
    }


def junit(stories: Sequence[Story]) -> str:
    """Return findings as JUnit XML: a failed test case for each new one, a skipped one for each known or flaky one."""
    skipped = sum(_is_skipped(story) for story in stories)
    attributes = {"name": "shadowfuzz", "tests": str(len(stories)), "skipped": str(skipped)}
    suite = ElementTree.Element("testsuite", attributes | {"failures": str(len(stories) - skipped), "errors": "0"})
    for story in stories:
        finding = story.kept.finding
        name = f"{story.id} {signature_text(finding.signature)}"
        case = ElementTree.SubElement(suite, "testcase", {"classname": _xml(finding.where), "name": _xml(name)})
        if _is_skipped(story):  # a skipped case has no type
            why = likeness(story.like) if story.kept.confirmed else "flaky"
            what = ElementTree.SubElement(case, "skipped", {"message": _xml(f"{why}: {story.title}")})
        else:
            what = ElementTree.SubElement(case, "failure", {"message": _xml(story.title), "type": likeness(story.like)})
        command = replay_command(story.kept, "", story.crash)
        what.text = _xml(f"{story.verdict.name}: {story.verdict.why}\n{_said(story)}{command}\n")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _is_skipped(story: Story) -> bool:
    """Whether a finding is not new: it is flaky, or an erratum or a kept finding explains it."""
    return not story.kept.confirmed or bool(story.like)


def _xml(text: str) -> str:
    """Replace characters that XML 1.0 forbids: control characters, lone surrogates, U+FFFE and U+FFFF."""
    return "".join(c if c in "\n\t" or c.isprintable() else "?" for c in text)
