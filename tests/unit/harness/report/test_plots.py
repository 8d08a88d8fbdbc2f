# SPDX-License-Identifier: Apache-2.0
"""Plots of no points and of many points."""

from __future__ import annotations

from harness.report.plots import Line, plot


def test_a_plot_of_nothing() -> None:
    assert "<svg" in plot(Line("t", "u", ())) and "<svg" in plot(Line("t", "u", ((0.0, 0.0),)))


def test_a_long_night_is_a_short_line() -> None:
    points = tuple((5.0 * i, float(i)) for i in range(6000))
    drawn = plot(Line("t", "u", points)).partition('points="')[2].partition('"')[0].split()
    assert 200 < len(drawn) <= 241 and drawn[0].startswith("52.0,") and drawn[-1] == "312.0,14.0"
