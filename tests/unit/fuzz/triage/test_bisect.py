# SPDX-License-Identifier: Apache-2.0
"""Bisection over releases and emulators, on fake machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.triage.bisect import Outcome, confidence, ends_of_series, search, split_target, target_name
from harness.vm.config import load_config


def test_a_kernel_and_an_emulator_in_one_name() -> None:
    for name in ("kvm-nvhe@6.12.117", "kvm-nvhe@6.12.117%qemu-10.0", "kvm-vhe@7.3%qemu-10.0%max"):
        config, version = split_target(name)
        assert "@" not in config and target_name(config, version) == name == load_config(name).name


VERSIONS = [f"6.{minor}.{patch}" for minor in (1, 12, 16) for patch in range(14)]


class FakeProbe:
    """Returns outcomes from a table and counts the requests."""

    def __init__(self, outcomes: Mapping[str, Outcome | None]) -> None:
        self.outcomes = outcomes
        self.asked: list[str] = []

    def __call__(self, wanted: Sequence[str]) -> Mapping[str, Outcome | None]:
        self.asked += wanted
        return {version: self.outcomes[version] for version in wanted}


@given(st.integers(1, len(VERSIONS) - 1), st.sets(st.sampled_from(VERSIONS), max_size=12))
def test_the_neighbours_of_a_change_are_found_in_few_boots(change: int, broken: set[str]) -> None:
    truth: dict[str, Outcome | None] = {v: ("host.pc",) if i < change else () for i, v in enumerate(VERSIONS)}
    outcomes = {v: None if v in broken else o for v, o in truth.items()}
    probe = FakeProbe(outcomes)
    found = search(VERSIONS, (VERSIONS[0], VERSIONS[-1]), probe)
    ran = [v for v in VERSIONS if v not in broken]
    expected = [(a, b) for a, b in pairwise(ran) if truth[a] != truth[b]]
    if all(v not in broken for v in (VERSIONS[0], VERSIONS[-1])):
        assert [(c.before, c.after) for c in found.changes] == expected
        assert len(probe.asked) <= 2 + 6 + len(broken)
    assert len(set(probe.asked)) == len(probe.asked)


def test_each_series_is_run_at_both_ends() -> None:
    assert ends_of_series(VERSIONS) == ("6.1.0", "6.1.13", "6.12.0", "6.12.13", "6.16.0", "6.16.13")
    # Fixed in the long-term series later than in the newer one.
    fixed = {*VERSIONS[10:14], *VERSIONS[20:28], *VERSIONS[28:]}
    probe = FakeProbe({v: () if v in fixed else ("host.pc",) for v in VERSIONS})
    found = search(VERSIONS, ends_of_series(VERSIONS), probe)
    assert [(c.before, c.after) for c in found.changes] == [
        *(("6.1.9", "6.1.10"), ("6.1.13", "6.12.0"), ("6.12.5", "6.12.6")),
    ]
    assert [c.disappears for c in found.changes] == [("host.pc",), (), ("host.pc",)]
    assert [c.appears for c in found.changes] == [(), ("host.pc",), ()]


def test_the_neighbour_replaces_an_end_that_cannot_run() -> None:
    outcomes: dict[str, Outcome | None] = {v: ("host.pc",) if v < "6.12" else () for v in VERSIONS}
    outcomes |= {VERSIONS[-1]: None, VERSIONS[-2]: None}
    found = search(VERSIONS, (VERSIONS[0], VERSIONS[-1]), FakeProbe(outcomes))
    assert [(c.before, c.after) for c in found.changes] == [("6.1.13", "6.12.0")]


def test_the_search_ends_if_no_kernel_can_run() -> None:
    probe = FakeProbe(dict.fromkeys(VERSIONS))
    assert search(VERSIONS, (VERSIONS[0], VERSIONS[-1]), probe).changes == ()
    assert len(probe.asked) == 2


def test_confidence() -> None:
    assert confidence(5) == pytest.approx(0.96875)
