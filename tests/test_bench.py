# SPDX-License-Identifier: Apache-2.0
"""The benchmark's arithmetic, and its text."""

from __future__ import annotations

import pytest

from fuzz.bench import Result, Sample
from fuzz.bench_cli import _text


def sample(mode: str, exits: int, seconds: float) -> Sample:
    return Sample(mode, exits, exits // 40, seconds, seconds / 2)


RESULT = Result(
    (sample("raw", 8000, 2.0), sample("raw", 9000, 3.0), sample("recorded", 6000, 2.0), sample("checked", 7000, 2.0)),
    start_s=1.5,
    memory_mib=60.0,
)


def test_rates_add_up_over_workers() -> None:
    assert RESULT.rate("raw") == pytest.approx(4000 + 3000)
    assert RESULT.rate("checked") == pytest.approx(3500)
    assert RESULT.ratio("checked") == pytest.approx(0.5)
    assert RESULT.ratio("raw") == 1.0


def test_nothing_measured_is_no_division() -> None:
    assert Result((), 0.0, 0.0).ratio("checked") == 0.0


def test_the_text_names_every_mode() -> None:
    facts = {"target": "t", "kernel_release": "r", "level": "spec", "jobs": 2, "seed": 1, "start_s": 1, "memory_mib": 2}
    text = _text(facts, RESULT)
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["raw", "recorded", "checked"]
    assert "0.50" in text
