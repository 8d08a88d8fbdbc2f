# SPDX-License-Identifier: Apache-2.0
"""Results of a replay: exit status and clusters."""

from __future__ import annotations

from harness.report.replay_result import clusters, exit_status
from tests.support.reports import results


def test_exit_status_and_clusters() -> None:
    good, bad = results()
    assert exit_status([good]) == 1
    assert exit_status([good, bad]) == 3
    assert exit_status([]) == 0
    found = {c.signature: c for c in clusters([good, bad])}
    switch = next(c for key, c in found.items() if key[0] == "switch")
    assert dict(switch.counts) == {"kvm-vhe": 1}
    assert switch.reproduced == (1, 2)
    stable = next(c for key, c in found.items() if key[:2] == ("restore", "esr_el1"))
    assert stable.reproduced == (4, 4)
