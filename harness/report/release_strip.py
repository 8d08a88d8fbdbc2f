# SPDX-License-Identifier: Apache-2.0
"""Draw which kernels have an erratum: a strip with a bar for each range of releases, and its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from harness.findings.regressions import modes_by_spans
from harness.findings.release_history import CANNOT, SHOWS, ReleaseResult
from harness.report.html_markup import Markup, el, put

_WIDTH, _HEIGHT = 120, 10
_SPAN = re.compile(r"(\d+(?:\.\d+)*)(?: to (\d+(?:\.\d+)*))?")

Version = tuple[int, ...]


def axis_of(releases: Iterable[Mapping[str, Sequence[str]]]) -> tuple[Version, ...]:
    """Return the versions that begin or end a range of any release history, in order: the axis of all strips."""
    spans = (span for row in releases for some in row.values() for span in some)
    return tuple(sorted({end for span in spans for end in _ends(span)}))


def ends_of(axis: Sequence[Version]) -> tuple[str, str]:
    """Return the first and the last version of an axis as text."""
    first, last = (axis[0], axis[-1]) if axis else ((), ())
    return ".".join(map(str, first)), ".".join(map(str, last))


def strip(releases: Mapping[str, Sequence[str]], axis: Sequence[Version]) -> Markup:
    """Return the strip of a kept finding: its ``releases`` by mode of KVM, on an axis from :func:`axis_of`."""
    parts = []
    for spans, modes in modes_by_spans(releases).items():
        bars = []
        for ends in map(_ends, spans):
            inside = [axis.index(end) for end in ends if end in axis]
            if inside:
                bars.append((min(inside) / len(axis), (max(inside) + 1) / len(axis), "shows"))
        label = f"{', '.join(modes)}: {', '.join(spans)}"
        parts.append(el("div", _picture(bars, label), " ", el("small", label), class_="strip"))
    return put(*parts)


def history_strip(asked: Sequence[ReleaseResult]) -> Markup:
    """Return the results of kernels, one cell for each, in the stored order, which is that of versions."""
    size = 1 / max(1, len(asked))
    class_of = {SHOWS: "shows", CANNOT: "cannot"}
    bars = [(i * size, (i + 1) * size, class_of.get(each.answer, "clean")) for i, each in enumerate(asked)]
    shown = sum(each.answer == SHOWS for each in asked)
    return el("div", _picture(bars, f"{shown} of {len(asked)} kernels show it"), class_="strip")


def _ends(span: str) -> tuple[Version, ...]:
    match = _SPAN.fullmatch(span)
    return () if match is None else tuple(tuple(map(int, end.split("."))) for end in match.groups() if end)


def _picture(bars: Sequence[tuple[float, float, str]], label: str) -> Markup:
    shapes = [el("line", x1="0", y1="5", x2=str(_WIDTH), y2="5", class_="axis")]
    for left, right, class_ in bars:
        at, wide = f"{left * _WIDTH:.1f}", f"{max(2.0, (right - left) * _WIDTH - 0.5):.1f}"
        shapes.append(el("rect", x=at, y="1", width=wide, height="8", class_=class_))
    return el("svg", *shapes, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)
