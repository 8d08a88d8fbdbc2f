# SPDX-License-Identifier: Apache-2.0
"""The trial of guidance modes, with fake campaigns: order, seeds, and early ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from fuzz.bench import guidance_trial
from fuzz.bench.guidance_trial import CampaignRun, TrialPlan, exclusive, run_trial
from fuzz.campaign.counters_file import EMPTY
from fuzz.campaign.limits import MODES
from fuzz.campaign.parent import CORPUS, Outcome, Plan, Progress
from fuzz.campaign.worker_job import Launcher
from harness.errors import TargetError

PLAN = TrialPlan("kvm-nvhe", "spec", seconds=3.0, runs=2, jobs=1, seed=5)


def outcome(failure: str = "", interrupted: bool = False) -> Outcome:
    return Outcome(EMPTY, 3.0, (), failure, interrupted)


def campaign(end: Outcome) -> Callable[..., Outcome]:
    """Return a fake campaign of one second that leaves two scenarios."""

    def run(plan: Plan, _: Launcher, tick: Callable[[Progress], None], __: Callable[[], bool]) -> Outcome:
        for second in (0.0, 1.0):
            tick(Progress(second, plan.seconds - second, plan.jobs, EMPTY))
        for name in "ab":
            (plan.out / CORPUS / name).touch()
        return end

    return run


def test_modes_alternate_with_the_same_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance_trial, "run_campaign", campaign(outcome()))
    said: list[str] = []
    runs = run_trial(PLAN, said.append)
    assert [(run.mode, run.seed) for run in runs] == [(mode, seed) for seed in (5, 7924) for mode in MODES]
    assert [[point.second for point in run.points] for run in runs] == [[1.0, 3.0]] * len(runs)
    assert {run.corpus for run in runs} == {2} and len(said) == len(runs)


@pytest.mark.parametrize(
    ("end", "error"), [(outcome(failure="no machine"), TargetError), (outcome(interrupted=True), KeyboardInterrupt)]
)
def test_a_campaign_that_ends_early_ends_the_trial(
    end: Outcome, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guidance_trial, "run_campaign", campaign(end))
    with pytest.raises(error):
        run_trial(PLAN, lambda _: None)


def test_edges_of_one_mode_only() -> None:
    def run(mode: str, edges: Sequence[int]) -> CampaignRun:
        return CampaignRun(mode, 1, (), 0, frozenset((edge, edge) for edge in edges))

    first, second, *_ = MODES
    alone = exclusive([run(first, (1, 2)), run(first, (3,)), run(second, (2, 4))])
    assert (alone[first], alone[second]) == ({(1, 1), (3, 3)}, {(4, 4)})
    assert all(not alone[mode] for mode in MODES if mode not in (first, second))
