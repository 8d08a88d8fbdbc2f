# SPDX-License-Identifier: Apache-2.0
"""A plot that has nothing to show."""

from __future__ import annotations

from harness.report.html_markup import Line, plot


def test_a_plot_of_nothing() -> None:
    assert "<svg" in plot(Line("t", "u", ())) and "<svg" in plot(Line("t", "u", ((0.0, 0.0),)))
