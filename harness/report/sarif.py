# SPDX-License-Identifier: Apache-2.0
"""Export findings as a SARIF 2.1.0 log, with the properties that GitHub's code scanning requires.  Pure.

Source: OASIS SARIF 2.1.0; "SARIF support for code scanning" of GitHub's documentation: a result needs a location with a
region and a stable path, a rule needs its descriptions and a help text, and ``primaryLocationLineHash`` is the
fingerprint that identifies the same alert in two uploads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from harness.findings.finding import Finding, signature_text
from harness.findings.regressions import likeness
from harness.report.crash import again_text
from harness.report.finding_data import Story, replay_command
from harness.report.glossary import ABOUT, LIKE, in_words
from harness.report.terminal import printable
from harness.scenario.scenario import format_scenario
from harness.vm.config import like_name

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "primaryLocationLineHash"
_LEVEL: Mapping[str, str] = {"kvm": "error", "crash": "error", "alarm": "error", "internal": "error", "flaky": "note"}
_SEVERITY: Mapping[str, str] = {"error": "7.0", "warning": "4.0", "note": "1.0"}
"""The sort key of code scanning: 7.0 and more is high, 4.0 medium."""


def sarif(stories: Sequence[Story], version: str, unreadable: Sequence[str] = ()) -> Mapping[str, object]:
    """Return findings as a SARIF log; a rule for each cluster; ``version`` is that of shadowfuzz.

    ``unreadable`` has a message for each row that could not be read: a notification of the run.
    """
    rules = {_rule_id(story): story for story in reversed(stories)}
    names = sorted(rules)
    notes = [{"level": "warning", "message": {"text": printable(line)}} for line in unreadable]
    driver = {"name": "shadowfuzz", "version": version, "rules": [_rule(name, rules[name]) for name in names]}
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": [_result(story, names.index(_rule_id(story))) for story in stories],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def fingerprint(finding: Finding) -> str:
    """Return a hash that is equal for a cluster of a target on all builds of the kernel."""
    targets = [like_name(subject.target) for subject in (finding.subject, finding.other) if subject is not None]
    key = json.dumps([finding.kind, finding.signature, targets, finding.subject.level])
    return f"{hashlib.sha256(key.encode()).hexdigest()[:16]}:1"


def _rule_id(story: Story) -> str:
    return printable(signature_text(story.kept.finding.signature))


def _rule(name: str, story: Story) -> Mapping[str, object]:
    level = _level(story)
    words = in_words(story.kept.finding) or story.title
    steps = f"Reproduce it: {replay_command(story.kept, '', story.crash)}"
    read = f"Read it: shadowfuzz findings show {story.id}"
    return {
        "id": name,
        "name": story.kept.finding.kind,
        "shortDescription": {"text": printable(story.title)[:1024]},
        "fullDescription": {"text": printable(words)[:1024]},
        "help": {
            "text": "\n".join(map(printable, (words, ABOUT, LIKE, steps, read))),
            "markdown": "\n\n".join(_markdown(text) for text in (words, ABOUT, LIKE, steps, read)),
        },
        "defaultConfiguration": {"level": level},
        "properties": {
            "tags": ["kvm", story.kept.finding.kind],
            "problem.severity": "recommendation" if level == "note" else level,
            "security-severity": _SEVERITY[level],
        },
    }


def _markdown(text: str) -> str:
    """Escape text for Markdown: it may be output of a kernel or a guest."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-!|~&" else c for c in printable(text))


def _level(story: Story) -> str:
    """Return the level: a note for a finding that an erratum explains."""
    return "note" if story.like else _LEVEL.get(story.verdict.name, "warning")


def _result(story: Story, rule: int) -> Mapping[str, object]:
    finding = story.kept.finding
    shelf = "findings" if story.kept.confirmed else "flaky"
    file = "finding.json" if story.kept.scenario is None else "scenario.scn"
    place = {
        "artifactLocation": {"uri": f"{shelf}/{story.id}/{file}", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": _line(story)},
    }
    text = f"{story.title} ({story.verdict.name}: {story.verdict.why})"
    if story.crash is not None:
        text += f"; reproduced: {again_text(story.crash.again)}"
    return {
        "ruleId": _rule_id(story),
        "ruleIndex": rule,
        "level": _level(story),
        "message": {"text": printable(f"{in_words(finding)} {text}".strip())},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {FINGERPRINT: fingerprint(finding), "shadowfuzz/v1": story.id},
        "occurrenceCount": min(max(1, story.kept.count), (1 << 31) - 1),
        "properties": {
            "finding": story.id,
            "target": finding.where,
            "kernel": finding.subject.kernel_release,
            "like": list(story.like),
            "likeness": likeness(story.like),
            "new": not story.like,
        },
    }


def _line(story: Story) -> int:
    """Return the line of the scenario with the step of the divergence; 1 if it is unknown."""
    scenario, first = story.kept.scenario, next(iter(story.kept.finding.divergences), None)
    if scenario is None or first is None or not 0 <= first.step < len(scenario.steps):
        return 1
    return len(format_scenario(scenario).splitlines()) - len(scenario.steps) + first.step + 1
