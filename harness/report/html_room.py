# SPDX-License-Identifier: Apache-2.0
"""Which findings a report in one file has room for: the others are a line each, with the command that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest

from harness.findings.regressions import is_by_cause
from harness.report.campaign_data import Book
from harness.report.finding_data import Story
from harness.report.html_findings import finding
from harness.report.html_markup import Markup
from harness.report.html_problems import lead

FILE_BYTES = 290 << 10
"""A file is to be no longer, so that it goes into a mail and opens at once on a phone."""


def unfolded(book: Book, room: int) -> Mapping[str, Markup]:
    """Return findings by their anchors, as they are below their line: so many that they have ``room`` bytes in all.

    As many as possible are there at all, in short; the first of these are in full then.
    """
    short: dict[str, Markup] = {}
    stories = {story.anchor: story for story in _by_need(book)}
    for anchor, story in stories.items():
        found = finding(story, book.out, short=True)
        if (size := len(found.encode())) <= room:
            short[anchor] = found
            room -= size
    for anchor, found in short.items():
        full = finding(stories[anchor], book.out)
        size = len(full.encode()) - len(found.encode())
        if size <= room:
            short[anchor] = full
            room -= size
    return short


def _by_need(book: Book) -> Iterator[Story]:
    """Yield what a reader wants to see first, first: every problem, every erratum, other clusters of problems.

    Of what an erratum explains only the first: the others differ in where it shows.
    """
    first, *others = zip_longest(*(problem.stories for problem in book.problems)) if book.problems else [()]
    yield from (story for story in first if story is not None)
    yield from map(lead, book.errata)
    yield from (story for story in chain.from_iterable(others) if story is not None)
    yield from (story for story in book.stories if not (story.like and is_by_cause(story.kept.finding)))
