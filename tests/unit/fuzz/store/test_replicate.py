# SPDX-License-Identifier: Apache-2.0
"""Carry findings to the database of all: each once, counts added up, whatever breaks on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.store import replicate
from fuzz.store.database import Access, Database, StoreError, default_url
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.store.replicate import Carrier, is_better, is_reachable, is_tried
from harness.errors import Dump
from harness.findings.finding import Tries
from harness.scenario.scenario import Scenario, Step, format_scenario
from harness.vm.crash import CRASH, to_text
from tests.support.kept import REPORT
from tests.unit.harness.findings.test_finding import finding

SMALL = Scenario("Small.", (), (Step("hvc", (0,)),))
LARGE = Scenario("Large.", (("x0", 1),), (Step("hvc", (0,)), Step("wfi")))


def database(root: Path, name: str) -> Database:
    (root / name).mkdir(exist_ok=True)
    return Database(default_url(root / name))


def test_two_nodes_that_find_the_same_make_one(tmp_path: Path) -> None:
    one, two, shared = (database(tmp_path, name) for name in ("one", "two", "shared"))
    Store(one, FINDINGS).add(finding(), LARGE, {"console.txt": "large"}, "leader")
    Store(two, FINDINGS).add(replace(finding(), fresh_vm=Tries(3, 3)), SMALL, {"console.txt": "small"}, "other")
    Store(two, FINDINGS).bump({finding().id: 4}, "2999-01-01")
    carriers = [Carrier(one, shared, "one"), Carrier(two, shared, "two")]
    assert [carrier.carry() for carrier in carriers] == [1, 1]
    assert [carrier.carry() for carrier in carriers] == [0, 0]
    store = Store(shared, FINDINGS)
    entry = store.entry(finding().id)
    assert (entry.count, entry.scenario, entry.finding.fresh_vm) == (6, format_scenario(SMALL), Tries(3, 3))
    assert (entry.first_seen, entry.last_seen) == (finding().first_seen, "2999-01-01")
    assert store.texts(finding().id) == {"console.txt": "small"}
    assert [example.leader for example in store.examples()[finding().id]] == ["leader", "other"]
    assert carriers[0].carried == {finding().id}


def test_counts_are_added_once_whatever_is_repeated(tmp_path: Path) -> None:
    local, shared = database(tmp_path, "one"), database(tmp_path, "shared")
    store = Store(local, FINDINGS)
    store.add(finding(), SMALL)
    Carrier(local, shared, "one").carry()
    store.bump({finding().id: 2}, "2999-01-01")
    carrier = Carrier(local, shared, "one")  # it died, and another process takes its place
    assert carrier.carry() == 1 and carrier.carry() == 0
    assert Store(shared, FINDINGS).count(finding().id) == 3
    store.bump({finding().id: 2}, "2999-01-02")
    assert carrier.carry(counts=False) == 0 and Store(shared, FINDINGS).count(finding().id) == 3
    assert carrier.carry() == 1 and Store(shared, FINDINGS).count(finding().id) == 5


def test_counts_of_many_findings_take_few_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for the rows meanwhile, and each statement may be a way to another machine and back."""
    local, shared = database(tmp_path, "one"), database(tmp_path, "shared")
    store = Store(local, FINDINGS)
    ids = [replace(finding(), signature=("host", f"x{number}")).id for number in range(30)]
    for number in range(30):
        store.add(replace(finding(), signature=("host", f"x{number}")), SMALL)
    carriers = [Carrier(local, shared, node) for node in ("one", "two")]
    for carrier in carriers:
        carrier.carry()
    store.bump(dict.fromkeys(ids, 2), "2999-01-01")
    sent: list[str] = []
    run, run_many = Access.run, Access.run_many
    monkeypatch.setattr(Access, "run", lambda self, sql, **how: (sent.append(sql), run(self, sql, **how))[1])
    monkeypatch.setattr(Access, "run_many", lambda self, sql, rows: (sent.append(sql), run_many(self, sql, rows))[1])
    assert [carrier.carry() for carrier in carriers] == [30, 30]
    assert len([sql for sql in sent if "shares" in sql or "UPDATE" in sql]) <= 2 * 3
    monkeypatch.undo()
    assert {Store(shared, FINDINGS).count(id_) for id_ in ids} == {6}


def test_of_many_findings_only_those_are_described_that_are_not_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on many nodes that begin at once and find what all find."""
    one, two, shared = (database(tmp_path, name) for name in ("one", "two", "shared"))
    many = [replace(finding(), signature=("host", f"x{number}")) for number in range(8)]
    for each in many:
        Store(one, FINDINGS).add(each, LARGE)
    later, earlier = replace(many[3], first_seen="2999-01-01"), replace(many[4], first_seen="1999-01-01")
    for each in (*many[:2], later, earlier, replace(finding(), signature=("host", "new"))):
        Store(two, FINDINGS).add(each, LARGE)
    Store(two, FINDINGS).add(many[5], SMALL)
    Store(two, FINDINGS).add(many[6], LARGE, leader="another")
    Store(two, FINDINGS).add(many[7], LARGE, {CRASH: to_text(REPORT)})
    Carrier(one, shared, "one").carry()
    described: list[str] = []
    put = replicate._put
    monkeypatch.setattr(
        replicate, "_put", lambda access, entry, *how: (described.append(entry.finding.id), put(access, entry, *how))
    )
    carrier = Carrier(two, shared, "two")
    carrier.carry(counts=False)
    new = replace(finding(), signature=("host", "new")).id
    assert set(described) == {new, *(each.id for each in many[4:])}
    assert carrier.carried == set(Store(two, FINDINGS).ids())
    carrier.carry()
    assert carrier.carry() == 0
    store = Store(shared, FINDINGS)
    assert [store.count(each.id) for each in many] == [2, 2, 1, 2, 2, 2, 2, 2] and store.count(new) == 1
    assert store.entry(many[4].id).first_seen == "1999-01-01"


def test_an_example_that_shows_something_else_first_is_carried(tmp_path: Path) -> None:
    local, shared = database(tmp_path, "one"), database(tmp_path, "shared")
    store = Store(local, FINDINGS)
    store.add(finding(), SMALL, leader="one")
    carrier = Carrier(local, shared, "one")
    carrier.carry()
    store.add(finding(), LARGE, leader="two")
    assert carrier.carry(counts=False) == 1
    assert [example.leader for example in Store(shared, FINDINGS).examples()[finding().id]] == ["one", "two"]


def test_what_could_not_be_carried_is_carried_later(tmp_path: Path) -> None:
    local = database(tmp_path, "one")
    Store(local, FINDINGS).add(finding(), SMALL)
    Store(local, FLAKY).add(finding(), SMALL)
    away = Database(f"sqlite:///{tmp_path}/not there/findings.db")
    carrier = Carrier(local, away, "one")
    with pytest.raises(StoreError):
        carrier.carry()
    assert carrier.carried == frozenset()
    (tmp_path / "not there").mkdir()
    assert carrier.carry() == 2 and carrier.carried == {finding().id}
    assert Store(away, FLAKY).count(finding().id) == Store(away, FINDINGS).count(finding().id) == 1


def test_a_crash_that_was_tried_is_described_better(tmp_path: Path) -> None:
    one, two, shared = (database(tmp_path, name) for name in ("one", "two", "shared"))
    tried, untried = to_text(REPORT), to_text(replace(REPORT, again=None))
    assert is_tried(tried) and not is_tried(untried) and not is_tried("") and not is_tried("{}")
    Store(one, FINDINGS).add(finding(), SMALL, {CRASH: untried})
    Store(two, FINDINGS).add(finding(), LARGE, {CRASH: untried})
    for carrier in (first := Carrier(one, shared, "one"), second := Carrier(two, shared, "two")):
        carrier.carry()
    store = Store(shared, FINDINGS)
    assert store.entry(finding().id).scenario == format_scenario(SMALL)
    Store(two, FINDINGS).revise(finding(), LARGE, {CRASH: tried})
    assert second.carry(counts=False) == 1 and first.carry() == 0
    assert store.entry(finding().id).scenario == format_scenario(LARGE) and store.texts(finding().id)[CRASH] == tried


def test_which_description_is_better() -> None:
    tried, untried = to_text(REPORT), to_text(replace(REPORT, again=None))
    reachable = to_text(replace(REPORT, again=None, remains=replace(REPORT.remains, dump=Dump("s3://b/1", 1, 1, 0.1))))
    assert is_better((untried, 1), (untried, 2)) and not is_better((untried, 2), (untried, 2))
    assert is_better((tried, 9), (untried, 2)) and not is_better((untried, 1), (tried, 9))
    assert is_better((reachable, 2), (untried, 2)) and not is_better((untried, 2), (reachable, 2))
    assert is_better((untried, 1), (reachable, 2)) and is_better((tried, 2), (reachable, 2))
    assert is_reachable(reachable) and not is_reachable(tried) and not is_reachable("{}")
