# SPDX-License-Identifier: Apache-2.0
"""A corpus and mutants of it on a fake machine: counts, and the limit on lost machines."""

from __future__ import annotations

import pytest

from fuzz.corpus import exercise
from fuzz.corpus.exercise import ExerciseWork, make_mutants, measure_exercise
from fuzz.targets.runner import MAX_LOSSES
from fuzz.targets.target_set import TargetSet
from harness.errors import VmLost
from harness.scenario.scenario import format_scenario, parse
from tests.support.fake_worker import SCENARIO, SUBJECT, FakeExecutor

WORK = ExerciseWork("kvm-nvhe", "spec", (("seeds/a.scn", SCENARIO), ("seeds/b.scn", SCENARIO)), mutants=3, seed=7)


def fake(monkeypatch: pytest.MonkeyPatch, lost: int) -> FakeExecutor:
    """Return a machine that is lost in its first runs."""
    machine = FakeExecutor([VmLost("fake", "gone")] * lost)
    monkeypatch.setattr(exercise, "open_targets", lambda _: TargetSet([machine]))
    monkeypatch.setattr(exercise, "exercised_rules", lambda *_: {"a.rule"})
    return machine


def test_mutants_are_scenarios_and_the_same_for_a_seed() -> None:
    made = list(make_mutants([SCENARIO], 20, 3))
    assert made == list(make_mutants([SCENARIO], 20, 3)) != list(make_mutants([SCENARIO], 20, 4))
    assert all(parse(format_scenario(mutant)) == mutant for mutant in made)


def test_all_scenarios_are_run_and_a_loss_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = fake(monkeypatch, lost=1)
    counts = measure_exercise(WORK)
    assert (counts["scenarios"], counts["mutants"], counts["lost"], counts["exits"]) == (5, 3, 1, 2 * 4)
    assert machine.boots == 2 and machine.fresh == [True] * 5
    assert counts["kernel_release"] == SUBJECT.kernel_release
    assert counts["rules"] == {"a.rule": {"scenarios": 1, "one": "seeds/b.scn"}}, "a mutant has no name"


def test_repeated_losses_end_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = fake(monkeypatch, lost=9)
    with pytest.raises(VmLost):
        measure_exercise(WORK)
    assert machine.boots == MAX_LOSSES
