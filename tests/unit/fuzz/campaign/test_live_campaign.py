# SPDX-License-Identifier: Apache-2.0
"""The number of workers of a campaign."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.campaign.limits import MAX_JOBS, default_jobs
from fuzz.campaign.live_campaign import LivePlan
from fuzz.targets.options import TargetOptions
from harness.errors import InputError


@pytest.mark.parametrize(("jobs", "deterministic", "workers"), [(3, False, 3), (None, True, 1), (1, True, 1)])
def test_number_of_workers(jobs: int | None, deterministic: bool, workers: int) -> None:
    options = TargetOptions("t", "spec", deterministic=deterministic)
    assert LivePlan(options, 1.0, Path("out"), jobs).workers == workers
    assert 1 <= default_jobs() <= MAX_JOBS


def test_a_deterministic_campaign_has_one_worker() -> None:
    with pytest.raises(InputError, match="--jobs: a deterministic campaign has one worker"):
        _ = LivePlan(TargetOptions("t", "spec", deterministic=True), 1.0, Path("out"), 2).workers
