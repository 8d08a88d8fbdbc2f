# SPDX-License-Identifier: Apache-2.0
"""The coverage that all runs of a scenario have in common, and the possible decisions of a model."""

from __future__ import annotations

import pytest

from fuzz.corpus.coverage_survey import possible_decisions, reached_always, reached_sometimes
from harness.coverage.kvm_code import Covered

HVC, SMC, WATCH = 0x1000, 0x1040, 0x1080

ONE = Covered("one", frozenset({(0, HVC), (HVC, HVC + 4)}), frozenset({("hvc", True)}), frozenset({1}))


@pytest.mark.parametrize("level", ["spec", "kernel"])
def test_decisions_include_more_than_save_and_restore(level: str) -> None:
    found = possible_decisions(level)
    assert {("prep_hvc.cpu_on", True), ("prep_hvc.cpu_on", False)} <= found
    assert len(found) > 60


def test_only_goals_of_every_run_count() -> None:
    again = Covered("one", ONE.edges | {(HVC, SMC)}, ONE.decisions, frozenset({1, 7}))
    assert reached_always((ONE, again)) == ONE
    assert reached_sometimes((ONE, again)) - reached_always((ONE, again)).goals == {(HVC, SMC), 7}
