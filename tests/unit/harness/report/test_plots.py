# SPDX-License-Identifier: Apache-2.0
"""Plots of no points and of many points."""

from __future__ import annotations

import re

from harness.report.plots import Line, Lines, plot, render


def test_a_plot_of_nothing() -> None:
    assert "<svg" in plot(Line("t", "u", ())) and "<svg" in plot(Line("t", "u", ((0.0, 0.0),)))


def test_a_long_night_is_a_short_line() -> None:
    points = tuple((5.0 * i, float(i)) for i in range(6000))
    drawn = plot(Line("t", "u", points)).partition('points="')[2].partition('"')[0].split()
    assert 200 < len(drawn) <= 241 and drawn[0].startswith("52.0,") and drawn[-1] == "312.0,14.0"


def test_an_axis_of_counts_has_whole_numbers() -> None:
    line = tuple((float(x), 34.0 + min(x, 3)) for x in range(61))
    band = tuple((x, y, y + 1) for x, y in line)
    drawn = render("t", [Lines("l", "seconds", (("a", line),), (band,), from_zero=False)])
    labels = [float(text.replace(",", "")) for text in re.findall(r'anchor="end"[^>]*>([\d,.]+)<', drawn)]
    assert labels == sorted({round(label) for label in labels}) and labels[0] > 0 and drawn.count("<polygon") == 1
