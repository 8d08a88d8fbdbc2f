# SPDX-License-Identifier: Apache-2.0
"""The corpus of all nodes: for each feature the simplest scenario; no node misses one; a row of nonsense is named."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.shared_corpus import (
    BATCH,
    MAX_BYTES,
    MAX_FEATURE,
    Offer,
    SharedCorpus,
    better_claims,
    checked_offer,
    corpus_key,
)
from harness.errors import InputError
from harness.findings.finding import Subject
from harness.scenario.scenario import Scenario, Step, format_scenario
from tests.support.postgres import server

KEY = corpus_key(Subject("kvm-nvhe", "6.1", "ab" * 32, "spec"))
FORK = multiprocessing.get_context("fork")


def text(steps: int, tag: int = 0) -> str:
    return format_scenario(Scenario(f"Number {tag}.", (), (Step("hvc", (0,)),) * steps))


def offer(steps: int, *features: int, tag: int = 0) -> Offer:
    return Offer(text(steps, tag), frozenset(features))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as found:
        yield found.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return Database(default_url(tmp_path))
    found = Database(request.getfixturevalue("postgres"))
    with found.access(write=True) as access:
        for table in ("corpus", "features", "serials"):
            access.run(f"DELETE FROM {table}")
    return found


def test_claims_go_to_the_simplest() -> None:
    short, long = offer(1, 1, 2), offer(3, 1, 3)
    claims = better_claims([long, short], {})
    assert {claim.feature: claim.offer for claim in claims} == {1: short, 2: short, 3: long}
    weight = claims[0].weight
    assert better_claims([short], {1: ("other", weight), 2: ("other", weight - 1)}) == []
    (claim,) = better_claims([short], {1: ("other", weight + 1), 2: ("other", weight)})
    assert (claim.feature, claim.displaced) == (1, "other")


def test_a_scenario_stays_as_long_as_it_is_the_simplest_for_something(database: Database) -> None:
    corpus = SharedCorpus(database, KEY)
    assert corpus.push([]) == 0 and corpus.size() == (0, 0)
    long, short = offer(5, 1, 2), offer(2, 1)
    assert corpus.push([long]) == 1
    assert corpus.push([long]) == 0, "again"
    assert corpus.push([offer(6, 1, 2)]) == 0, "it covers nothing new"
    first = corpus.fetch(0)
    assert [found.text for found in first.offers] == [long.text]
    assert corpus.push([short]) == 1 and corpus.size() == (2, 2)
    assert corpus.push([offer(1, 2, MAX_FEATURE - 1)]) == 1
    assert corpus.size() == (2, 3), "the long one is the simplest for nothing any more"
    later = corpus.fetch(first.serial)
    assert [found.text for found in later.offers] == [short.text, text(1)]
    assert corpus.fetch(later.serial).offers == () and corpus.fetch(later.serial).serial == later.serial
    assert corpus.features_from(3) == 1
    assert SharedCorpus(database, "another target").fetch(0).offers == ()


def test_who_has_nothing_new_does_not_wait_for_who_pushes(postgres: str) -> None:
    one, other = Database(postgres), Database(postgres)
    SharedCorpus(one, KEY).push([offer(1, 1, 2)])
    with one.access(write=True) as access:
        access.run("SET LOCAL idle_in_transaction_session_timeout = 20000")  # a failure must not hang
        access.run("UPDATE serials SET serial = serial WHERE target = :t", t=KEY)
        assert SharedCorpus(other, KEY).push([offer(1, 1, 2), offer(3, 2)]) == 0


def test_more_than_a_batch_is_fetched_in_order(database: Database) -> None:
    corpus = SharedCorpus(database, KEY)
    assert corpus.push([offer(1, n, tag=n) for n in range(BATCH + 5)]) == BATCH + 5
    first = corpus.fetch(0)
    rest = corpus.fetch(first.serial)
    assert (len(first.offers), len(rest.offers)) == (BATCH, 5)
    assert len({found.hash for found in (*first.offers, *rest.offers)}) == BATCH + 5


def _push_many(url: str, node: int) -> None:
    corpus = SharedCorpus(Database(url), KEY)
    for n in range(20):
        corpus.push([offer(1 + (n + node) % 3, n % 7, 1000 * node + n, tag=1000 * node + n)])


def test_who_asks_again_and_again_misses_none_of_many_writers(database: Database) -> None:
    url = database.url
    corpus = SharedCorpus(database, KEY)
    corpus.size()
    database.close()
    writers = [FORK.Process(target=_push_many, args=(url, node)) for node in range(1, 4)]
    for writer in writers:
        writer.start()
    seen, serial = set(), 0
    while True:
        ended = not any(writer.is_alive() for writer in writers)
        found = corpus.fetch(serial)
        seen |= {each.text for each in found.offers}
        serial = found.serial
        if ended and not found.offers:
            break
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert {each.text for each in SharedCorpus(database, KEY).fetch(0).offers} <= seen
    assert corpus.size() == (60, 67), "each node's 20 scenarios are the only ones for a feature of their own"


@pytest.mark.parametrize("scenario", ["", "no scenario", "x" * (MAX_BYTES + 1), "\ud800", text(1) + "nonsense\n"])
def test_a_row_of_nonsense_is_named_and_the_others_come(scenario: str, tmp_path: Path) -> None:
    database = Database(default_url(tmp_path))
    corpus = SharedCorpus(database, KEY)
    corpus.push([offer(1, 1)])
    with database.access(write=True) as access:
        sql = "INSERT INTO corpus (target, hash, text, simplicity, serial) VALUES (:t, 'bad', :s, 0, 2)"
        access.run(sql, t=KEY, s=scenario)
    corpus.push([offer(2, 3)])
    found = corpus.fetch(0)
    assert [each.text for each in found.offers] == [text(1), text(2)]
    (bad,) = found.unreadable
    assert str(bad).startswith(f"corpus {KEY} bad: ") and "\n" not in str(bad)


@pytest.mark.parametrize("features", [[-1], [MAX_FEATURE], [True], ["1"], [1.0]])
def test_features_that_cannot_be(features: list[int]) -> None:
    with pytest.raises(InputError, match="expected at most"):
        checked_offer(text(1), features, "here")
