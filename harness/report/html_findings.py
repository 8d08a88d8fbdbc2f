# SPDX-License-Identifier: Apache-2.0
"""Render one finding in full as HTML: verdict and reason, differences, its scenario, how to reproduce it."""

from __future__ import annotations

from collections.abc import Iterator

from harness.arch.a64 import disassemble
from harness.findings.regressions import NEW, likeness
from harness.findings.release_history import sentences
from harness.findings.verdict import elsewhere_text, not_measured, rate_text, together
from harness.layout import CODE
from harness.report.crash import facts, register_lines
from harness.report.finding_data import Story, cluster_name, replay_command, show_command
from harness.report.glossary import in_words
from harness.report.html_markup import Content, Markup, details, el, put, table, when
from harness.report.release_strip import history_strip
from harness.report.sites import Row, Site, StepSite
from harness.report.terminal import bit_ranges, both_shown, decisions, exit_text, many, outcome_text, times
from harness.report.trace_text import trace_lines
from harness.scenario.scenario import format_scenario, format_step, instruction
from harness.scenario.steps import KINDS, Actor
from harness.vm.crash import EARLIER

MAX_PLACES = 4
"""Number of places of a run that are shown after the first; a run that loops has hundreds, which are alike."""


def badge(name: str) -> Markup:
    """Return a verdict's name with the CSS class of its colour."""
    return el("span", name, class_=f"badge {name}")


def likeness_of(story: Story) -> Markup:
    """Return the kept findings with its signature, or that it is new."""
    return put(likeness(story.like)) if story.like else badge(NEW)


def finding(story: Story, out: str = "", *, short: bool = False) -> Markup:
    """Return all data of a finding; ``out`` is the campaign's directory in its command.

    ``short``: without its trace and further places of its run, the scenario only as a file.
    """
    kept, found = story.kept, story.kept.finding
    subject = found.subject
    seen = f"{times(kept.count, '{:,}'.format)}, first {when(found.first_seen)}, last {when(kept.last_seen)}"
    kernels = " and ".join(s.kernel_release for s in (subject, found.other) if s is not None)
    what = put(cluster_name(found), " on ", found.where, f", Linux {kernels}")
    return el(
        "article",
        el("h3", badge(story.verdict.name), " ", story.title),
        el("p", what, f", model level {subject.level}; seen {seen}. ", likeness_of(story), class_="dim"),
        *([el("p", in_words(found))] if in_words(found) else []),
        *_why(story),
        *_differences(story, out, short=short),
        *_pair(story),
        *_crash(story),
        *_history(story),
        *_scenario(story, short=short),
        el("h4", "How to reproduce"),
        el("pre", f"{replay_command(kept, out, story.crash)}\n", tabindex="0", class_="command"),
        *_texts(story),
        *(_more(story, out) if short else _trace(story)),
        class_="finding",
    )


def _why(story: Story) -> Iterator[Markup]:
    yield el("h4", "Verdict and reason")
    yield el("p", badge(story.verdict.name), f": {story.verdict.why}.")
    known = story.evidence
    if known is None:
        return
    rows: list[tuple[Content, ...]] = [("architecture", known.architecture, "")]
    rows += [(f"model, level {side.level}", side.stand, side.value) for side in known.sides]
    yield table(("source", "result", "value"), rows, "Predictions, compared with KVM")
    stages = ", ".join(f"{s.name} {rate_text(s.tries)}" for s in known.stages)
    missing = "".join(f" {line}." for line in not_measured(known))
    yield el("p", f"Reproduced {rate_text(together(known.stages))}: {stages}.{missing}", class_="dim")
    if known.elsewhere:
        places = [(place.name, elsewhere_text(place)) for place in known.elsewhere]
        yield table(("emulator", "the same divergence"), places, "On other -cpu models and versions of QEMU")


def _more(story: Story, out: str) -> Iterator[Markup]:
    if story.kept.trace is not None:
        yield el("p", f"Its trace and all other places: {show_command(story, out)} --trace", class_="dim")


def _differences(story: Story, out: str, *, short: bool) -> Iterator[Markup]:
    if story.ran is None:
        return
    yield el("h4", "What differs")
    first, *others = story.ran.sites
    yield _site(first)
    if others and not short:
        shown = others[:MAX_PLACES]
        rest = [el("p", f"{len(others) - len(shown)} more: {show_command(story, out)}")] * (shown != others)
        yield details(f"{many(len(others), 'more place')} in the same run", *map(_site, shown), *rest)


def _history(story: Story) -> Iterator[Markup]:
    """Yield which kernels show it, as found by `shadowfuzz bisect --finding`."""
    asked = story.kept.history
    if not asked:
        return
    yield el("h4", "Release history")
    yield history_strip(asked)
    yield el("ul", *(el("li", sentence) for sentence in sentences(asked)))
    rows = ((a.config, a.version, a.answer, f"{a.seen} of {a.runs}") for a in asked)
    heads = ("configuration", "kernel", "answer", "runs")
    yield details(f"{len(asked)} kernels were tested", table(heads, rows, "Tested kernels"))


def _pair(story: Story) -> Iterator[Markup]:
    """Yield each difference of the first record that differs, side by side, if two targets were compared."""
    finding = story.kept.finding
    if finding.other is None:
        return
    rows = ((d.register, d.exit_class, d.helper, d.expected, d.observed) for d in finding.divergences)
    heads = ("what", "exit class", "call", finding.subject.target, finding.other.target)
    yield el("h4", "What differs")
    yield table(heads, rows, "Recorded on the first and on the second target", "reg")


def _texts(story: Story) -> Iterator[Markup]:
    """Yield the texts of a finding; scenarios that ran before are one part."""
    before = {name: text for name, text in story.kept.texts.items() if name.startswith(EARLIER)}
    for name, text in story.kept.texts.items():
        if name not in before:
            yield details(name, el("pre", text, tabindex="0"))
    if before:
        parts = (put(el("h5", name), el("pre", text, tabindex="0")) for name, text in before.items())
        told = el("p", "In the same machine; 01 is the last of them.", class_="dim")
        yield details(f"{len(before)} scenarios that ran before", told, *parts)


def _crash(story: Story) -> Iterator[Markup]:
    """Yield the state of a lost target."""
    if story.crash is None:
        return
    yield el("h4", "How the target was lost")
    yield table(("", ""), facts(story.crash), "State that was read from the machine before it was ended", "facts")
    if story.crash.remains.registers:
        lines = "\n".join(register_lines(story.crash))
        many = len(story.crash.remains.registers)
        yield details(f"All {many} registers of the CPU", el("pre", lines, tabindex="0"))


def _site(site: Site) -> Markup:
    place = site.place
    rows: list[tuple[Content, ...]] = []
    if place is not None:
        rows.append(
            ("trap at", put(el("code", f"{place.address:#x}"), " ", el("code", place.instruction), *_step_text(place)))
        )
        rows.append(("exit", exit_text(site.exit_class, site.syndrome)))
    if site.action is not None:
        rows.append(("KVM", outcome_text(site.action)))
    if site.pending:
        rows.append(("pending", f"{', '.join(site.pending)} (KVM applies it at the entry)"))
    rows += [("host", sentence) for sentence in site.host]
    if site.prediction is not None:
        rows.append(("model", f"{site.prediction.helper}; {decisions(site.prediction.path)}"))
    for judged in site.sentences:
        d = judged.divergence
        rows.append(("divergence", put(el("b", d.name), f": {both_shown(d)}")))
    where = "before the first entry" if place is None else f"at {site.where}, event {site.event}"
    facts = table(("", ""), rows, f"What happened {where}", "facts")
    return put(facts, _registers(site)) if site.rows else facts


def _step_text(place: StepSite) -> tuple[Content, ...]:
    return () if place.text == place.instruction else (" ", place.text)


def _registers(site: Site) -> Markup:
    wide = any((v or 0) >> 32 for row in site.rows for v in row.values)
    digits = 16 if wide else 8
    rows = [
        (row.register, *(_value(row, i, digits) for i in range(len(row.values))), _relations(row)) for row in site.rows
    ]
    return table(("register", *site.columns, "relation: bits"), rows, "Registers, side by side", "reg")


def _value(row: Row, column: int, digits: int) -> Content:
    value = row.values[column]
    if value is None:
        return "-"
    text = f"{value:0{digits}x}"
    if column < len(row.values) - 2 or not row.bits:
        return f"0x{text}"
    marks = f"{row.bits:0{digits}x}"
    return put("0x", *(el("mark", c) if m != "0" else c for c, m in zip(text, marks, strict=True)))


def _relations(row: Row) -> str:
    names = ", ".join(j.divergence.name.removesuffix(f".{row.register}") for j in row.judged)
    return f"{names}: {bit_ranges(row.bits)}" if row.bits else names


def _scenario(story: Story, *, short: bool) -> Iterator[Markup]:
    scenario = story.kept.scenario
    if scenario is None:
        return
    yield el("h4", "Scenario")
    file = el("pre", format_scenario(scenario), tabindex="0")
    if short:
        yield file
        return
    rows: list[tuple[Content, ...]] = [
        ("", "start", el("code", f"{name} = {value:#x}"), "") for name, value in scenario.registers
    ]
    address = CODE.base
    for i, step in enumerate(scenario.steps):
        word = instruction(step)
        where, what = "", ""
        if word is not None:
            where, what = f"{address:#x}", disassemble(word, address)
            address += 4
        who = "guest" if KINDS[step.kind].side is Actor.GUEST else "host"
        rows.append((str(i), who, el("code", format_step(step)), el("code", f"{where} {what}".strip())))
    yield table(("step", "who", "what", "instruction"), rows, scenario.about)
    yield details("as a file", file)


def _trace(story: Story) -> Iterator[Markup]:
    told = "N entry, E exit, U return to userspace, H host action, L list registers; only changes are shown."
    other = story.kept.finding.other
    pair = {} if other is None else {"": story.kept.trace, f" on {other.target}": story.kept.other_trace}
    for where, trace in pair.items() if story.ran is None else [("", story.ran.trace)]:
        if trace is not None:
            lines = "\n".join(trace_lines(trace))
            yield details(f"Trace, step by step{where}", el("p", told, class_="dim"), el("pre", lines, tabindex="0"))
