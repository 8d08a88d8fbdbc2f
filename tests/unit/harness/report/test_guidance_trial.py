# SPDX-License-Identifier: Apache-2.0
"""The trial of guidance modes: its numbers, its page, its plot."""

from __future__ import annotations

import json

import pytest

from harness.report.guidance_trial import markdown, svg, value_at, wins
from harness.vm.config import PROJECT


def a_trial() -> dict[str, object]:
    def campaign(mode: str, *edges: int) -> dict[str, object]:
        points = [
            {"second": s + 0.5, "edges": e, "decisions": 7, "scenarios": 10 * s, "checked_exits": 100}
            for s, e in enumerate(edges)
        ]
        return {"mode": mode, "seed": 1, "corpus": 3, "points": points}

    rates = [{"exits_per_s": 100.0, "cpu_us": 50.0}]
    return {
        **{"target": "t", "kernel_release": "6.1", "level": "spec", "seconds": 2, "runs": 2, "jobs": 1, "seed": 1},
        **{"cores": 2, "load": 0.1},
        "cost": {"bare": rates, "watched": [{"exits_per_s": 98.0, "cpu_us": 51.0}]},
        "campaigns": [
            *(campaign("model", 100, 200), campaign("model", 90, 220)),
            *(campaign("kvm", 100, 300), campaign("kvm", 100, 210)),
            *(campaign("both", 100, 400), campaign("both", 100, 410)),
        ],
        "exclusive": {mode: {"edges": 1, "functions": ["f"]} for mode in ("model", "kvm", "both")},
    }


def test_a_course_holds_its_last_value() -> None:
    points = [{"second": 0.5, "edges": 3.0}, {"second": 1.5, "edges": 5.0}]
    assert [value_at(points, "edges", second) for second in (0.0, 1.0, 2.0)] == [0.0, 3.0, 5.0]


def test_wins_compare_every_pair_of_runs() -> None:
    assert wins([3, 5], [3, 4]) == (2, 1, 1)


def test_the_page_of_a_trial_says_who_found_more() -> None:
    shown = markdown(a_trial())
    assert "guided by both against model: median +195; more in 4, equal in 0, fewer in 0 of 4 pairs" in shown
    assert "guided by kvm against model: median +45; more in 3, equal in 0, fewer in 1 of 4 pairs" in shown
    assert "0.98 of the rate, and 1.02 of the CPU time" in shown
    assert svg(a_trial()).count("<polygon") == 6


def test_the_stored_trial_is_what_the_documents_show() -> None:
    data = json.loads((PROJECT / "docs" / "coverage.json").read_text())
    assert (PROJECT / "docs" / "coverage.md").read_text() == markdown(data)
    assert (PROJECT / "docs" / "coverage.svg").read_text() == svg(data)


@pytest.mark.parametrize("seconds", [0, -1, 1e308, 2**70])
def test_no_campaign_takes_so_long(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        svg({**a_trial(), "seconds": seconds})
