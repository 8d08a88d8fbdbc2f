# SPDX-License-Identifier: Apache-2.0
"""Render the report's section about runs: changes of each night, plots over nights, the course of the last run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from harness.report.campaign_data import Run
from harness.report.html_markup import Content, Markup, details, el, put, table, when
from harness.report.nights import Change, Night, nights_of
from harness.report.plots import Line, plot
from harness.report.terminal import many

SHOWN = 14
"""Number of nights in the table; the others are folded."""
MAX_NAMES = 6
PLOTTED = 60


def nights(runs: Sequence[Run], places: Mapping[str, str]) -> Markup:
    """Return the section; ``places`` are anchors by the id of a finding or the name of an erratum."""
    told = nights_of(runs)
    return el(
        "section",
        el("h2", "Nights"),
        el("p", _summary(told), class_="dim"),
        *_table(told, places),
        *_over_nights(told),
        *(_last_run(run) for run in runs[-1:]),
        _runs(runs),
        id="nights",
    )


def _summary(told: Sequence[Night]) -> str:
    if not told:
        return "No run has ended yet."
    last = told[-1]
    if last.clusters is None:
        return "The last run is the first on its target: there is no run to compare it with."
    parts = [
        f"{many(len(change.new), name, several)} new, {len(change.gone)} gone"
        for change, name, several in (
            (last.problems, "problem", ""),
            (last.errata, "erratum", "errata"),
            (last.clusters, "cluster", ""),
        )
        if change is not None
    ]
    return f"Since the run before: {'; '.join(parts)}. New: in no earlier run. Gone: in the run before, not now."


def _table(told: Sequence[Night], places: Mapping[str, str]) -> Iterator[Markup]:
    heads = ("night", "target", "new", "gone", "clusters")
    rows = [
        (
            when(night.run.started),
            str(night.run.asked.get("target", "")),
            _names(night, places, gone=False),
            _names(night, places, gone=True),
            _counts(night.clusters),
        )
        for night in reversed(told)
    ]
    if rows:
        yield table(heads, rows[:SHOWN], "Changes of each night, newest first", "stack")
    if rows[SHOWN:]:
        yield details(f"{len(rows) - SHOWN} earlier nights", table(heads, rows[SHOWN:], "Earlier nights", "stack"))


def _names(night: Night, places: Mapping[str, str], *, gone: bool) -> Content:
    if night.problems is None or night.errata is None:
        return "first run"
    changes = (night.problems, night.errata)
    names = [name for change in changes for name in (change.gone if gone else change.new)]
    links = [el("a", name, href=f"#{places[name]}") if name in places else put(name) for name in names[:MAX_NAMES]]
    more = [put(f"and {len(names) - MAX_NAMES} more")] if len(names) > MAX_NAMES else []
    parts = [part for link in (*links, *more) for part in (put(", "), link)][1:]
    return put(*parts) if parts else "-"


def _counts(change: Change | None) -> str:
    return "" if change is None else f"+{len(change.new)} -{len(change.gone)}"


def _over_nights(told: Sequence[Night]) -> Iterator[Markup]:
    some = told[-PLOTTED:]
    if len(some) < 2:
        return
    keys = (
        ("Checked exits a second", "exits/s", "checked_exits_per_s"),
        ("Coverage", "features", "coverage"),
        ("Scenarios", "scenarios", "scenarios"),
        ("Clusters", "clusters", "clusters"),
    )
    lines = (
        Line(title, unit, tuple((float(i), night.run.number(key)) for i, night in enumerate(some, 1)), "nights")
        for title, unit, key in keys
    )
    yield el("h3", f"The last {len(some)} nights")
    yield el("div", *map(plot, lines), class_="plots")


def _last_run(run: Run) -> Markup:
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


def _runs(runs: Sequence[Run]) -> Markup:
    rows = [
        (
            when(r.started),
            str(r.asked.get("target", "")),
            str(r.asked.get("kernel_release", "")),
            f"{r.number('seconds'):,.0f}",
            f"{r.number('scenarios'):,.0f}",
            f"{r.number('checked_exits_per_s'):,.0f}",
            f"{r.number('coverage'):,.0f}",
            "ended" if r.summary is not None else "killed before its end, or still running",
        )
        for r in reversed(runs)
    ]
    heads = ("started", "target", "kernel", "s", "scenarios", "exits/s", "coverage", "")
    return details(many(len(rows), "run"), table(heads, rows, "Runs, newest first", "stack"))
