# SPDX-License-Identifier: Apache-2.0
"""Format the check of a kernel as text of one screen, as JSON and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from fuzz.triage.tree_change import ScenarioChange, SignatureGroup
from fuzz.triage.tree_check import TreeCheck
from harness.findings.finding import Subject
from harness.report.terminal import printable

MOST = 6
"""Maximum number of lines of each part, so that the report fits a screen."""


def report_lines(found: TreeCheck) -> Iterator[str]:
    """Yield the lines of a report."""
    change, ran = found.change, len(found.corpus)
    yield f"kernel         {_subject(found.kernel)}"
    yield f"base           {_subject(found.base)}"
    again = f", {len(found.campaign)} of its findings on both" if found.campaign else ""
    campaign = f", {found.scenarios} in a campaign{again}" if found.scenarios else ""
    yield f"scenarios      {ran} of the corpus{campaign}; {found.seconds:.0f} s"
    parts = (("new problems", change.new), ("fixed", change.fixed), ("other changes", change.changed))
    for title, groups in parts:
        yield f"{title:15}{len(groups) or 'none'}"
        yield from _group_lines(groups, found)
    if change.intended:
        rows = ", ".join(f"{name} ({count})" for name, count in list(change.intended.items())[:MOST])
        yield f"intended       {rows}{', ...' if len(change.intended) > MOST else ''}"
    yield f"on both        {len(change.same) or 'no'} unexplained signature{'s' * (len(change.same) != 1)}"
    if found.left:
        yield f"not run        {found.left} scenarios and the campaign: enough differs"
    for name, why in found.undecided[:MOST]:
        yield f"undecided      {name}: {printable(why)}"
    yield change.text


def _subject(subject: Subject) -> str:
    return f"{printable(subject.target)}, Linux {printable(subject.kernel_release)}"


def _group_lines(groups: Sequence[SignatureGroup], found: TreeCheck) -> Iterator[str]:
    for group in groups[:MOST]:
        count = len(group.scenarios)
        kept = " or ".join(found.kept(group.signature))
        where = f"{count} scenario{'s' * (count > 1)}, first {group.scenarios[0]}"
        yield f"  {printable(group.signature)}: {where}{f'; like {kept}' if kept else ''}"
    if len(groups) > MOST:
        yield f"  and {len(groups) - MOST} more (--json has all)"


def report_json(found: TreeCheck) -> dict[str, object]:
    """Return plain data for :mod:`json`."""
    change = found.change
    return {
        "kernel": asdict(found.kernel),
        "base": asdict(found.base),
        "scenarios": {"corpus": len(found.corpus), "campaign": found.scenarios, "left": found.left},
        "seconds": round(found.seconds, 1),
        **{
            part: [{**asdict(group), "kept": found.kept(group.signature)} for group in groups]
            for part, groups in (("new", change.new), ("fixed", change.fixed), ("changed", change.changed))
        },
        "intended": dict(change.intended),
        "same": [group.signature for group in change.same],
        "undecided": [{"scenario": name, "why": why} for name, why in found.undecided],
        "exit_status": found.exit_status,
    }


def report_junit(found: TreeCheck) -> str:
    """Return JUnit XML: a test case for each scenario, failed if it shows a new problem or another change."""
    cases = [("corpus", shown) for shown in found.corpus] + [("campaign", shown) for shown in found.campaign]
    failures = sum(bool(shown.new or (shown.changed and not shown.fixed)) for _, shown in cases)
    counts = {"tests": len(cases) + len(found.undecided), "failures": failures, "errors": len(found.undecided)}
    attributes = {"name": "shadowfuzz ci", "time": f"{found.seconds:.1f}"}
    suite = ElementTree.Element("testsuite", attributes | {name: str(count) for name, count in counts.items()})
    for part, shown in cases:
        _case(suite, f"{found.kernel.target}.{part}", shown)
    for name, why in found.undecided:
        case = ElementTree.SubElement(suite, "testcase", {"classname": found.kernel.target, "name": name})
        ElementTree.SubElement(case, "error", {"message": printable(why)})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, place: str, shown: ScenarioChange) -> None:
    case = ElementTree.SubElement(suite, "testcase", {"classname": place, "name": shown.name})
    if shown.new or (shown.changed and not shown.fixed):
        kind, texts = ("new problem", shown.new) if shown.new else ("other change", shown.changed)
        message = printable(", ".join(sorted(texts)))
        ElementTree.SubElement(case, "failure", {"type": kind, "message": message})
    if shown.fixed:
        ElementTree.SubElement(case, "system-out").text = printable(f"fixed: {', '.join(sorted(shown.fixed))}")
