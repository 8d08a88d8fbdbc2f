# SPDX-License-Identifier: Apache-2.0
"""What a campaign tells its workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.campaign.guidance import KVM, MODEL
from fuzz.campaign.worker_command import Launcher
from fuzz.campaign.worker_process import _parser


@pytest.mark.parametrize(
    ("coverage", "watched", "counted"), [(MODEL, False, False), (MODEL, True, True), (KVM, False, True)]
)
def test_workers_count_edges_where_somebody_wants_them(coverage: str, watched: bool, counted: bool) -> None:
    launch = Launcher("t", "spec", None, 1, Path("out"), "sqlite://", coverage, watched)
    argv = launch(0, 0, Path("run/worker-0-0.stats"))
    assert argv[argv.index("--coverage") + 1] == coverage
    assert ("--edges" in argv) == counted
    if counted:
        assert argv[argv.index("--edges") + 1] == "run/worker-0-0.edges"


@pytest.mark.parametrize("wanted", [None, True, False])
def test_a_worker_is_told_what_the_campaign_was(wanted: bool | None) -> None:
    launch = Launcher("t", "spec", None, 1, Path("out"), "sqlite://", "model", hyp_copy=wanted)
    assert _parser().parse_args(launch(0, 0, Path("stats"))[3:]).hyp_copy is wanted
