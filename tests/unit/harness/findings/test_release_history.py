# SPDX-License-Identifier: Apache-2.0
"""The history of a divergence over releases, in sentences."""

from __future__ import annotations

from harness.findings.release_history import CANNOT as HISTORY_CANNOT
from harness.findings.release_history import SHOWS, SHOWS_NOT, ReleaseResult, history_text, read_history, sentences


def test_a_release_history_in_sentences() -> None:
    rows = [("6.1.1", SHOWS), ("6.1.9", SHOWS), ("6.5", HISTORY_CANNOT), ("6.12", SHOWS_NOT), ("7.0", SHOWS)]
    asked = tuple(ReleaseResult("kvm-nvhe", version, answer, 5, 5) for version, answer in rows)
    assert sentences(asked) == (
        "kvm-nvhe: 6.1.1 to 6.1.9 shows it",
        "kvm-nvhe: 6.12 does not show it",
        "kvm-nvhe: 7.0 shows it",
    )
    assert read_history(history_text(asked)) == asked
    assert read_history("[{}]") == read_history("no JSON") == ()
