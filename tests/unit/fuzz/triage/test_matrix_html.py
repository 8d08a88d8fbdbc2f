# SPDX-License-Identifier: Apache-2.0
"""The matrix as one HTML page."""

from __future__ import annotations

from fuzz.triage.matrix import (
    CANNOT,
    CLEAN,
    DIVERGES,
    Cell,
)
from fuzz.triage.matrix_html import page
from fuzz.triage.matrix_text import Table
from harness.findings.regressions import Regression


def test_the_html_page_is_complete_and_escaped() -> None:
    cells = {
        ("kvm-nvhe@6.1.9-1", "a<b"): Cell("kvm-nvhe@6.1.9-1", "a<b", "k", DIVERGES, ("host.pc",), 1, 1),
        ("kvm-nvhe@6.12.9-1", "a<b"): Cell("kvm-nvhe@6.12.9-1", "a<b", "k", CLEAN, runs=1),
        ("kvm-nvhe@7.2.9-1", "a<b"): Cell("kvm-nvhe@7.2.9-1", "a<b", "k", CANNOT, why="no & headers"),
        ("kvm-nvhe@6.1.9-1", "calm"): Cell("kvm-nvhe@6.1.9-1", "calm", "k", CLEAN, runs=1),
    }
    table = Table(cells, [target for target, _ in cells], ["a<b", "calm"])
    found = Regression("some-bug", "It is wrong.", "Because.", "kvm", "none", ("c",), ("host.pc/WFX",), ("a<b",))
    text = page(table, "shadowfuzz kernels matrix <x>", (found,))
    assert text.count("<script") == 1 and "a<b" not in text and "http" not in text.replace("http-equiv", "")
    assert 'title="kvm-nvhe@6.1.9-1: host.pc">A<' in text and 'title="kvm-nvhe@7.2.9-1: no &amp; headers">-<' in text
    assert '<th scope="row">a&lt;b</th>' in text and "1 more scenarios are clean" in text
    assert text.count('tabindex="0"') >= 4  # wide tables can be scrolled by keyboard
    assert "some-bug" in text and ">6.1.9-1</td>" in text
