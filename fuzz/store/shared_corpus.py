# SPDX-License-Identifier: Apache-2.0
"""The corpus of a campaign on many machines, in its database: for each feature the simplest scenario that covers it.

A *feature* is a number for something that was covered (:mod:`fuzz.campaign.offers`).  A scenario stays as long as it is
the simplest one known for at least one feature, so that a target has at most as many scenarios as features.  Scenarios
have serial numbers in the order of their commits: a node that has seen number n asks for those above n.

The database is untrusted input: a row is a text of limited size that must parse as a scenario, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from fuzz.store.database import Access, Database, Unreadable, name_of
from harness.errors import InputError
from harness.findings.finding import Subject
from harness.scenario.scenario import parse
from harness.scenario.simplify import simplicity

MAX_BYTES = 10240
"""The largest input of a campaign, and the largest scenario that is exchanged, in bytes: enough for 200 steps and every
register."""
MAX_FEATURE = 1 << 32
"""Features are less than that."""
MAX_FEATURES = 1 << 15
"""So many features of one scenario count at most: the model has 16 384, and a target's map of edges as many places."""
BATCH = 200
"""So many scenarios are fetched at once."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A scenario, as text, and features that it covers."""

    text: str
    features: frozenset[int]

    @property
    def hash(self) -> str:
        """The scenario's name: SHA-1 of its text, as libFuzzer names files."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Fetched:
    """Scenarios of others: ``offers`` without features, the serial number to go on from, and rows that are wrong."""

    offers: tuple[Offer, ...]
    serial: int
    unreadable: tuple[Unreadable, ...] = ()


class Claim(NamedTuple):
    """A feature that a scenario takes from the one that had it (its hash; empty: none had)."""

    feature: int
    offer: Offer
    weight: int
    displaced: str


def better_claims(offers: Iterable[Offer], holders: Mapping[int, tuple[str, int]]) -> list[Claim]:
    """Return which features go to which offer; ``holders`` are the hash and the simplicity of who has them now."""
    best: dict[int, Claim] = {}
    for offer in offers:
        weight = simplicity(parse(offer.text.encode()))
        for feature in offer.features:
            holder, least = holders.get(feature, ("", weight + 1))
            if weight < (best[feature].weight if feature in best else least):
                best[feature] = Claim(feature, offer, weight, holder)
    return [best[feature] for feature in sorted(best)]


def corpus_key(subject: Subject) -> str:
    """Return what the corpus of a target is called: coverage is of its kernel, and of the model's level."""
    return f"{subject.target} {subject.kernel_sha256[:16]} {subject.level}"


def checked_offer(text: str, features: Iterable[int], where: str) -> Offer:
    """Return an offer that can be taken.  InputError: no scenario, too large, or features that cannot be."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise InputError(where, None, f"more than {MAX_BYTES} bytes, expected a scenario")
    try:
        parse(text.encode(errors="replace"))
    except InputError as error:
        raise InputError(where, None, f"no scenario: {error.reason}") from error
    found = frozenset(features)
    if len(found) > MAX_FEATURES or any(type(each) is not int or not 0 <= each < MAX_FEATURE for each in found):
        raise InputError(where, None, f"expected at most {MAX_FEATURES} features, each less than {MAX_FEATURE}")
    return Offer(text, found)


def _batched(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(numbers)
    while some := list(islice(left, size)):
        yield some


class SharedCorpus:
    """The corpus of one target.  StoreError: it cannot be written.  InputError: it cannot be read."""

    def __init__(self, database: Database, key: str) -> None:
        self._database, self._key = database, key

    def push(self, offers: Sequence[Offer]) -> int:
        """Add scenarios that are new for a feature, or the simplest for one; return how many were taken.

        Any number of processes may do this at once.  Doing it again changes nothing.
        """
        with self._database.access(write=True) as access:
            # Who has nothing new takes no lock: all nodes begin with the same scenarios.
            new = list({claim.offer.hash: claim.offer for claim in self._claims(access, offers)}.values())
            if not new:
                return 0
            serial = self._lock(access)
            claims = self._claims(access, new)
            self._claim(access, claims)
            taken = {claim.offer.hash: (claim.offer, claim.weight) for claim in claims}
            for offer, weight in taken.values():
                serial += 1
                self._insert(access, offer, weight, serial)
            for hash_ in sorted({claim.displaced for claim in claims if claim.displaced}):
                self._drop(access, hash_)
            sql = "UPDATE serials SET serial = :serial WHERE target = :target"
            access.run(sql, serial=serial, target=self._key)
        return len(taken)

    def _lock(self, access: Access) -> int:
        """Return the last serial number; others that push to this target wait for the end of this transaction."""
        access.run("INSERT INTO serials (target, serial) VALUES (:t, 0) ON CONFLICT DO NOTHING", t=self._key)
        sql = "UPDATE serials SET serial = serial WHERE target = :t RETURNING serial"
        return int(access.rows(sql, t=self._key)[0]["serial"])

    def _claims(self, access: Access, offers: Sequence[Offer]) -> list[Claim]:
        wanted = frozenset[int]().union(*(offer.features for offer in offers))
        return better_claims(offers, self._holders(access, wanted))

    def _holders(self, access: Access, wanted: Iterable[int]) -> dict[int, tuple[str, int]]:
        """Return which scenario has each of these features, and how simple it is."""
        found: dict[int, tuple[str, int]] = {}
        for some in _batched(sorted(wanted), 500):
            numbers = ", ".join(map(str, some))
            sql = f"SELECT feature, hash, simplicity FROM features WHERE target = :t AND feature IN ({numbers})"
            rows, _ = access.readable_rows("features", sql, t=self._key)
            found |= {row["feature"]: (row["hash"], row["simplicity"]) for row in rows}
        return found

    def _claim(self, access: Access, claims: Sequence[Claim]) -> None:
        access.run_many(
            "INSERT INTO features (target, feature, hash, simplicity) VALUES (:target, :feature, :hash, :simplicity) "
            "ON CONFLICT (target, feature) DO UPDATE SET hash = excluded.hash, simplicity = excluded.simplicity",
            [{"target": self._key, "feature": c.feature, "hash": c.offer.hash, "simplicity": c.weight} for c in claims],
        )

    def _insert(self, access: Access, offer: Offer, weight: int, serial: int) -> None:
        access.run(
            "INSERT INTO corpus (target, hash, text, simplicity, serial) "
            "VALUES (:target, :hash, :text, :simplicity, :serial) ON CONFLICT (target, hash) DO NOTHING",
            **{"target": self._key, "hash": offer.hash, "text": offer.text, "simplicity": weight, "serial": serial},
        )

    def _drop(self, access: Access, hash_: str) -> None:
        """Remove a scenario that is the simplest one for nothing any more."""
        access.run(
            "DELETE FROM corpus WHERE target = :target AND hash = :hash AND NOT EXISTS "
            "(SELECT 1 FROM features WHERE features.target = :target AND features.hash = :hash)",
            **{"target": self._key, "hash": hash_},
        )

    def fetch(self, after: int) -> Fetched:
        """Return scenarios above a serial number, the lowest first, at most :data:`BATCH`."""
        with self._database.access() as access:
            sql = (
                "SELECT target, hash, text, serial FROM corpus WHERE target = :target AND serial > :after "
                "ORDER BY serial LIMIT :most"
            )
            rows, wrong = access.readable_rows("corpus", sql, target=self._key, after=after, most=BATCH)
        offers, unreadable = [], list(wrong)
        for row in rows:
            try:
                offers.append(checked_offer(row["text"], (), name_of("corpus", row)))
            except InputError as error:
                unreadable.append(Unreadable(error.where, error.reason))
        return Fetched(tuple(offers), max((row["serial"] for row in rows), default=after), tuple(unreadable))

    def size(self) -> tuple[int, int]:
        """Return how many scenarios there are, and how many features they cover."""
        return self._count("corpus"), self._count("features")

    def features_from(self, least: int) -> int:
        """Return how many features there are that are no less than a number."""
        with self._database.access() as access:
            sql = "SELECT COUNT(*) AS n FROM features WHERE target = :target AND feature >= :least"
            return int(access.run(sql, target=self._key, least=least).scalar() or 0)

    def _count(self, table: str) -> int:
        with self._database.access() as access:
            sql = f"SELECT COUNT(*) FROM {table} WHERE target = :target"
            return int(access.run(sql, target=self._key).scalar() or 0)
