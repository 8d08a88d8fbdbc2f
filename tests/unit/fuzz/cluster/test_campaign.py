# SPDX-License-Identifier: Apache-2.0
"""What a campaign on a cluster says before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fuzz.cluster import campaign
from fuzz.cluster.address import Address
from fuzz.cluster.campaign import ClusterPlan, run_cluster_campaign
from tests.support.played_nodes import Played


def test_a_head_that_offers_no_cpu_is_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """compose.yml and kuberay.yaml start such a head; two nodes were said to be three."""

    @contextmanager
    def connected(*_: object) -> Iterator[Played]:
        yield Played({"head": "no CPU", "one": "well", "two": "well"}, lambda *_: "")

    monkeypatch.setattr(campaign, "check_plan", lambda plan: None)
    monkeypatch.setattr(campaign, "connected", connected)
    monkeypatch.setattr(campaign, "run_on", lambda *_: None)
    said: list[str] = []
    plan = ClusterPlan(None, Address("ray://head:10001"))  # type: ignore[arg-type]
    run_cluster_campaign(plan, None, said.append)  # type: ignore[arg-type]
    assert said == ["cluster: 2 nodes at ray://head:10001"]
