# SPDX-License-Identifier: Apache-2.0
"""Draw plots as SVG: panels of bars and lines in one file, and a small line plot for a page of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from harness.report.html_markup import Markup, el

Points = tuple[tuple[float, float], ...]

# ---- a file of panels ------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, MARGIN = 520, 300, 60
COLUMNS = 2
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7a5195")
DASHES = ("", "7 3", "2 3", "8 3 2 3")
"""Lines differ in colour and in dashes."""
MAX_TICKS, MAX_MARKS = 8, 20
"""Number of x values that all have a tick; number of points of a line that all have a mark."""


@dataclass(frozen=True, slots=True)
class Bars:
    """A panel of horizontal bars: its title, and (name, value) rows."""

    title: str
    rows: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """A panel of lines over a common x axis from 0; each line is a name and (x, y) points.

    ``bands``: for each line the (x, least, greatest) of its range, or none at all.  ``from_zero``: the y axis begins at
    0; else the values are whole numbers, and the axis begins higher if all of them after the first twentieth of the x
    axis are in its upper half.
    """

    title: str
    x: str
    lines: tuple[tuple[str, Points], ...]
    bands: tuple[tuple[tuple[float, float, float], ...], ...] = ()
    from_zero: bool = True


Panel = Bars | Lines


def render(title: str, panels: Sequence[Panel]) -> str:
    """Return the SVG of panels, two in a row; it needs no other file."""
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
    """Return the first of 1, 2, 5, 10, 20, ... that is not below."""
    unit = 1.0
    while unit * 10 <= value:
        unit *= 10
    return next((unit * step for step in (1, 2, 5, 10) if unit * step >= value), unit * 10)


def _y_axis(panel: Lines, x_end: float) -> tuple[float, float]:
    """Return the first and the last value of the y axis."""
    values = [(x, y) for _, line in panel.lines for x, y in line]
    values += [(x, y) for band in panel.bands for x, *ends in band for y in ends]
    top = max((y for _, y in values), default=0.0)
    least = min((y for x, y in values if x >= x_end / 20), default=0.0)
    if panel.from_zero or least < top / 2:
        return 0.0, _round_up(top)
    return float(int(least * 0.98)), top


def _lines(panel: Lines) -> Iterator[str]:
    left, right, top, bottom = MARGIN, WIDTH - 30, 40, HEIGHT - 50
    points = [point for _, line in panel.lines for point in line]
    x_end = max((x for x, _ in points), default=0.0) or 1.0
    y_begin, y_end = _y_axis(panel, x_end)

    def at(x: float, y: float) -> tuple[float, float]:
        height = (max(y, y_begin) - y_begin) / ((y_end - y_begin) or 1.0)
        return left + x / x_end * (right - left), bottom - height * (bottom - top)

    parts = 4 if panel.from_zero else max(1, min(4, round(y_end - y_begin)))
    for part in range(parts + 1):
        y = y_begin + (y_end - y_begin) * part / parts
        height = at(0, y)[1]
        yield f'<line x1="{left}" y1="{height:.1f}" x2="{right}" y2="{height:.1f}" stroke="#dddddd"/>'
        yield _text(left - 8, height + 4, f"{y:g}" if panel.from_zero else f"{y:,.0f}", anchor="end")
    xs = sorted({x for x, _ in points})
    for x in xs if len(xs) <= MAX_TICKS else [x_end * part / 4 for part in range(5)]:
        yield _text(at(x, y_begin)[0], bottom + 18, f"{x:g}", anchor="middle")
    yield _text((left + right) / 2, bottom + 38, panel.x, anchor="middle")
    for number, band in enumerate(panel.bands):
        corners = [at(x, y) for x, _, y in band] + [at(x, y) for x, y, _ in reversed(band)]
        yield f'<polygon points="{_path(corners)}" fill="{COLOURS[number % len(COLOURS)]}" opacity="0.15"/>'
    for number, (name, line) in enumerate(panel.lines):
        colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        style = f'stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
        places = [at(*point) for point in line]
        yield f'<polyline points="{_path(places)}" fill="none" {style}/>'
        if len(places) <= MAX_MARKS:
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
        y = bottom - 16 * (len(panel.lines) - number) if panel.bands else top + 5 + 16 * number
        yield f'<line x1="{right - 120}" y1="{y}" x2="{right - 96}" y2="{y}" {style}/>'
        yield _text(right - 90, y + 4, name)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


# ---- a plot in a page of the report ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A line plot: points from left to right, their title and unit; ``along`` is the unit of the horizontal axis."""

    title: str
    unit: str
    points: tuple[tuple[float, float], ...]
    along: str = "s"


_W, _H, _LEFT, _BOTTOM = 320, 130, 52, 20
MAX_DOTS, MAX_POINTS = 60, 240


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Reduce points to the resolution of the plot; the last one is kept."""
    every = -(-len(points) // MAX_POINTS)
    return points if every <= 1 else (*points[:-1:every], points[-1])


def plot(line: Line) -> Markup:
    """Return a line plot as SVG with axes from zero; few points are also drawn as dots."""
    points = _thin(line.points)
    right = max((x for x, _ in line.points), default=0.0) or 1.0
    top = max((y for _, y in line.points), default=0.0) or 1.0

    def place(x: float, y: float) -> str:
        return f"{_LEFT + x / right * (_W - _LEFT - 8):.1f},{_H - _BOTTOM - y / top * (_H - 34):.1f}"

    base = _H - _BOTTOM
    last = line.points[-1][1] if line.points else 0
    label = f"{line.title} over time: {last:,.0f} {line.unit} at the end, at most {top:,.0f}"
    x1, y1 = str(_LEFT), str(base)
    few = line.points if len(line.points) <= MAX_DOTS else ()
    at = (place(x, y).split(",") for x, y in few)
    dots = [el("circle", cx=cx, cy=cy, r="2.5", class_="dot") for cx, cy in at]
    return el(
        "figure",
        el("figcaption", line.title),
        el(
            "svg",
            el("line", x1=x1, y1=y1, x2=str(_W - 8), y2=y1, class_="axis"),
            el("line", x1=x1, y1="14", x2=x1, y2=y1, class_="axis"),
            el("text", f"{top:,.0f}", x=str(_LEFT - 6), y="18", text_anchor="end"),
            el("text", "0", x=str(_LEFT - 6), y=y1, text_anchor="end"),
            *dots,
            el(
                "text",
                f"{right:,.0f} {line.along}",
                x=str(_W - 8),
                y=str(_H - 4),
                text_anchor="end",
            ),
            el("polyline", points=" ".join(place(x, y) for x, y in points), class_="line"),
            viewBox=f"0 0 {_W} {_H}",
            role="img",
            aria_label=label,
        ),
    )
