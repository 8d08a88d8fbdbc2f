# SPDX-License-Identifier: Apache-2.0
"""Build the content of a mail about a finding, from a kept erratum or from a campaign's finding.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from harness.coverage.exercised_rules import rules_at
from harness.findings.regressions import Regression, modes_by_spans, release_mode
from harness.findings.release_history import sentences
from harness.findings.verdict import rate_text, together
from harness.handover.shown import Shown, needed_steps, steps_done
from harness.handover.steps_in_words import registers_in_words, step_in_words
from harness.handover.words import MODES, exit_in_words, mode_of, without_targets
from harness.report.crash import facts
from harness.report.finding_data import Story
from harness.report.glossary import in_words
from harness.scenario.requirements import needs_protected
from harness.scenario.steps import KINDS as STEPS
from harness.scenario.steps import Actor
from harness.trace.indexed import index_trace
from harness.vm.alarms import describe_kind
from harness.vm.crash import ENDS


@dataclass(frozen=True, slots=True)
class Command:
    """Commands that reproduce a finding: their purpose, and the lines for a shell."""

    what: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """The content of a mail: a subject, and the paragraphs or lines of each section."""

    subject: str
    wrong: tuple[str, ...]
    why: tuple[str, ...]
    releases: tuple[str, ...]
    scenario: tuple[str, ...]
    values: tuple[str, ...]
    commands: tuple[Command, ...]


def of_erratum(row: Regression, rows: Sequence[Regression], shown: Shown | None, commands: Sequence[Command]) -> Letter:
    """Return the letter on a kept finding; ``shown`` has the values of its scenario, None without a scenario."""
    return Letter(
        subject_of(row.id),
        (row.summary,),
        tuple(_why(row, rows)),
        tuple(_spans(row, rows, shown is not None and needs_protected(shown.scenario))),
        scenario_lines(shown) if shown is not None else (f"the program {row.scenarios[0]}.c",),
        tuple(_values(shown)) or tuple(_ends(row)),
        tuple(commands),
    )


def of_story(story: Story, rows: Sequence[Regression], shown: Shown | None, commands: Sequence[Command]) -> Letter:
    """Return the letter on a campaign's finding; if an erratum explains it, with the text of the erratum."""
    named = {row.id: row for row in rows}
    errata = [named[id_] for id_ in story.like if id_ in named]
    scenario = () if shown is None else scenario_lines(shown)
    values = tuple(_values(shown)) or tuple(_story_values(story))
    if errata:
        first = errata[0]
        why = [line for row in errata for line in _why(row, rows)]
        also = [row.summary for row in errata]
        releases = [*_history(story), *_spans(first, rows, shown is not None and needs_protected(shown.scenario))]
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
_OURS = re.compile(r"^forged exits\b|harness/")
_TRIED = re.compile(r"(?<=kernel) of docs/kernels.md")
_MODE = re.compile(r"\bon kvm-(nvhe|vhe|protected)(?= in every)")
_COMMAND = re.compile(r" \(replay [^)]*\)")
_MEASURED = re.compile(r"(measured|recorded|seen|not in|not on|on kvm-|in every|\d[\d.]* )")


def outside_sources(source: str, rows: Mapping[str, Regression]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sources of a kept finding, and its measurements, without the project's own pages.

    Sources that refer to another finding are replaced by those of that finding.
    """
    sources: list[str] = []
    measured: list[str] = []
    for part in source.split("; "):
        named = re.fullmatch(r"as ([\w-]+)", part)
        if named and named[1] in rows:
            more = outside_sources(rows[named[1]].source, rows)
            sources += more[0]
            measured += more[1]
        elif not _OURS.search(part):
            text = _MODE.sub(lambda found: f"on {MODES[found[1]]}", _TRIED.sub(" tried", part))
            (measured if _MEASURED.match(part) else sources).append(without_targets(_OUR_PAGE.sub("", text)))
    return tuple(dict.fromkeys(filter(None, sources))), tuple(dict.fromkeys(filter(None, measured)))


def _outside(text: str) -> str:
    """Return the text of a kept finding without sentences about the project's own pages and commands."""
    parts = re.split(r"(?<=\.) (?=[A-Za-z0-9])", _COMMAND.sub("", text))
    return without_targets(" ".join(each for each in parts if "docs/" not in each))


def _why(row: Regression, rows: Sequence[Regression]) -> Iterator[str]:
    named = {each.id: each for each in rows}
    reference = re.match(r"As ([\w-]+): ", row.why)
    other = named.get(reference[1]) if reference else None
    if other:
        yield _outside(other.why)
    yield _outside(row.why[len(reference[0]) :] if other and reference else row.why)
    yield f"Sources: {'; '.join(outside_sources(row.source, named)[0])}."


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _spans(row: Regression, rows: Sequence[Regression], everywhere: bool) -> Iterator[str]:
    """Yield a line for each range of bad kernels, one for the good ones, and further measurements.

    Good kernels are those of the project's own targets: each kept scenario runs on all targets that support its VMs
    (tests/vm/test_corpus_live.py).  ``everywhere``: no target that supports them is good.
    """
    tried = sorted({end for each in rows for end in _ends_of(each)}, key=_version)
    for spans, modes in modes_by_spans(row.releases).items():
        names = ", ".join(MODES[mode] for mode in modes)
        for span in spans:
            first, last = span.split(" to ")
            oldest = ", the oldest tried" if first == tried[0] else ""
            newest = ", the newest tried" if last == tried[-1] else ""
            yield f"{names}: first bad {first}{oldest}; last bad {last}{newest}"
    bad = [target for target in TARGETS if target in row.targets]
    if not row.releases and (bad or row.elsewhere):
        yield f"bad: {', '.join(map(without_targets, bad or [row.elsewhere]))}"
    alike = [target for target in TARGETS if not row.releases or release_mode(target) in row.releases]
    if good := [target for target in alike if bad and target not in bad and not everywhere]:
        yield f"good: {', '.join(map(without_targets, good))}"
    named = {each.id: each for each in rows}
    yield from (f"{measured[0].upper()}{measured[1:]}" for measured in outside_sources(row.source, named)[1])


def _ends_of(row: Regression) -> Iterator[str]:
    yield from (end for spans in row.releases.values() for span in spans for end in span.split(" to "))


TARGETS: tuple[str, ...] = (
    *("kvm-nvhe", "kvm-vhe", "kvm-protected", "kvm-6.12-nvhe", "kvm-7.3-nvhe", "kvm-7.3-protected"),
)
"""The project's targets, the oldest kernel first."""


def scenario_lines(shown: Shown) -> tuple[str, ...]:
    """Return the steps of a scenario, one line for each: the actor, and the action."""
    lines = [f"at first   {text}" for text in registers_in_words(shown.scenario)]
    done = needed_steps(shown) if shown.checks else tuple(steps_done(shown.scenario, shown.steps))
    for each in done:
        who = "guest" if STEPS[each.step.kind].side is Actor.GUEST else "userspace"
        lines.append(f"{who:10} {step_in_words(each.step)}")
    return tuple(lines)


def _hex(value: int | str) -> str:
    return hex(value) if isinstance(value, int) else value


_HOW: Mapping[str, str] = MappingProxyType(
    {
        "serror": "virtual SError pending",
        "slot": "KVM_SET_USER_MEMORY_REGION",
        "step": "instructions executed by the first step",
        "debug": "exit of KVM_RUN",
        "stop": "address at which the guest exits",
    }
)


def _values(shown: Shown | None) -> Iterator[str]:
    if shown is None:
        return
    for check in shown.checks or shown.hidden:
        name = _HOW.get(check.how, check.register.rpartition(".")[2].upper())
        if check.how == "log":
            yield f"log of the host's kernel: required {check.expected}, observed: {check.observed} in {check.register}"
            continue
        after = " after another VM has run" if check.how == "same" else ""
        yield f"{name}{after}: required {_hex(check.expected)}, observed {_hex(check.observed)}"


def _ends(row: Regression) -> Iterator[str]:
    for signature in row.signatures:
        kind, _, where = signature.partition("/")
        if kind in ENDS:
            yield f"required: the host keeps running; observed: {ENDS[kind]} in {where}"
        else:
            yield f"log of the host's kernel: required no message, observed: {describe_kind(kind)} in {where}"


def _story_values(story: Story) -> Iterator[str]:
    finding = story.kept.finding
    for each in finding.divergences[:4]:
        yield f"{(each.register or each.relation).upper()}: required {each.expected}, observed {each.observed}"
    if story.crash is not None:
        yield "required: the host keeps running"
        yield from (f"{name}: {words}" for name, words in facts(story.crash) if name in ("how", "message", "pc"))
    elif finding.kind != "divergence":
        yield f"required: no alarm in the host's log; observed: {' '.join(finding.signature)}"


def _story_subject(story: Story) -> str:
    for each in story.kept.finding.divergences[:1]:
        name = (each.register or each.relation).rpartition(".")[2].upper()
        return f"{name} is {each.observed}, required {each.expected}"
    return story.title


def _story_words(story: Story) -> Iterator[str]:
    divergence = story.divergence
    if divergence is not None and divergence.relation in ("host", "switch"):
        name, where = divergence.register.upper(), exit_in_words(divergence.exit_class)
        yield f"{where} {name} is {_hex(divergence.observed)}. The required value is {_hex(divergence.expected)}."
    else:
        yield in_words(story.kept.finding) or story.title
    if story.evidence is not None:
        yield f"It is reproduced in {rate_text(together(story.evidence.stages))} runs."


def _story_why(story: Story) -> Iterator[str]:
    divergence, verdict = story.divergence, story.verdict.why
    if divergence is None or story.ran is None:
        yield f"{verdict[:1].upper()}{verdict[1:]}."
        return
    if divergence.basis:
        yield f"This violates a {divergence.basis}."
    indexed = index_trace(story.ran.trace)
    rules = rules_at(story.ran.job.scenario, indexed, divergence.event, divergence.register)
    yield from (f"Required: {rule.expected} ({_OUR_PAGE.sub('', rule.source)})." for rule in rules)
    if not rules:
        yield _REQUIRED.get(divergence.exit_class if divergence.relation == "host" else divergence.relation, _CONTRACT)


_CONTRACT = "Required by the architecture and the KVM API (Arm ARM; Documentation/virt/kvm/api.rst)."
_REQUIRED: Mapping[str, str] = MappingProxyType(
    {
        "RESET": "Required: a reset vCPU has reset values, and no earlier values (KVM API 4.82 KVM_ARM_VCPU_INIT).",
        "switch": "Required: the effect of the guest's instructions by the Arm ARM, from an entry to the next exit.",
    }
)
"""Requirements by exit class or relation, for findings without a rule of the contract."""


def _history(story: Story) -> Iterator[str]:
    subject = story.kept.finding.subject
    yield f"Seen on Linux {subject.kernel_release}, {mode_of(subject.target)}."
    for sentence in sentences(story.kept.history):
        target, _, said = sentence.partition(": ")
        yield f"{mode_of(target)}: {said}"
    if not story.kept.history and not story.like:
        yield "Other releases were not tested."
