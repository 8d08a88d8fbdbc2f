# SPDX-License-Identifier: Apache-2.0
"""Confirmation: stages are counted, and a lost machine shows nothing."""

from __future__ import annotations

import pytest

from fuzz.targets.runner import MAX_LOSSES
from fuzz.targets.target_set import TargetSet
from fuzz.triage.confirm import stages_of
from harness.errors import VmLost
from harness.findings.checked import signature
from harness.findings.finding import Subject, Tries
from tests.support.fake_worker import DIVERGENCE, SCENARIO, SUBJECT, FakeExecutor, checked

KEY = signature(DIVERGENCE)


def targets_of(fake: FakeExecutor, subject: Subject = SUBJECT) -> TargetSet[FakeExecutor]:
    fake.subject = subject
    return TargetSet([fake])


def test_stages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([checked(DIVERGENCE)] * 3 + [checked()] + [checked(DIVERGENCE)] * 4 + [checked()] * 2)
    with targets_of(fake) as it:
        stages = stages_of(it, SCENARIO, (KEY,), runs=4, boots=2)
    assert [(s.name, s.tries) for s in stages[KEY]] == [
        ("repeat", Tries(3, 4)),
        ("fresh_vm", Tries(4, 4)),
        ("fresh_qemu", Tries(0, 2)),
    ]
    assert fake.fresh == [False] * 4 + [True] * 6
    assert fake.boots == it.boots == 3


def test_a_lost_machine_shows_nothing_and_is_booted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([VmLost("fake", "gone"), checked(DIVERGENCE)])
    with targets_of(fake) as it:
        assert not it.reproduces(SCENARIO, KEY)
        assert it.reproduces(SCENARIO, KEY)
        assert fake.boots == 2
        fake.answers += [VmLost("fake", "gone")] * MAX_LOSSES
        for _ in range(MAX_LOSSES - 1):
            assert not it.reproduces(SCENARIO, KEY)
        with pytest.raises(VmLost):
            it.reproduces(SCENARIO, KEY)


def test_a_run_that_did_not_end_well_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([checked(DIVERGENCE, status="hang")])
    with targets_of(fake) as it:
        assert not it.reproduces(SCENARIO, KEY)
