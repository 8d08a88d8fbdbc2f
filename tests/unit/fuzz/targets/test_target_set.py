# SPDX-License-Identifier: Apache-2.0
"""A set of one or two targets on fake machines: boots, comparisons, losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from fuzz.store.findings import OTHER_TRACE, TRACE
from fuzz.targets.observation import clusters_of, signatures, stability_key, texts_of
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import TargetSet
from harness.errors import VmLost
from harness.findings.checked import CheckResult, signature
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from tests.support.fake_worker import DIVERGENCE, OTHER, SCENARIO, SUBJECT, FakeExecutor, checked
from tests.support.fake_worker import TRACE as RECORDED

ELSEWHERE = replace(SUBJECT, target="other", kernel_release="6.12.0")


@dataclass
class Pair:
    """Two fake targets, and the result of comparing their traces."""

    one: FakeExecutor
    other: FakeExecutor
    compared: list[tuple[Trace, Trace]] = field(default_factory=list)

    def compare(self, scenario: Scenario, one: Trace, other: Trace) -> CheckResult:
        """Return the comparison of two traces, as that of releases does."""
        self.compared.append((one, other))
        return replace(checked(OTHER), unchecked={"against: masked": 1})

    def targets(self) -> TargetSet[FakeExecutor]:
        self.other.subject = ELSEWHERE
        return TargetSet([self.one, self.other], self.compare)


def test_names_of_one_target_and_of_two() -> None:
    assert TargetOptions("a", "spec").names == ("a",)
    assert TargetOptions("a", "spec", against="b").names == ("a", "b")


def test_a_machine_is_booted_when_it_is_needed_and_again_after_a_loss() -> None:
    fake = FakeExecutor([checked(), VmLost("fake", "gone"), checked(DIVERGENCE)])
    with TargetSet([fake]) as targets:
        assert (targets.running, fake.boots) == (False, 0)
        assert targets.run_and_check(SCENARIO).checked == checked()
        with pytest.raises(VmLost):
            targets.run_and_check(SCENARIO, fresh_vm=False)
        assert not targets.running
        found = targets.run_and_check(SCENARIO)
        assert signatures(found.checked) == (signature(DIVERGENCE),)
        assert targets.running and fake.boots == targets.boots == 2
        targets.start()
        assert fake.boots == 2, "it is booted already"
    assert not targets.running and fake.fresh == [True, False, True]


def test_a_machine_that_does_not_boot_ends_the_other_one() -> None:
    pair, ended = Pair(FakeExecutor([]), FakeExecutor([])), list[str]()

    @contextmanager
    def boot() -> Iterator[FakeExecutor]:
        yield pair.one
        ended.append("one")

    @contextmanager
    def never() -> Iterator[FakeExecutor]:
        raise VmLost("other", "does not boot")
        yield pair.other

    pair.one.boot, pair.other.boot = boot, never
    with pair.targets() as targets, pytest.raises(VmLost):
        targets.start()
    assert ended == ["one"]


def test_two_targets_are_compared_with_the_model_and_with_each_other() -> None:
    pair = Pair(FakeExecutor([checked(DIVERGENCE)]), FakeExecutor([checked(status="hang")]))
    with pair.targets() as targets:
        each = targets.run_and_check_each(SCENARIO)
    assert [(found.subject, found.other) for found in each] == [
        (SUBJECT, None),
        (ELSEWHERE, None),
        (SUBJECT, ELSEWHERE),
    ]
    assert [found.checked.status for found in each] == ["ok", "hang", "ok"]
    assert set(clusters_of(each)) == {
        (SUBJECT, None, signature(DIVERGENCE)),
        (SUBJECT, ELSEWHERE, signature(OTHER)),
    }
    assert pair.compared == [(RECORDED, RECORDED)]
    assert [set(texts_of(found)) for found in each] == [{TRACE}, {TRACE}, {TRACE, OTHER_TRACE}]
    assert stability_key(each) != stability_key(each[:2])


def test_one_result_for_both_comparisons_has_the_first_targets_relations() -> None:
    pair = Pair(FakeExecutor([checked(DIVERGENCE)]), FakeExecutor([checked(DIVERGENCE)]))
    with pair.targets() as targets:
        found = targets.run_and_check(SCENARIO)
        assert (targets.subject, targets.other) == (found.subject, found.other) == (SUBJECT, ELSEWHERE)
        assert targets.compare_traces(SCENARIO).unchecked == {"against: masked": 1}
    assert signatures(found.checked) == (signature(DIVERGENCE), signature(OTHER))
    assert found.checked.unchecked == {"switch: masked": 1, "against: masked": 1}
    assert found.trace is found.traces[0] and len(found.traces) == 2


def test_boot_again_boots_a_machine_of_the_same_target() -> None:
    pair = Pair(FakeExecutor([]), FakeExecutor([]))
    pair.other.fallen = FakeExecutor([])
    targets = pair.targets()
    with targets.boot_again(ELSEWHERE) as machine:
        assert machine is pair.other.fallen
    assert targets.boots == 0
