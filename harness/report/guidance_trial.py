# SPDX-License-Identifier: Apache-2.0
"""Show the trial that compares the guidance modes of campaigns, as a plot and as a page, from docs/coverage.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

MEASURES: tuple[tuple[str, str], ...] = (
    ("edges", "edges between blocks of KVM's code"),
    ("decisions", "decisions of the model"),
)
"""Key of a point, and its description."""
STYLES: Mapping[str, tuple[str, str]] = {
    "model": ("#0757b5", ""),
    "kvm": ("#b3261e", "7 3"),
    "both": ("#1a7f37", "2 3"),
}
"""Colour and dashes of each mode."""
MAX_SECONDS = 86_400
"""Maximum of ``--seconds``."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One mode's course: seconds, and the least, median and greatest value of its runs at each."""

    mode: str
    points: tuple[tuple[float, float, float, float], ...]


def value_at(points: Sequence[Mapping[str, float]], key: str, second: float) -> float:
    """Return the last value of a run at or before a second; 0 before the first."""
    before = [point[key] for point in points if point["second"] <= second]
    return before[-1] if before else 0.0


def spreads(data: Mapping[str, Any], key: str) -> tuple[Spread, ...]:
    """Return each mode's course, in the order of :data:`STYLES`.  ValueError: the duration is out of range."""
    if not 1 <= data["seconds"] <= MAX_SECONDS:
        raise ValueError(f"seconds: {str(data['seconds'])[:20]}, expected 1 to {MAX_SECONDS}")
    grid = [float(second) for second in range(int(data["seconds"]) + 1)]
    found = []
    for mode in STYLES:
        runs = [run["points"] for run in data["campaigns"] if run["mode"] == mode]
        rows = ((second, [value_at(points, key, second) for points in runs]) for second in grid)
        found.append(Spread(mode, tuple((s, min(v), median(v), max(v)) for s, v in rows if v)))
    return tuple(found)


def finals(data: Mapping[str, Any], mode: str, key: str) -> list[float]:
    """Return the last values of a mode's runs."""
    return [run["points"][-1][key] for run in data["campaigns"] if run["mode"] == mode]


def wins(ours: Sequence[float], theirs: Sequence[float]) -> tuple[int, int, int]:
    """Return the numbers of pairs of runs in which ``ours`` is greater, equal, smaller."""
    pairs = [(a, b) for a in ours for b in theirs]
    greater, equal = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
    return greater, equal, len(pairs) - greater - equal


# ---- the plot --------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _GAP = 380, 260, 60
_TOP, _BOTTOM = 40, 30


def svg(data: Mapping[str, Any]) -> str:
    """Return the plot: a panel for each measure, with each mode's median as a line and its range as a band."""
    total = 2 * (_WIDTH + _GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {_HEIGHT + _TOP + _BOTTOM + 24}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        "<title>Coverage over time by what guides the campaign: median and range of the runs</title>",
        f'<rect width="{total}" height="{_HEIGHT + _TOP + _BOTTOM + 24}" fill="#fff"/>',
    ]
    for number, (key, name) in enumerate(MEASURES):
        parts += _panel(spreads(data, key), name, _GAP + number * (_WIDTH + _GAP), data["seconds"])
    y = _HEIGHT + _TOP + _BOTTOM + 12
    for number, (mode, (colour, dashes)) in enumerate(STYLES.items()):
        x = _GAP + 150 * number
        parts.append(_line([(x, y), (x + 34, y)], colour, dashes))
        parts.append(f'<text x="{x + 40}" y="{y + 4}" fill="#1b1f24">guided by {mode}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(courses: Sequence[Spread], name: str, left: float, seconds: float) -> Iterator[str]:
    top = max((row[3] for course in courses for row in course.points), default=1) or 1
    after = [row[1] for course in courses for row in course.points if row[0] >= seconds * 0.05]
    low = _floor(min(after, default=0), top)

    def place(second: float, value: float) -> tuple[float, float]:
        height = (max(value, low) - low) / ((top - low) or 1)
        return left + second / (seconds or 1) * _WIDTH, _TOP + _HEIGHT - height * _HEIGHT

    yield f'<text x="{left}" y="{_TOP - 16}" font-size="14" fill="#1b1f24">{escape(name)}</text>'
    ticks = max(1, min(4, round(top - low)))  # the values are whole numbers
    for step in range(ticks + 1):
        value = low + (top - low) * step / ticks
        y = place(0, value)[1]
        yield f'<line x1="{left}" y1="{y:.1f}" x2="{left + _WIDTH}" y2="{y:.1f}" stroke="#d0d7de"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#57606a">{value:,.0f}</text>'
    for step in range(5):
        second = seconds * step / 4
        x = place(second, low)[0]
        yield f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle" fill="#57606a">{second:g} s</text>'
    for course in courses:
        colour, dashes = STYLES[course.mode]
        band = [place(s, high) for s, _, _, high in course.points]
        band += [place(s, least) for s, least, _, _ in reversed(course.points)]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in band)
        yield f'<polygon points="{corners}" fill="{colour}" opacity="0.15"/>'
        yield _line([place(s, middle) for s, _, middle, _ in course.points], colour, dashes)


def _floor(least: float, top: float) -> float:
    """Return the start of the axis: 0, unless that would hide all differences."""
    return 0.0 if least < top / 2 else float(int(least * 0.98))


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


# ---- the page --------------------------------------------------------------------------------------------------------


def markdown(data: Mapping[str, Any]) -> str:
    """Return docs/coverage.md."""
    return "\n".join([*_introduction(data), *_table(data), *_verdict(data), *_exclusive(data), *_cost(data), ""])


def _introduction(data: Mapping[str, Any]) -> Iterator[str]:
    subject = f"`{data['target']}` (Linux {data['kernel_release']}), level `{data['level']}`"
    yield from (
        "# Guidance of a campaign: the model, KVM's code, or both",
        "",
        "Generated by `shadowfuzz bench trial`, from `docs/coverage.json`; do not edit.",
        "",
        "A QEMU plugin counts pairs of consecutive blocks of KVM's code (EL1 and EL2); libFuzzer reads its",
        "counters as if they were compiled in (`shadowfuzz fuzz --coverage kvm`). Without it, libFuzzer sees the",
        "decisions of the model on the recorded trace (`--coverage model`); by default it sees both.",
        "",
        f"Measured on {subject}, {data['runs']} campaigns of {data['seconds']:g} s a mode with {data['jobs']} workers,",
        f"each from an empty corpus, modes in turn, seed {data['seed']}. KVM's edges were counted in every campaign.",
        f"The machine has {data['cores']} cores; its load average was {data['load']} when this began.",
        "",
        "![Coverage over time](coverage.svg)",
        "",
        "The line is the median of the runs, the band goes from the least to the greatest.",
        "",
    )


def _table(data: Mapping[str, Any]) -> Iterator[str]:
    yield "| guided by | KVM edges | model decisions | scenarios | checked exits/s | corpus |"
    yield "|---|---|---|---|---|---|"
    for mode in STYLES:
        rates = [value / data["seconds"] for value in finals(data, mode, "checked_exits")]
        corpus = [run["corpus"] for run in data["campaigns"] if run["mode"] == mode]
        cells = [_range(finals(data, mode, key)) for key in ("edges", "decisions", "scenarios")]
        yield f"| {' | '.join([mode, *cells, _range(rates), _range(corpus)])} |"
    yield from ("", "Each cell: median (least to greatest) at the end of the runs.", "")


def _range(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})" if values else "none"


def _verdict(data: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Difference to the model's guidance", "")
    for key, name in MEASURES:
        theirs = finals(data, "model", key)
        for mode in ("kvm", "both"):
            ours = finals(data, mode, key)
            more, equal, less = wins(ours, theirs)
            difference = median(ours) - median(theirs)
            yield (
                f"- {name}, guided by {mode} against model: median {difference:+g}; "
                f"more in {more}, equal in {equal}, fewer in {less} of {more + equal + less} pairs of runs"
            )
    yield ""


def _exclusive(data: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Reached by one mode only", "", "In any of its runs, and in no run of another mode:", "")
    for mode, row in data["exclusive"].items():
        names = ", ".join(f"`{name}`" for name in row["functions"]) or "none"
        yield f"- {mode}: {row['edges']} edges; functions that only these runs entered: {names}"
    yield ""


def _cost_row(name: str, rates: Sequence[Mapping[str, float]]) -> str:
    return f"| {name} | {_range([r['exits_per_s'] for r in rates])} | {_range([r['cpu_us'] for r in rates])} |"


def _cost(data: Mapping[str, Any]) -> Iterator[str]:
    bare, watched = data["cost"]["bare"], data["cost"]["watched"]
    share = median(row["exits_per_s"] for row in watched) / median(row["exits_per_s"] for row in bare)
    work = median(row["cpu_us"] for row in watched) / median(row["cpu_us"] for row in bare)
    yield from (
        "## Cost of the plugin",
        "",
        f"The bare loop with one worker, {len(bare)} alternating turns with the plugin and without:",
        "",
        "| | exits/s | QEMU's CPU time an exit, us |",
        "|---|---|---|",
        _cost_row("without the plugin", bare),
        _cost_row("with the plugin", watched),
        "",
        f"With it, {share:.2f} of the rate, and {work:.2f} of the CPU time (which other load affects less).",
        "",
        "## What is counted",
        "",
        "Blocks are QEMU's, identified by their offset in RAM: at EL2 the same code has another address in every boot.",
        "The text of KVM is the text between the symbols that bound its objects",
        "(`harness/vm/kernels/kvm_functions.py`); other kernel functions that it calls are not counted.",
        "Counting begins after the agent's preparation of a scenario, so that",
        "neither the boot nor the scenario before it counts. A timer tick of the host adds a few edges to any",
        "scenario of a campaign. `shadowfuzz corpus coverage` and `shadowfuzz corpus cmin` use deterministic machines,",
        "run each scenario several times, and keep the edges that all runs reach.",
    )
