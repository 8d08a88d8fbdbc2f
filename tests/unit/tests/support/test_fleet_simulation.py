# SPDX-License-Identifier: Apache-2.0
"""The simulation of many nodes: it meets what was measured, nothing gets lost in it, what is asked is bounded."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from fuzz.cluster.totals import LEAST_SECONDS, LOOKS_A_SECOND, REPORTS_A_SECOND
from tests.support.fleet_simulation import (
    KNOWN,
    NEW,
    RATES,
    Steps,
    Tally,
    Transaction,
    changes,
    discoveries,
    found_by,
    lines,
    play,
    push_seconds,
    rates_of_scenarios,
    simulate,
)
from tests.support.paths import ROOT


def test_finds_meet_what_was_measured() -> None:
    assert found_by(2 * 60) == pytest.approx(2 * 60 * 2.5) and found_by(2 * 300) == pytest.approx(2 * 300 * 0.7)
    rates = rates_of_scenarios()
    assert all(one > other for one, other in pairwise(rates)) and len(rates) == 6838
    for nodes, seconds in ((1, 120.0), (2, 300.0), (20, 60.0)):
        found = {scenario for each in discoveries(nodes, seconds, random.Random(1)) for _, scenario in each}
        assert len(found) == pytest.approx(found_by(nodes * seconds), rel=0.1)
    in_first_minute = [at for at, _ in changes(300, random.Random(1)) if at < 60]
    assert len(in_first_minute) == pytest.approx(60 * (12 - 2 / LEAST_SECONDS), rel=0.1)


def test_costs_meet_what_was_measured() -> None:
    for size in (1, 100):
        for what in (NEW, KNOWN):
            assert push_seconds(size, what) == pytest.approx(RATES[f"push of {size} {what}"].value / 1e3)
    assert push_seconds(50, KNOWN) < push_seconds(50, NEW)


def test_who_asks_for_a_lock_first_has_it_first() -> None:
    ended: list[tuple[str, float]] = []

    def node(name: str, begin: float, lock: str) -> Steps:
        yield Transaction(0)
        yield Transaction(begin)
        now = yield Transaction(10, "push", lock)
        ended.append((name, now))
        yield Transaction(0)

    tally = Tally()
    play([node("late", 2, "a"), node("early", 1, "a"), node("other", 3, "b")], tally)
    assert ended == [("early", 11), ("other", 13), ("late", 21)]
    assert sorted(tally.waits["push"]) == [0, 0, 9] and tally.times["push", 0] == 3 and tally.busy[0] == 30


@pytest.mark.parametrize(("nodes", "targets"), [(1, 1), (7, 3), (60, 1)])
def test_every_scenario_arrives_at_every_node(nodes: int, targets: int) -> None:
    run = simulate(nodes, targets, minutes=2)
    assert len(run.latencies()) > 100 and max(run.latencies()) < 60
    for corpus in run.corpora:
        assert set(corpus.rows) == set(corpus.had) and len(corpus.rows) == len(set(corpus.rows))


def test_it_is_a_function_of_its_seed() -> None:
    one, same, other = (simulate(5, 1, 2, seed) for seed in (1, 1, 2))
    assert one.row(0) == same.row(0) and one.latencies() == same.latencies() != other.latencies()


def test_what_is_asked_of_all_nodes_together_is_bounded() -> None:
    for nodes in (1, 100, 400):
        run = simulate(nodes, 4 if nodes > 4 else 1, minutes=2)
        row = run.row(1)
        assert float(row["reports/s"]) <= REPORTS_A_SECOND
        assert float(row["looks/s"]) <= min(nodes / LEAST_SECONDS, LOOKS_A_SECOND) * 1.05
        assert float(row["pushes/s"]) <= float(row["looks/s"]), "a node pushes once before it looks"


def test_the_page_has_its_tables() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    missing = [line for line in lines([(1, 1), (10, 1)], 10) if line not in page]
    assert not missing, "python -m tests.support.fleet_simulation prints the tables of docs/cluster.md"
