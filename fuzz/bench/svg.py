# SPDX-License-Identifier: Apache-2.0
"""Draw the benchmark as one self-contained SVG file: the time of an exit by part, and how rates and times scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, MARGIN = 520, 300, 60
COLUMNS = 2
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7a5195")


@dataclass(frozen=True, slots=True)
class Bars:
    """A panel of horizontal bars: a title, and rows (name, value)."""

    title: str
    rows: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """A panel of lines over a common x axis from 0; each line is a name and (x, y) points."""

    title: str
    x: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


Panel = Bars | Lines


def render(title: str, panels: Sequence[Panel]) -> str:
    """Return the SVG of panels, two in a row."""
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * WIDTH, 40 + rows * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(20, 26, title, size=15),
    ]
    for number, panel in enumerate(panels):
        x, y = number % COLUMNS * WIDTH, 40 + number // COLUMNS * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">')
        parts.append(_text(20, 20, panel.title, size=13))
        parts += _bars(panel) if isinstance(panel, Bars) else _lines(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _bars(panel: Bars) -> Iterator[str]:
    left, right, top = 150, WIDTH - 70, 40
    largest = max((value for _, value in panel.rows), default=0.0) or 1.0
    pitch = min(30.0, (HEIGHT - top - 20) / max(1, len(panel.rows)))
    for number, (name, value) in enumerate(panel.rows):
        y, length = top + number * pitch, value / largest * (right - left)
        yield _text(left - 8, y + 0.6 * pitch, name, anchor="end")
        yield f'<rect x="{left}" y="{y:.1f}" width="{length:.1f}" height="{0.75 * pitch:.1f}" fill="{COLOURS[0]}"/>'
        yield _text(left + length + 6, y + 0.6 * pitch, f"{value:.1f}")


def _round_up(value: float) -> float:
    """Return the first of 1, 2, 5, 10, 20, ... that is not less than ``value``."""
    unit = 1.0
    while unit * 10 <= value:
        unit *= 10
    return next((unit * step for step in (1, 2, 5, 10) if unit * step >= value), unit * 10)


def _lines(panel: Lines) -> Iterator[str]:
    left, right, top, bottom = MARGIN, WIDTH - 30, 40, HEIGHT - 50
    points = [point for _, line in panel.lines for point in line]
    x_end = max((x for x, _ in points), default=0.0) or 1.0
    y_end = _round_up(max((y for _, y in points), default=0.0))

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x_end * (right - left), bottom - y / y_end * (bottom - top)

    for part in range(5):
        y = y_end * part / 4
        height = at(0, y)[1]
        yield f'<line x1="{left}" y1="{height:.1f}" x2="{right}" y2="{height:.1f}" stroke="#dddddd"/>'
        yield _text(left - 8, height + 4, f"{y:g}", anchor="end")
    for x in sorted({x for x, _ in points}):
        yield _text(at(x, 0)[0], bottom + 18, f"{x:g}", anchor="middle")
    yield _text((left + right) / 2, bottom + 38, panel.x, anchor="middle")
    for number, (name, line) in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (at(*p) for p in line))
        yield f'<rect x="{right - 110}" y="{top + 16 * number}" width="10" height="10" fill="{colour}"/>'
        yield _text(right - 95, top + 9 + 16 * number, name)
