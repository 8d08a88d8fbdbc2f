# SPDX-License-Identifier: Apache-2.0
"""Render a report as a self-contained HTML file, or as a page of a server that loads details on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from harness.findings.regressions import NEW
from harness.relations.registry import WORDS
from harness.report import html_nights, html_nodes, html_problems
from harness.report.campaign_data import Book, Branch
from harness.report.finding_data import Group, Story, groups, show_command
from harness.report.glossary import ABOUT, LIKE, VERDICTS
from harness.report.html_findings import badge, finding
from harness.report.html_markup import Content, Markup, details, document, el, put, table, when
from harness.report.html_problems import problem_anchor
from harness.report.html_room import FILE_BYTES, unfolded
from harness.report.terminal import many

MAX_UNREADABLE = 50
"""Number of unreadable rows that are listed."""
_NAV = (
    ("problems", "Problems"),
    ("errata", "Errata"),
    ("nights", "Nights"),
    ("nodes", "Nodes"),
    ("overview", "Overview"),
    ("clusters", "Clusters"),
    ("known", "Known"),
    ("branches", "Branches"),
)


def page(book: Book, *, live: bool = False) -> str:
    """Return the whole report.

    A file shows as many findings as fit (:mod:`harness.report.html_room`).  A ``live`` page shows none: each is loaded
    from ``/findings/ID`` when it is unfolded.
    """
    if live:
        return _page(book, _Parts(book, {}, live=True))
    bare = _page(book, _Parts(book, {}, live=False))
    return _page(book, _Parts(book, unfolded(book, FILE_BYTES - len(bare.encode())), live=False))


def _page(book: Book, parts: _Parts) -> str:
    nodes = html_nodes.nodes(book.nodes, book.runs)
    shown = [(name, title) for name, title in _NAV if nodes or name != "nodes"]
    nav = el("nav", *(el("a", title, href=f"#{name}") for name, title in shown), aria_label="Parts of the report")
    places = {erratum.id: f"erratum-{erratum.id}" for erratum in book.errata}
    places |= {problem.id: problem_anchor(problem) for problem in book.problems}
    body = el(
        "main",
        _header(book),
        html_problems.problems(book, parts.folded),
        html_problems.errata(book),
        html_nights.nights(book.runs, places),
        nodes,
        _overview(book),
        parts.clusters(),
        _known(book),
        _branches(book),
    )
    return document("shadowfuzz: findings", nav, body, live=parts.live)


def finding_page(story: Story, out: str) -> str:
    """Return one finding as a page: a live page loads it, and a browser without script opens it.

    ``out``: as in :func:`harness.report.html_findings.finding`.
    """
    back = el("p", el("a", "all findings", href="/"))
    return document(f"shadowfuzz: {story.id}", el("main", back, finding(story, out)), live=True)


class _Parts:
    """Render folded findings: each at one place, in full, loaded on demand, or as the command that shows it."""

    def __init__(self, book: Book, unfolded: Mapping[str, Markup], *, live: bool) -> None:
        self._book, self._unfolded, self.live = book, unfolded, live
        in_problems = chain.from_iterable(problem.stories for problem in book.problems)
        self._placed = {story.anchor for story in in_problems}

    def folded(self, story: Story) -> Markup:
        """Return a finding as a line that can be unfolded."""
        head = put(badge(story.verdict.name), " ", story.title, " ", el("small", story.id))
        if self.live:
            place = f"/findings/{story.anchor}"
            link = el("p", el("a", f"show {story.id}", href=place))
            return el("details", el("summary", head), link, id=story.anchor, data_load=place)
        inner = self._unfolded.get(story.anchor)
        if inner is None:
            cause = f"{', '.join(story.like)}; " if story.like else ""
            inner = el("p", f"{cause}{show_command(story, self._book.out)}")
        return el("details", el("summary", head), inner, id=story.anchor)

    def clusters(self) -> Markup:
        """Return the section of all clusters, folded."""
        some = groups(self._book.stories)
        told = (
            "A cluster has one relation, register class, exit class, helper of the model and cause. Order: crashes, "
            "new clusters, then by frequency. A file shows as many findings as fit, and the command for the others."
        )
        rows = (el("li", self._head(group), *map(self._place, group.stories)) for group in some)
        lines = details(many(len(some), "cluster"), el("ul", *rows, class_="clusters"))
        return el("section", el("h2", "Clusters"), el("p", told, class_="dim"), lines, id="clusters")

    def _head(self, group: Group) -> Markup:
        new = put(" ", badge(NEW)) if group.new else ""
        where = f"{group.count:,}x, {', '.join(group.targets)}"
        return put(el("b", group.name), new, " ", el("span", where, class_="dim"))

    def _place(self, story: Story) -> Markup:
        if story.anchor in self._placed:
            return el("p", el("a", f"{story.id}: among the problems", href=f"#{story.anchor}"))
        return self.folded(story)


def _header(book: Book) -> Markup:
    made = f"made {when(book.made)} by shadowfuzz {book.version}"
    box = Markup('<input id="search" type="search" placeholder="Search" aria-label="Search all rows and findings">')
    found = el("p", id="found", role="status", class_="dim")
    title = el("h1", "shadowfuzz: divergences of real KVM")
    return el("header", title, el("p", made, class_="dim"), box, found, *_unreadable(book))


def _unreadable(book: Book) -> Iterator[Markup]:
    """Yield what is missing on the page."""
    if book.unreadable:
        rows = el("ul", *(el("li", line[:300]) for line in book.unreadable[:MAX_UNREADABLE]))
        told = f"{many(len(book.unreadable), 'row')} of the database cannot be read; this page shows the others"
        yield details(el("b", told, class_="new"), rows)


# ---- overview --------------------------------------------------------------------------------------------------------


def _overview(book: Book) -> Markup:
    runs, confirmed = book.runs, [s for s in book.stories if s.kept.confirmed]
    clusters = groups(s for s in confirmed if s.kept.finding.kind == "divergence")
    tiles = (
        (sum(r.number("scenarios") for r in runs), "scenarios run"),
        (sum(r.number("checked_exits") for r in runs), "exits checked"),
        (runs[-1].number("checked_exits_per_s") if runs else 0, "checked exits/s, last run"),
        (len(clusters), "clusters of divergences"),
        (sum(group.new for group in clusters), "of them new"),
        (sum(s.kept.finding.kind == "crash" for s in confirmed), "crashes of the target"),
        (len(book.stories) - len(confirmed), "flaky findings"),
    )
    return el(
        "section",
        el("h2", "Overview"),
        el("ul", *(el("li", el("b", f"{value:,.0f}"), label) for value, label in tiles), class_="tiles"),
        details("How to read this", *_how_to_read()),
        id="overview",
    )


def _how_to_read() -> Iterator[Markup]:
    yield el("p", ABOUT)
    relations = ((f"{name}.*", words.compares) for name, words in WORDS.items())
    yield table(("relation", "compares"), relations, "Relations, the first word of a divergence's name", "facts")
    verdicts = ((badge(name), words) for name, words in VERDICTS.items())
    yield table(("verdict", "means"), verdicts, "Verdicts", "facts")
    yield el("p", LIKE)
    yield el("p", "In tables of registers, before is the value at the exit, host the value after KVM and userspace.")


def _listed(title: str, told: str, rows: Markup) -> Markup:
    """Return a section with a folded table; ``told`` describes it."""
    return el("section", el("h2", title), el("p", told, class_="dim"), rows, id=title.lower(), class_="appendix")


# ---- catalogue and branches ------------------------------------------------------------------------------------------


def _known(book: Book) -> Markup:
    rows = ((f"{hits:,}", badge(e.verdict), el("code", e.id), e.why, e.source) for e, hits in book.known)
    told = "Divergences that are explained to the bit, and why. They are counted in every run, and are not findings."
    heads = ("hits", "verdict", "entry", "why", "source")
    caption = many(len(book.known), "entry", "entries")
    return _listed("Known", told, details(caption, table(heads, rows, "The catalogue", "stack num")))


def _branches(book: Book) -> Markup:
    told = (
        "Decisions of the model, and the number of checked exits of all runs with each outcome. "
        "Outcomes that never occurred come first, with the reason if one is known."
    )
    rows = (_branch(branch) for branch in sorted(book.branches, key=lambda b: bool(b.yes and b.no)))
    both = sum(bool(b.yes and b.no) for b in book.branches)
    caption = f"{both} of {len(book.branches)} decisions with both outcomes"
    heads = ("function", "decision", "yes", "no", "never, because")
    return _listed("Branches", told, details(caption, table(heads, rows, caption, "stack")))


def _branch(branch: Branch) -> tuple[Content, ...]:
    def ways(count: int) -> Content:
        return f"{count:,}" if count else el("span", "never", class_="never")

    label = branch.name.rpartition(".")[2]
    return el("code", branch.function), el("code", label), ways(branch.yes), ways(branch.no), branch.why_not
