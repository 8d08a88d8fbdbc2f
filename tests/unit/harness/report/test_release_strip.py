# SPDX-License-Identifier: Apache-2.0
"""Release histories as strips: begin and end of bars, and the text for screen readers."""

from __future__ import annotations

from fuzz.store.kept_findings import kept_rows
from harness.findings.release_history import CANNOT, SHOWS, SHOWS_NOT, ReleaseResult
from harness.report.release_strip import axis_of, ends_of, history_strip, strip

ROWS = ({"nvhe": ("6.1.9 to 6.1.10",), "vhe": ("6.1.9 to 6.1.10",)}, {"nvhe": ("6.1.10 to 6.12.3", "7.3.4")})


def test_versions_are_in_the_order_of_numbers() -> None:
    axis = axis_of(ROWS)
    assert axis == ((6, 1, 9), (6, 1, 10), (6, 12, 3), (7, 3, 4)) and ends_of(axis) == ("6.1.9", "7.3.4")
    assert axis_of(()) == () and ends_of(()) == ("", "")


def test_modes_that_agree_share_a_strip() -> None:
    axis = axis_of(ROWS)
    one = strip(ROWS[0], axis)
    assert one.count("<svg") == 1 and 'aria-label="nvhe, vhe: 6.1.9 to 6.1.10"' in one
    assert '<rect x="0.0" y="1" width="59.5"' in one
    two = strip(ROWS[1], axis)
    assert two.count("<rect") == 2 and '<rect x="90.0"' in two


def test_what_cannot_be_placed_has_its_words() -> None:
    assert "author&#x27;s" in strip({"nvhe": ("author's",)}, axis_of(ROWS)) and strip({}, ()) == ""


def test_every_kept_history_can_be_placed() -> None:
    releases = [row.releases for row in kept_rows()]
    axis = axis_of(releases)
    assert len(axis) > 5
    for row in releases:
        assert strip(row, axis).count("<rect") >= len({tuple(spans) for spans in row.values()})


def test_answers_of_kernels() -> None:
    answers = [
        ReleaseResult("kvm-nvhe", version, answer, 1, 2) for version, answer in (("6.1", SHOWS), ("6.12", SHOWS_NOT))
    ]
    told = history_strip((*answers, ReleaseResult("kvm-nvhe", "7", CANNOT, 0, 0)))
    assert [told.count(f'class="{name}"') for name in ("shows", "clean", "cannot")] == [1, 1, 1]
    assert "1 of 3 kernels show it" in told
