# SPDX-License-Identifier: Apache-2.0
"""A report in one file has a limit, and uses it: every problem in short before one is in full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.triage.report_page import book_of
from harness.report.campaign_data import Book
from harness.report.finding_data import Story
from harness.report.html_findings import finding
from harness.report.html_report import page
from harness.report.html_room import FILE_BYTES, unfolded
from harness.report.problem_data import ProblemStory
from tests.support.kept import filled

TARGET_BYTES = 300 << 10


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """A campaign's report."""
    return book_of(filled(tmp_path_factory.mktemp("campaign")))


def _again(story: Story, number: int) -> Story:
    finding = story.kept.finding
    signature = (*finding.signature[:-1], f"{finding.signature[-1]}{number}")
    return replace(story, like=(), kept=replace(story.kept, finding=replace(finding, signature=signature)))


def test_all_is_in_full_where_there_is_room(book: Book) -> None:
    found = unfolded(book, 1 << 30)
    assert found and all(found[s.anchor] == finding(s, book.out) for s in book.stories if s.anchor in found)
    assert {problem.stories[0].anchor for problem in book.problems} <= set(found)
    assert unfolded(book, 0) == {}


def test_short_before_full(book: Book) -> None:
    leads = [problem.stories[0] for problem in book.problems]
    short = sum(len(finding(story, book.out, short=True).encode()) for story in leads)
    found = unfolded(book, short)
    assert set(found) == {story.anchor for story in leads}
    assert sum(len(each.encode()) for each in found.values()) <= short


def test_a_campaign_with_many_problems_fits(book: Book) -> None:
    story = max((s for s in book.stories if s.ran is not None), key=lambda s: len(finding(s)))
    for count in (1, 29, 110):
        stories = tuple(_again(story, number) for number in range(count))
        many = replace(book, stories=stories, problems=tuple(ProblemStory((each,)) for each in stories), errata=())
        text = page(many)
        assert len(text.encode()) < TARGET_BYTES
        assert text.count('class="finding" id="problem-') == count
        if count <= 29:
            assert text.count("<h4>What differs</h4>") == count, "each of them can be unfolded"
    assert FILE_BYTES < TARGET_BYTES


def test_what_is_short_names_the_command_for_the_rest(book: Book) -> None:
    story = next(s for s in book.stories if s.ran is not None)
    text = finding(story, "out/a b", short=True)
    assert f"shadowfuzz findings show {story.id} --campaign &#x27;out/a b&#x27; --trace" in text
    assert "Trace, step by step" not in text and "shadowfuzz-scenario 1" in text
