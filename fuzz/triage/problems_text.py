# SPDX-License-Identifier: Apache-2.0
"""Format problems and errata as text, a few lines each."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fuzz.store.marks import Mark
from harness.findings.verdict import rate_text, together
from harness.report.campaign_data import Run
from harness.report.finding_data import Story
from harness.report.glossary import in_words
from harness.report.nights import nights_with, nights_with_erratum
from harness.report.problem_data import ErratumStory, ProblemStory
from harness.report.terminal import Style, many, printable, times

ORDERS: Mapping[str, Callable[[ProblemStory], tuple[Any, ...]]] = MappingProxyType(
    {
        "count": lambda _: (),  # as problems_of has them
        "first": lambda problem: (problem.first_seen,),
        "last": lambda problem: (problem.last_seen,),
    }
)
"""What problems can be sorted by: lost machines and frequent ones first, or by when they were seen."""


def in_order(found: Iterable[ProblemStory], order: str) -> list[ProblemStory]:
    """Return problems by a key of ORDERS, the newest first where it is a time."""
    return sorted(found, key=ORDERS[order], reverse=order != "count")


def problems_text(
    found: Sequence[ProblemStory], marks: Mapping[str, Mark], runs: Sequence[Run], style: Style, out: str
) -> Iterator[str]:
    """Yield some lines for each problem; ``out`` are the options that commands on them need, with a space before."""
    if not found:
        yield style.paint("bold", "no problems: an erratum explains each confirmed finding")
        return
    yield style.paint("bold", f"{many(len(found), 'problem')} that no erratum explains")
    for problem in found:
        first, mark = problem.stories[0], marks.get(problem.id, Mark())
        assignee = f", {mark.assignee}" if mark.assignee else ""
        head = f"  {problem.id}  {mark.status}{assignee}, verdict {first.verdict.name}"
        yield style.paint("red", printable(head))
        yield from _wrap(in_words(first.kept.finding), style)
        subject = first.kept.finding.subject
        more = len(problem.stories) - 1
        also = f" and {many(more, 'cluster')} more" if more else ""
        yield style.paint("dim", f"      {printable(first.title)}{also}")
        had, ended = nights_with(runs, (story.id for story in problem.stories))
        nights = f" in {had} of {many(ended, 'run')}" if ended else ""
        seen = f"{times(problem.count)}{nights}, from {_day(problem.first_seen)} to {_day(problem.last_seen)}"
        yield f"      seen {seen}{_rate(first)}"
        yield f"      on {subject.target}, Linux {subject.kernel_release}"
        if mark.note:
            yield from _wrap(f"note: {mark.note}", style)
        yield f"      shadowfuzz findings show {problem.id}{out}"


def errata_text(
    found: Sequence[ErratumStory], words: Mapping[str, str], runs: Sequence[Run], style: Style
) -> Iterator[str]:
    """Yield a line for each erratum that occurred again; ``words`` say what each is."""
    if not found:
        return
    yield style.paint("bold", f"{many(len(found), 'erratum', 'errata')} that occurred again")
    width = max(len(each.id) for each in found)
    yield style.paint("dim", f"  {'':{width}} clusters, runs, last seen")
    for each in found:
        mark = "~" if each.by_signature else " "
        had, ended = nights_with_erratum(runs, each.id)
        numbers = f"{len(each.stories):4}{mark} {f'{had}/{ended}':>5}  {_day(each.last_seen)}"
        what = textwrap.shorten(words.get(each.id, ""), max(20, style.width - width - 28), placeholder=" ...")
        yield f"  {each.id:{width}} {numbers}  {printable(what)}"
    if any(each.by_signature for each in found):
        yield style.paint("dim", "  ~ some clusters by signature alone: their cause is not determined")
    yield f"  shadowfuzz findings export {found[0].id} --mail  prints a mail about one of them"


def _rate(story: Story) -> str:
    stages = story.evidence.stages if story.evidence is not None else ()
    return f", reproduced {rate_text(together(stages))}" if stages else ""


def _wrap(words: str, style: Style) -> list[str]:
    return textwrap.wrap(
        printable(words),
        style.width,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        max_lines=3,
        placeholder=" ...",
    )


def _day(time: str) -> str:
    """Return the date of an ISO 8601 time; return any other text unchanged."""
    return printable(time[:10])
