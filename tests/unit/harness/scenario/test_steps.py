# SPDX-License-Identifier: Apache-2.0
"""The table of steps."""

from __future__ import annotations

from harness.scenario.steps import KINDS, STEP_KINDS


def test_every_step_kind_has_a_summary_a_source_and_a_syntax() -> None:
    for kind in STEP_KINDS:
        assert kind.summary.endswith(".")
        assert kind.source
        assert kind.syntax.split()[0] == kind.keyword
    assert len(KINDS) == len(STEP_KINDS)
