# SPDX-License-Identifier: Apache-2.0
"""Render the first sections of the report: new findings as problems, and the observed errata."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.findings.regressions import NEW, is_by_cause
from harness.findings.verdict import rate_text, together
from harness.relations.registry import WORDS
from harness.report.campaign_data import Book
from harness.report.finding_data import Story, replay_command
from harness.report.glossary import in_words
from harness.report.html_findings import badge
from harness.report.html_markup import Content, Markup, details, el, put, table, when
from harness.report.nights import nights_with
from harness.report.problem_data import ErratumStory, ProblemStory
from harness.report.release_strip import axis_of, ends_of, strip
from harness.report.terminal import many, times

InFull = Callable[[Story], Markup]
"""Return the unfolded part of a finding."""


def problems(book: Book, in_full: InFull) -> Markup:
    """Return the section of problems, which no erratum explains."""
    if not book.problems:
        return el("section", el("h2", "Problems"), el("p", "Nothing new."), id="problems")
    told = "A problem is a group of clusters that probably have one cause, and that no erratum of the target explains."
    parts = (_problem(number, problem, book, in_full) for number, problem in enumerate(book.problems, 1))
    return el(
        "section", el("h2", "Problems"), el("p", told, class_="dim"), _jump(book), _filter(book), *parts, id="problems"
    )


def problem_anchor(problem: ProblemStory) -> str:
    """Return a problem's anchor on the page."""
    return f"problem-{problem.stories[0].anchor}"


def _jump(book: Book) -> Markup:
    """Return a select list of the problems, which is one stop of the Tab key."""
    if len(book.problems) < 2:
        return put()
    options = (
        el("option", f"{number}. {_words(problem)[:90]}", value=f"#{problem_anchor(problem)}")
        for number, problem in enumerate(book.problems, 1)
    )
    first = el("option", f"Go to one of {len(book.problems)} problems", value="")
    return el("select", first, *options, id="jump", aria_label="Go to a problem")


def _filter(book: Book) -> Markup:
    tags = sorted({tag for problem in book.problems for tag in _tags(problem, book)})
    if len(book.problems) < 2:
        return put()
    options = (el("option", tag, value=tag) for tag in tags)
    return el(
        "select", el("option", "all verdicts, all statuses", value=""), *options, id="filter", aria_label="Filter"
    )


def _words(problem: ProblemStory) -> str:
    first = problem.stories[0]
    return in_words(first.kept.finding) or first.title


def _problem(number: int, problem: ProblemStory, book: Book, in_full: InFull) -> Markup:
    first = problem.stories[0]
    subject = first.kept.finding.subject
    often = times(problem.count, "{:,}".format)
    found, ended = nights_with(book.runs, (story.id for story in problem.stories))
    nights = f" in {found} of {many(ended, 'run')}" if ended else ""
    seen = f"Seen {often}{nights}, first {when(problem.first_seen)}, last {when(problem.last_seen)}"
    return el(
        "article",
        el("h3", f"{number}. ", _words(problem)),
        *_said(book, problem.id),
        el("p", badge(first.verdict.name), f": {first.verdict.why}.", *_compares(first)),
        el("p", f"{seen}{_rate(first)}, on {subject.target}, Linux {subject.kernel_release}.", class_="dim"),
        el("pre", f"{replay_command(first.kept, book.out, first.crash)}\n", class_="command"),
        in_full(first),
        *_others(problem, in_full),
        class_="finding",
        id=problem_anchor(problem),
        data_tags=" ".join(_tags(problem, book)),
    )


def _tags(problem: ProblemStory, book: Book) -> tuple[str, str]:
    """Return the tags that the filter compares: verdict and status."""
    said = book.said.get(problem.id)
    return problem.stories[0].verdict.name, said.status if said else NEW


def _compares(story: Story) -> Iterator[Markup]:
    """Yield what the relation compares, for a reader who does not know it."""
    first = next(iter(story.kept.finding.divergences), None)
    words = None if first is None else WORDS.get(first.relation)
    if first is not None and words is not None:
        yield put(f" {first.relation}.* compares {words.compares}.")


def _others(problem: ProblemStory, in_full: InFull) -> Iterator[Markup]:
    rest = problem.stories[1:]
    if rest:
        yield details(
            f"{many(len(rest), 'cluster')} more that probably {'have' if rest[1:] else 'has'} the same cause",
            *map(in_full, rest),
        )


def _said(book: Book, id_: str) -> Iterator[Markup]:
    said = book.said.get(id_)
    if said is not None:
        whose = f", {said.assignee}" if said.assignee else ""
        yield el("p", el("b", f"{said.status}{whose}"), f": {said.note}" if said.note else "")


def _rate(story: Story) -> str:
    return "" if story.evidence is None else f", reproduced {rate_text(together(story.evidence.stages))}"


def errata(book: Book) -> Markup:
    """Return the section of errata: findings with a known cause."""
    axis = ends_of(axis_of(book.releases.values()))
    heads = ("erratum", "clusters", "seen", "behaviour of a kernel with it", "releases", "last")
    told = (
        "Kept findings of the project that were observed again. The rule of an erratum predicts the observed values, "
        "bit for bit; a ~ marks errata for which some clusters match by signature only. A bar shows which of the "
        f"measured kernels have it, from {axis[0]} to {axis[1]}."
    )
    rows = table(heads, _rows(book), "Errata", "stack sort")
    return el("section", el("h2", "Errata"), el("p", told, class_="dim"), rows, id="errata")


def _rows(book: Book) -> Iterator[tuple[Content, ...]]:
    axis = axis_of(book.releases.values())
    for erratum in book.errata:
        mark = "~" if erratum.by_signature else ""
        words = book.errata_words.get(erratum.id, "")
        link = el("a", erratum.id, href=f"#{lead(erratum).anchor}", id=f"erratum-{erratum.id}")
        kernels = strip(book.releases.get(erratum.id, {}), axis)
        last = el("span", when(erratum.last_seen).partition(" ")[0], class_="date")
        yield put(link), f"{len(erratum.stories):,}{mark}", f"{erratum.count:,}", words, kernels, last


def lead(erratum: ErratumStory) -> Story:
    """Return the finding that represents an erratum: the most frequent one."""
    by_cause = [story for story in erratum.stories if is_by_cause(story.kept.finding)]
    return max(by_cause or erratum.stories, key=lambda story: story.kept.count)
