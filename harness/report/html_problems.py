# SPDX-License-Identifier: Apache-2.0
"""The first part of the report: what is new, as problems, and the errata that came back."""

from __future__ import annotations

from collections.abc import Iterator

from harness.findings.verdict import rate_text, together
from harness.report.campaign_data import Book
from harness.report.finding_data import Story, replay_command
from harness.report.glossary import in_words
from harness.report.html_markup import Content, Markup, el, put, table, when
from harness.report.problem_data import ErratumStory, ProblemStory
from harness.report.terminal import times


def problems(book: Book) -> Markup:
    """Return the section of what no erratum explains."""
    if not book.problems:
        return el("section", el("h2", "Problems"), el("p", "Nothing new."), id="problems")
    told = "A problem is what no erratum of its target explains: clusters that probably have one cause."
    parts = (_problem(number, problem) for number, problem in enumerate(book.problems, 1))
    return el("section", el("h2", "Problems"), el("p", told, class_="dim"), *parts, id="problems")


def _problem(number: int, problem: ProblemStory) -> Markup:
    first = problem.stories[0]
    subject = first.kept.finding.subject
    often = times(problem.count, "{:,}".format)
    seen = f"Seen {often}, first {when(problem.first_seen)}, last {when(problem.last_seen)}"
    return el(
        "article",
        el("h3", f"{number}. ", in_words(first.kept.finding) or first.title),
        el("p", el("span", first.verdict.name, class_=f"badge {first.verdict.name}"), f": {first.verdict.why}."),
        el("p", f"{seen}{_rate(first)}, on {subject.target}, Linux {subject.kernel_release}.", class_="dim"),
        el("ul", *(el("li", el("a", story.title, href=f"#{story.anchor}")) for story in problem.stories)),
        el("pre", f"{replay_command(first.kept, '', first.crash)}\n", tabindex="0", class_="command"),
        class_="finding",
        id=f"problem-{first.anchor}",
    )


def _rate(story: Story) -> str:
    return "" if story.evidence is None else f", comes back {rate_text(together(story.evidence.stages))}"


def errata(book: Book) -> Markup:
    """Return the section of what is known by its cause."""
    heads = ("erratum", "clusters", "seen", "what a kernel with it does", "last")
    told = (
        "What came back of the findings that the project keeps. The rule of an erratum predicts what was seen, bit "
        "for bit; a ~ marks those of which some clusters have the signature alone."
    )
    rows = table(heads, _rows(book), "Errata", "stack sort")
    return el("section", el("h2", "Errata"), el("p", told, class_="dim"), rows, id="errata")


def _rows(book: Book) -> Iterator[tuple[Content, ...]]:
    for erratum in book.errata:
        mark = "~" if erratum.by_signature else ""
        words = book.errata_words.get(erratum.id, "")
        link = el("a", erratum.id, href=f"#{lead(erratum).anchor}")
        yield put(link), f"{len(erratum.stories):,}{mark}", f"{erratum.count:,}", words, when(erratum.last_seen)


def lead(erratum: ErratumStory) -> Story:
    """Return the finding that stands for an erratum: the one that was seen most."""
    return max(erratum.stories, key=lambda story: story.kept.count)
