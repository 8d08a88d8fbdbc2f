# SPDX-License-Identifier: Apache-2.0
"""Two nodes exchange what their workers covered first; what is wrong is counted and goes no further."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.campaign.offers import OFFERS, Offers
from fuzz.cluster.exchange import Exchange, improvements, sentences
from fuzz.store.database import Database, default_url
from fuzz.store.shared_corpus import Offer, SharedCorpus
from harness.errors import InputError
from harness.scenario.scenario import Scenario, Step, format_scenario


def scenario(steps: int) -> Scenario:
    return Scenario("It.", (), (Step("hvc", (0,)),) * steps)


def node(root: Path, name: str, database: Database) -> tuple[Exchange, Path]:
    place = root / name
    for directory in (OFFERS, "corpus"):
        (place / directory).mkdir(parents=True)
    return Exchange(SharedCorpus(database, "target"), place / OFFERS, place / "corpus"), place


def test_what_one_covers_first_comes_to_the_other(tmp_path: Path) -> None:
    database = Database(default_url(tmp_path))
    (one, here), (two, there) = (node(tmp_path, name, database) for name in ("one", "two"))
    worker = Offers(here / OFFERS)
    worker(scenario(2), {1, 2})
    worker(scenario(3), {1, 2})  # nothing new
    worker(scenario(1), {3})
    assert len(list((here / OFFERS).iterdir())) == 2
    for exchange in (one, two):
        exchange.collect()
        exchange.push()
        exchange.fetch()
    assert list((here / OFFERS).iterdir()) == []
    texts = {path.read_text() for path in (there / "corpus").iterdir()}
    assert texts == {format_scenario(scenario(2)), format_scenario(scenario(1))}
    assert two.fetch() == 0 and two.counts["scenarios fetched"] == 2 and one.counts["scenarios pushed"] == 2
    # A worker there runs them, and offers them as new to itself; they are not new to all.
    worker = Offers(there / OFFERS)
    worker(scenario(2), {1, 2})
    two.collect()
    two.push()
    assert two.counts["scenarios pushed"] == 0 and SharedCorpus(database, "target").size() == (2, 3)


def test_what_waits_is_pushed_when_the_database_is_back(tmp_path: Path) -> None:
    away = tmp_path / "away"
    database = Database(default_url(away))
    exchange, here = node(tmp_path, "one", database)
    Offers(here / OFFERS)(scenario(1), {1})
    exchange.collect()
    with pytest.raises(OSError, match="unable to open"):
        exchange.push()
    with pytest.raises(InputError, match="cannot be read"):
        exchange.fetch()
    away.mkdir()
    exchange.push()
    assert exchange.counts["scenarios pushed"] == 1 and exchange.fetch() == 1


def test_what_is_no_offer_is_counted(tmp_path: Path) -> None:
    exchange, here = node(tmp_path, "one", Database(default_url(tmp_path)))
    good = format_scenario(scenario(1))
    rows = ["", "[]", '{"scenario": 1}', {"scenario": "x", "features": []}, {"scenario": good, "features": [-1]}]
    for number, row in enumerate([*rows, {"scenario": good, "features": 5}, {"scenario": good, "features": [4]}]):
        (here / OFFERS / f"{number}.json").write_text(row if isinstance(row, str) else json.dumps(row))
    exchange.collect()
    exchange.push()
    assert exchange.counts["offers that cannot be read"] == 6 and exchange.counts["scenarios pushed"] == 1
    assert "offers that cannot be read: 6" in sentences(exchange.counts)


def test_what_of_an_offer_is_better() -> None:
    offer = Offer(format_scenario(scenario(2)), frozenset({1, 2, 3}))
    weight = improvements(offer, {})[1]
    assert improvements(offer, {1: weight, 2: weight + 1}) == {2: weight, 3: weight}
