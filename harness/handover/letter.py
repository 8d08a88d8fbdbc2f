# SPDX-License-Identifier: Apache-2.0
"""What a mail says of a finding, from what is kept of an erratum or from a campaign's finding.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from harness.coverage.exercised_rules import rules_at
from harness.findings.regressions import Regression
from harness.findings.release_history import sentences
from harness.findings.verdict import rate_text, together
from harness.handover.shown import Shown, steps_done
from harness.handover.steps_in_words import registers_in_words, step_in_words
from harness.relations.basis import ARCHITECTURE
from harness.relations.contract_rules import Rule
from harness.relations.divergence import Divergence
from harness.report.crash import facts
from harness.report.finding_data import Story
from harness.report.glossary import in_words
from harness.scenario.steps import KINDS, Actor
from harness.trace.indexed import index_trace
from harness.vm.crash import ENDS

MODES: Mapping[str, str] = MappingProxyType({"nvhe": "nVHE", "vhe": "VHE", "protected": "protected (pKVM)"})
"""The modes of KVM by the last part of a target's name."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that shows a finding: what for, and its words as a shell takes them."""

    what: str
    line: str


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail says: a subject, and the paragraphs or lines of each of its sections."""

    subject: str
    wrong: tuple[str, ...]
    why: tuple[str, ...]
    releases: tuple[str, ...]
    scenario: tuple[str, ...]
    values: tuple[str, ...]
    commands: tuple[Command, ...]


def of_erratum(row: Regression, rows: Sequence[Regression], shown: Shown | None, commands: Sequence[Command]) -> Letter:
    """Return the letter on a kept finding; ``shown`` is what its scenario shows, None if it has none."""
    return Letter(
        subject_of(row.id),
        (row.summary,),
        tuple(_why(row, rows)),
        tuple(_spans(row, rows)),
        () if shown is None else scenario_lines(shown),
        tuple(_values(shown)) or tuple(_ends(row)),
        tuple(commands),
    )


def of_story(story: Story, rows: Sequence[Regression], shown: Shown | None, commands: Sequence[Command]) -> Letter:
    """Return the letter on a campaign's finding; one that an erratum explains has the text of that."""
    named = {row.id: row for row in rows}
    errata = [named[id_] for id_ in story.like if id_ in named]
    scenario = () if shown is None else scenario_lines(shown)
    values = tuple(_values(shown)) or tuple(_story_values(story))
    if errata:
        first = errata[0]
        why = [line for row in errata for line in _why(row, rows)]
        also = [row.summary for row in errata]
        releases = [*_history(story), *_spans(first, rows)]
        return Letter(subject_of(first.id), tuple(also), tuple(why), tuple(releases), scenario, values, tuple(commands))
    return Letter(
        _story_subject(story),
        tuple(_story_words(story)),
        tuple(_story_why(story)),
        tuple(_history(story)),
        scenario,
        values,
        tuple(commands),
    )


_WORDS: Mapping[str, str] = MappingProxyType(
    {"mmio": "MMIO", "serror": "SError", "esr": "ESR", "el1": "EL1", "vm": "VM", "vms": "VMs", "ipa": "IPA"}
    | {"cpu": "CPU", "gic": "GIC", "cp15": "CP15", "vncr": "VNCR", "bugs": "is a BUG"}
)


def subject_of(id_: str) -> str:
    """Return the id of an erratum as the subject of a mail."""
    return " ".join(_WORDS.get(word, word) for word in id_.split("-"))


_OUR_PAGE = re.compile(r"docs/[\w./-]+(?: sections? [\d.]+(?: and [\d.]+)?)?:? ?")
_OURS = re.compile(r"docs/kernels\.md|^forged exits\b|harness/")


def outside_sources(source: str, rows: Mapping[str, Regression]) -> str:
    """Return the sources of a kept finding without the project's own pages; one that names another has that one's."""
    parts: list[str] = []
    for part in source.split("; "):
        named = re.fullmatch(r"as ([\w-]+)", part)
        if named and named[1] in rows:
            parts.append(outside_sources(rows[named[1]].source, rows))
        elif not _OURS.search(part):
            parts.append(_OUR_PAGE.sub("", part))
    return "; ".join(dict.fromkeys(filter(None, parts)))


def _why(row: Regression, rows: Sequence[Regression]) -> Iterator[str]:
    named = {each.id: each for each in rows}
    reference = re.match(r"As ([\w-]+): ", row.why)
    other = named.get(reference[1]) if reference else None
    yield row.why[len(reference[0]) :] if other and reference else row.why
    if other:
        yield other.why
    yield f"Sources: {outside_sources(row.source, named)}."


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _spans(row: Regression, rows: Sequence[Regression]) -> Iterator[str]:
    """Yield a line for each mode: the first and last kernel that show it, and the nearest ones that do not."""
    for mode, spans in row.releases.items():
        tried = sorted({end for each in rows for span in each.releases.get(mode, ()) for end in span.split(" to ")}, key=_version)
        for span in spans:
            first, last = span.split(" to ")
            before = [kernel for kernel in tried if _version(kernel) < _version(first)]
            after = [kernel for kernel in tried if _version(kernel) > _version(last)]
            good = f"; {before[-1]} has not" if before else ", the oldest that was tried"
            yield f"{MODES[mode]}: first bad {first}{good}"
            yield f"{MODES[mode]}: last bad {last}{f'; first good {after[0]}' if after else ', the newest that was tried'}"
    if not row.releases:
        yield from _by_target(row)
    if row.elsewhere:
        yield f"Measured on {' to '.join(place.partition('@')[2] for place in row.elsewhere.split(' to '))}."


def _by_target(row: Regression) -> Iterator[str]:
    """Yield the kernels of the project's targets that show a finding, and those that do not."""
    every = ("kvm-nvhe", "kvm-vhe", "kvm-protected", "kvm-6.12-nvhe", "kvm-7.3-nvhe", "kvm-7.3-protected")
    for what, some in (("bad", [t for t in every if t in row.targets]), ("good", [t for t in every if t not in row.targets])):
        if some and row.targets:
            yield f"{what}: {', '.join(_kernel_of(target) for target in some)}"


def _kernel_of(target: str) -> str:
    parts = target.split("-")
    return f"{parts[1] if len(parts) > 2 else '6.1'} {MODES[parts[-1]]}"


def scenario_lines(shown: Shown) -> tuple[str, ...]:
    """Return what a scenario does, a line a step: who, and what."""
    lines = [f"at first   {text}" for text in registers_in_words(shown.scenario)]
    for done in steps_done(shown.scenario, len(shown.scenario.steps) if not shown.checks else shown.steps):
        who = "guest" if KINDS[done.step.kind].side is Actor.GUEST else "userspace"
        lines.append(f"{who:10} {step_in_words(done.step)}")
    return tuple(lines)


def _hex(value: int | str) -> str:
    return hex(value) if isinstance(value, int) else value


_HOW: Mapping[str, str] = MappingProxyType(
    {
        "serror": "virtual SError pending",
        "slot": "KVM_SET_USER_MEMORY_REGION",
        "step": "instructions executed by the first step",
        "stop": "address at which the guest comes back",
    }
)


def _values(shown: Shown | None) -> Iterator[str]:
    if shown is None:
        return
    for check in shown.checks or shown.hidden:
        name = _HOW.get(check.how, check.register.rpartition(".")[2].upper())
        after = " after another VM has run" if check.how == "same" else ""
        yield f"{name}{after}: required {_hex(check.expected)}, observed {_hex(check.observed)}"


def _ends(row: Regression) -> Iterator[str]:
    for signature in row.signatures:
        kind, _, where = signature.partition("/")
        if kind in ENDS:
            yield f"required: the host runs on; observed: {ENDS[kind]} in {where}"
        elif kind == "warn":
            yield f"required: the host's log stays quiet; observed: a WARN in {where}"
        else:
            yield f"{kind.partition('.')[2]} at {where.partition('/')[0]} differs; no values are kept"


def _story_values(story: Story) -> Iterator[str]:
    finding = story.kept.finding
    for each in finding.divergences[:4]:
        yield f"{each.register or each.relation}: required {each.expected}, observed {each.observed}"
    if story.crash is not None:
        yield "required: the host runs on"
        yield from (f"{name}: {words}" for name, words in facts(story.crash) if name in ("how", "its words", "pc"))
    elif finding.kind != "divergence":
        yield f"required: the host's log stays quiet; observed: {' '.join(finding.signature)}"


def _story_subject(story: Story) -> str:
    divergence = story.divergence
    if divergence is not None and divergence.register:
        name = divergence.register.rpartition(".")[2].upper()
        return f"{name} is {_hex(divergence.observed)}, required {_hex(divergence.expected)}"
    return story.title


def _story_words(story: Story) -> Iterator[str]:
    yield in_words(story.kept.finding) or story.title
    if story.evidence is not None:
        yield f"It comes back in {rate_text(together(story.evidence.stages))} runs."


def _story_why(story: Story) -> Iterator[str]:
    divergence = story.divergence
    if divergence is None or story.ran is None:
        yield f"{story.verdict.why}."
        return
    if divergence.basis:
        yield f"This breaks a {divergence.basis}."
    scenario, indexed = story.ran.job.scenario, index_trace(story.ran.trace)
    rules = [rule for rule in rules_at(scenario, indexed, divergence.event) if _is_about(rule, divergence)]
    yield from (f"Required: {rule.owed} ({_OUR_PAGE.sub('', rule.source)})." for rule in rules)
    if not rules:
        yield f"Required by the Arm ARM: the guest's instructions give {_hex(divergence.expected)}." if (
            divergence.basis == ARCHITECTURE
        ) else f"{story.verdict.why}."


def _is_about(rule: Rule, divergence: Divergence) -> bool:
    if rule.name.startswith("reset."):
        return rule.name == f"reset.{divergence.register}"
    return True


def _history(story: Story) -> Iterator[str]:
    subject = story.kept.finding.subject
    mode = MODES.get(subject.target.partition("%")[0].partition("@")[0].rpartition("-")[2], subject.target)
    yield f"Seen on Linux {subject.kernel_release}, {mode}."
    yield from sentences(story.kept.history)
    if not story.kept.history and not story.like:
        yield "Other releases were not tried."
