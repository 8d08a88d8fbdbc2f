# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML file that needs nothing else: overview, clusters, findings, catalogue, branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from harness.arch.a64 import disassemble
from harness.findings.regressions import NEW, is_by_cause, likeness
from harness.findings.release_history import sentences
from harness.findings.verdict import elsewhere_text, not_measured, rate_text, together
from harness.layout import CODE
from harness.relations.registry import WORDS
from harness.report import html_problems
from harness.report.campaign_data import Book, Branch, Run
from harness.report.crash import facts, register_lines
from harness.report.finding_data import Group, Story, cluster_name, groups, replay_command
from harness.report.glossary import ABOUT, LIKE, VERDICTS, in_words
from harness.report.html_markup import Content, Line, Markup, details, document, el, join, plot, put, table, when
from harness.report.html_problems import lead
from harness.report.sites import Row, Site, StepSite
from harness.report.terminal import bit_ranges, both_shown, decisions, exit_text, outcome_text, times
from harness.report.trace_text import trace_lines
from harness.scenario.scenario import format_scenario, format_step, instruction
from harness.scenario.steps import KINDS, Actor
from harness.vm.crash import EARLIER

_NAV = (
    ("problems", "Problems"),
    ("errata", "Errata"),
    ("overview", "Overview"),
    ("clusters", "Clusters"),
    ("findings", "Findings"),
    ("known", "Known"),
    ("branches", "Branches"),
)


def page(book: Book) -> str:
    """Return the whole report.

    Of the findings that one erratum explains only one is shown in full: the others differ in where it shows.
    """
    some = groups(book.stories)
    leads = {lead(erratum).anchor for erratum in book.errata}
    alike = {
        story.anchor: lead(erratum)
        for erratum in book.errata
        for story in erratum.stories
        if is_by_cause(story.kept.finding) and story.anchor not in leads
    }
    nav = el("nav", *(el("a", title, href=f"#{name}") for name, title in _NAV), aria_label="Parts of the report")
    body = el(
        "main",
        _header(book),
        html_problems.problems(book),
        html_problems.errata(book),
        _overview(book, some),
        _clusters(some, alike),
        _findings(some, alike),
        _known(book),
        _branches(book),
    )
    return document("shadowfuzz: findings", nav, body)


def _header(book: Book) -> Markup:
    made = f"made {when(book.made)} by shadowfuzz {book.version}"
    box = Markup('<input id="search" type="search" placeholder="Search" aria-label="Search all rows and findings">')
    found = el("p", id="found", role="status", class_="dim")
    title = el("h1", "shadowfuzz: what real KVM does that it should not")
    return el("header", title, el("p", made, class_="dim"), box, found)


# ---- overview --------------------------------------------------------------------------------------------------------


def _overview(book: Book, some: tuple[Group, ...]) -> Markup:
    runs, confirmed = book.runs, [s for s in book.stories if s.kept.confirmed]
    clusters = groups(s for s in confirmed if s.kept.finding.kind == "divergence")
    tiles = (
        (sum(r.number("scenarios") for r in runs), "scenarios run"),
        (sum(r.number("checked_exits") for r in runs), "exits checked"),
        (runs[-1].number("checked_exits_per_s") if runs else 0, "checked exits/s, last run"),
        (len(clusters), "clusters of divergences"),
        (sum(group.new for group in clusters), "of them new"),
        (sum(s.kept.finding.kind == "crash" for s in confirmed), "ways to lose the target"),
        (len(book.stories) - len(confirmed), "flaky, kept apart"),
    )
    return el(
        "section",
        el("h2", "Overview"),
        el("ul", *(el("li", el("b", f"{value:,.0f}"), label) for value, label in tiles), class_="tiles"),
        el("p", _first_look(some)),
        details("How to read this", *_how_to_read()),
        *(_plots(run) for run in runs[-1:]),
        _runs(runs),
        id="overview",
    )


def _how_to_read() -> Iterator[Markup]:
    yield el("p", ABOUT)
    relations = ((f"{name}.*", words.compares) for name, words in WORDS.items())
    yield table(("relation", "compares"), relations, "What a finding's name begins with", "facts")
    verdicts = ((_badge(name), words) for name, words in VERDICTS.items())
    yield table(("verdict", "means"), verdicts, "Verdicts", "facts")
    yield el("p", LIKE)
    yield el("p", "In tables of registers, before is the register at the exit, host what KVM and userspace left there.")


def _first_look(some: tuple[Group, ...]) -> Content:
    worst = next((g for g in some if g.stories[0].kept.confirmed), None)
    if worst is None:
        return "Nothing unexplained."
    story = worst.stories[0]
    return put("Begin with ", el("a", worst.name, href=f"#{story.anchor}"), f" ({story.verdict.name}): {story.title}.")


def _plots(run: Run) -> Markup:
    samples = run.samples
    rates = []
    for one, two in pairwise(samples):
        spent = two.second - one.second
        rates.append((float(two.second), (two.checked_exits - one.checked_exits) / spent if spent else 0.0))
    lines = (
        Line("Checked exits a second", "exits/s", tuple(rates)),
        Line("Coverage", "features", tuple((s.second, s.coverage) for s in samples)),
        Line("Unexplained clusters", "clusters", tuple((s.second, s.clusters) for s in samples)),
    )
    title = el("h3", f"Last run, {when(run.started)}")
    return put(
        title, el("div", *map(plot, lines), class_="plots") if len(samples) > 1 else el("p", "too short to plot")
    )


def _runs(runs: tuple[Run, ...]) -> Markup:
    rows = (
        (
            when(r.started),
            str(r.asked.get("target", "")),
            str(r.asked.get("kernel_release", "")),
            f"{r.number('seconds'):,.0f}",
            f"{r.number('scenarios'):,.0f}",
            f"{r.number('checked_exits_per_s'):,.0f}",
            f"{r.number('coverage'):,.0f}",
            "ended" if r.summary is not None else "killed before its end, or running",
        )
        for r in reversed(runs)
    )
    return table(
        ("started", "target", "kernel", "s", "scenarios", "exits/s", "coverage", ""), rows, "Runs, newest first"
    )


# ---- clusters and findings -------------------------------------------------------------------------------------------


def _badge(name: str) -> Markup:
    return el("span", name, class_=f"badge {name}")


def _like(story: Story) -> Markup:
    return put(likeness(story.like)) if story.like else _badge(NEW)


def _likes(group: Group) -> Markup:
    """What its findings are like; mostly they are of one target, or agree."""
    first, *others = dict.fromkeys(map(_like, group.stories))
    return put(first, *(put(" ", other) for other in others))


def _clusters(some: tuple[Group, ...], alike: Mapping[str, Story]) -> Markup:
    rows = (
        (
            put(*(_badge(v) for v in dict.fromkeys(s.verdict.name for s in group.stories))),
            f"{group.count:,}x",
            el("a", group.name, href=f"#{alike.get(group.stories[0].anchor, group.stories[0]).anchor}"),
            _likes(group),
            ", ".join(group.targets),
            group.stories[0].title,
        )
        for group in some
    )
    told = (
        "A cluster: one relation, register class, exit class and helper of the model. Crashes first, then what is new, "
        "then by frequency."
    )
    heads = ("verdict", "seen", "cluster", "new?", "targets", "the simplest that shows it")
    return _listed("Clusters", told, table(heads, rows, "Clusters", "stack num sort"))


def _listed(title: str, told: str, rows: Markup) -> Markup:
    """A part of the report that is a table; ``told`` says what of."""
    return el("section", el("h2", title), el("p", told, class_="dim"), rows, id=title.lower())


def _findings(some: tuple[Group, ...], alike: Mapping[str, Story]) -> Markup:
    shown = [story for group in some for story in group.stories if story.anchor not in alike]
    told = "One finding of each erratum, and all others. `shadowfuzz findings show ID` shows those that are left out."
    parts = join(map(_finding, shown)) or el("p", "None.")
    return el("section", el("h2", "Findings"), el("p", told, class_="dim"), parts, id="findings")


def _finding(story: Story) -> Markup:
    kept, finding = story.kept, story.kept.finding
    subject = finding.subject
    seen = f"{times(kept.count, '{:,}'.format)}, first {when(finding.first_seen)}, last {when(kept.last_seen)}"
    kernels = " and ".join(s.kernel_release for s in (subject, finding.other) if s is not None)
    what = put(cluster_name(finding), " on ", finding.where, f", Linux {kernels}")
    return el(
        "article",
        el("h3", _badge(story.verdict.name), " ", story.title),
        el("p", what, f", model level {subject.level}; seen {seen}. ", _like(story), class_="dim"),
        *([el("p", in_words(finding))] if in_words(finding) else []),
        *_why(story),
        *_differences(story),
        *_pair(story),
        *_crash(story),
        *_history(story),
        *_scenario(story),
        el("h4", "How to reproduce"),
        el("pre", f"{replay_command(kept, '', story.crash)}\n", tabindex="0", class_="command"),
        *_texts(story),
        *_trace(story),
        el("p", el("a", "back to the clusters", href="#clusters")),
        class_="finding",
        id=story.anchor,
    )


def _why(story: Story) -> Iterator[Markup]:
    yield el("h4", "Verdict and why")
    yield el("p", _badge(story.verdict.name), f": {story.verdict.why}.")
    known = story.evidence
    if known is None:
        return
    rows: list[tuple[Content, ...]] = [("architecture", known.architecture, "")]
    rows += [(f"model, level {side.level}", side.stand, side.value) for side in known.sides]
    yield table(("who", "stands", "says"), rows, "Who sides with KVM")
    stages = ", ".join(f"{s.name} {rate_text(s.tries)}" for s in known.stages)
    missing = "".join(f" {line}." for line in not_measured(known))
    yield el("p", f"Reproduced {rate_text(together(known.stages))}: {stages}.{missing}", class_="dim")
    if known.elsewhere:
        places = [(place.name, elsewhere_text(place)) for place in known.elsewhere]
        yield table(("emulator", "the same divergence"), places, "On other -cpu models and versions of QEMU")


def _differences(story: Story) -> Iterator[Markup]:
    if story.ran is None:
        return
    yield el("h4", "What differs")
    first, *others = story.ran.sites
    yield _site(first)
    if others:
        yield details(f"{len(others)} more places in the same run", *map(_site, others))


def _history(story: Story) -> Iterator[Markup]:
    """Which kernels show it, as `shadowfuzz kernels bisect --finding` found out."""
    asked = story.kept.history
    if not asked:
        return
    yield el("h4", "Release history")
    yield el("ul", *(el("li", sentence) for sentence in sentences(asked)))
    rows = ((a.config, a.version, a.answer, f"{a.seen} of {a.runs}") for a in asked)
    heads = ("configuration", "kernel", "answer", "runs")
    yield details(f"{len(asked)} kernels were asked", table(heads, rows, "Kernels that were asked"))


def _pair(story: Story) -> Iterator[Markup]:
    """Where two targets were compared: each difference of the first record that differs, side by side."""
    finding = story.kept.finding
    if finding.other is None:
        return
    rows = ((d.register, d.exit_class, d.helper, d.expected, d.observed) for d in finding.divergences)
    heads = ("what", "exit class", "call", finding.subject.target, finding.other.target)
    yield el("h4", "What differs")
    yield table(heads, rows, "Recorded on the one and on the other", "reg")


def _texts(story: Story) -> Iterator[Markup]:
    """The texts that belong to a finding; scenarios that ran before are one part."""
    before = {name: text for name, text in story.kept.texts.items() if name.startswith(EARLIER)}
    for name, text in story.kept.texts.items():
        if name not in before:
            yield details(name, el("pre", text, tabindex="0"))
    if before:
        parts = (put(el("h5", name), el("pre", text, tabindex="0")) for name, text in before.items())
        told = el("p", "In the same machine, 01 the last of them.", class_="dim")
        yield details(f"{len(before)} scenarios that ran before", told, *parts)


def _crash(story: Story) -> Iterator[Markup]:
    """What was left of a target that was lost."""
    if story.crash is None:
        return
    yield el("h4", "How the target was lost")
    yield table(("", ""), facts(story.crash), "What was taken from the machine before it was ended", "facts")
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


def _scenario(story: Story) -> Iterator[Markup]:
    scenario = story.kept.scenario
    if scenario is None:
        return
    yield el("h4", "Scenario")
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
    yield details("as a file", el("pre", format_scenario(scenario), tabindex="0"))


def _trace(story: Story) -> Iterator[Markup]:
    told = "N entry, E exit, U back in userspace, H host, L interrupts shown to it; only what changed is shown."
    other = story.kept.finding.other
    pair = {} if other is None else {"": story.kept.trace, f" on {other.target}": story.kept.other_trace}
    for where, trace in pair.items() if story.ran is None else [("", story.ran.trace)]:
        if trace is not None:
            lines = "\n".join(trace_lines(trace))
            yield details(f"Trace, step by step{where}", el("p", told, class_="dim"), el("pre", lines, tabindex="0"))


# ---- catalogue and branches ------------------------------------------------------------------------------------------


def _known(book: Book) -> Markup:
    rows = ((f"{hits:,}", _badge(e.verdict), el("code", e.id), e.why, e.source) for e, hits in book.known)
    told = "Divergences that are explained to the bit, and why. They are counted in every run, and are no findings."
    heads = ("hits", "verdict", "entry", "why", "source")
    return _listed("Known", told, table(heads, rows, "The catalogue", "stack num"))


def _branches(book: Book) -> Markup:
    told = (
        "Decisions of the model, and at how many checked exits of all runs each went which way. "
        "What was never taken comes first, with the reason where one is known."
    )
    rows = (_branch(branch) for branch in sorted(book.branches, key=lambda b: bool(b.yes and b.no)))
    both = sum(bool(b.yes and b.no) for b in book.branches)
    caption = f"{both} of {len(book.branches)} decisions seen both ways"
    heads = ("function", "decision", "yes", "no", "never, because")
    return _listed("Branches", told, table(heads, rows, caption, "stack"))


def _branch(branch: Branch) -> tuple[Content, ...]:
    def ways(count: int) -> Content:
        return f"{count:,}" if count else el("span", "never", class_="never")

    label = branch.name.rpartition(".")[2]
    return el("code", branch.function), el("code", label), ways(branch.yes), ways(branch.no), branch.why_not
