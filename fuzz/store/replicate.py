# SPDX-License-Identifier: Apache-2.0
"""Carry findings from the database of one machine into the one that many share: each once, none lost, counts added up.

A machine's workers write to a database of their own, which no network can take from them.  What it has is carried over
repeatedly.  In the shared one ``shares`` says how much of a finding's count came from whom: whatever is carried
twice, because a connection broke when it was committed, is counted once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fuzz.store.database import Access, Database
from fuzz.store.findings import FINDINGS, FLAKY, Entry, Store
from harness.errors import InputError
from harness.findings.finding import to_json
from harness.vm.crash import CRASH, from_text

SHELVES = (FINDINGS, FLAKY)
Key = tuple[str, str]
"""Shelf and id."""
ASK = 4
"""Where so many findings are new, it is asked first which are known there: each one is a transaction of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """The parts of a finding whose change makes it to be carried again.

    ``simplicity`` of its scenario, its ``crash`` report, how many ``examples`` it has and how simple the simplest of
    them is, its ``count``; and when it was ``first_seen``, which does not change.
    """

    simplicity: int
    crash: str
    examples: tuple[int, int]
    count: int
    first_seen: str

    def is_described_as(self, other: Row) -> bool:
        """Whether at most the count differs."""
        return (self.simplicity, self.crash, self.examples) == (other.simplicity, other.crash, other.examples)


class Carrier:
    """Carries the findings of the database ``local`` into ``shared``, as those of ``node``.

    StoreError, InputError: it could not be done now; the next call does all that is left.
    """

    def __init__(self, local: Database, shared: Database, node: str) -> None:
        self._local, self._shared, self._node = local, shared, node
        self._carried: dict[Key, Row] = {}
        self.unreadable: dict[Key, str] = {}
        """Why findings cannot be read here, which are left where they are."""

    @property
    def carried(self) -> frozenset[str]:
        """The ids of all findings that are in the shared database for certain."""
        return frozenset(id_ for _, id_ in self._carried)

    def carry(self, *, counts: bool = True) -> int:
        """Carry what is new or simpler, and with ``counts`` also how often each was seen; return how many."""
        rows = {key: row for key, row in self._rows().items() if key not in self.unreadable}
        new = {key: row for key, row in rows.items() if self._is_new(key, row)}
        if len(new) >= ASK:
            known = self._known(new)
            self._carried |= {key: replace(new.pop(key), count=0) for key in known}
        carried = [key for key, row in new.items() if self._describe(key, row)]
        if not counts:
            return len(carried)
        more = [key for key, row in rows.items() if key in self._carried and self._carried[key] != row]
        if more:
            with self._shared.access(write=True) as access:
                # In one order for all nodes, or two wait for each other.
                _count(access, {key: rows[key].count for key in more}, self._node)
            self._carried |= {key: rows[key] for key in more}
        return len(carried) + len(more)

    def _is_new(self, key: Key, row: Row) -> bool:
        last = self._carried.get(key)
        return last is None or not last.is_described_as(row)

    def _known(self, new: Mapping[Key, Row]) -> list[Key]:
        """Return which of these findings are described there as well already: only their counts are missing."""
        with self._shared.access() as access:
            rows, _ = access.readable_rows("findings", "SELECT shelf, id, simplicity, first_seen FROM findings")
        there = {(row["shelf"], row["id"]): (row["simplicity"], row["first_seen"]) for row in rows}
        found: list[Key] = []
        for key, row in new.items():
            simplicity, first_seen = there.get(key, (row.simplicity + 1, ""))
            if not row.crash and not row.examples[0] and simplicity <= row.simplicity and first_seen <= row.first_seen:
                found.append(key)
        return found

    def _describe(self, key: Key, row: Row) -> bool:
        """Carry all of a finding; return whether it could be read here."""
        shelf, id_ = key
        store = Store(self._local, shelf)
        try:
            entry, texts = store.entry(id_), store.texts(id_)
        except InputError as error:
            self.unreadable[key] = str(error)
            return False
        examples = store.examples_of(id_)
        with self._shared.access(write=True, durable=True) as access:
            _put(access, entry, row, texts)
            for example in examples:
                Store(self._shared, shelf).exemplify(access, id_, example)
            _count(access, {key: row.count}, self._node)
        self._carried[key] = row
        return True

    def _rows(self) -> dict[Key, Row]:
        with self._local.access() as access:
            sql = "SELECT shelf, id, simplicity, count, first_seen FROM findings ORDER BY shelf, id"
            rows, others = access.readable_rows("findings", sql)
            self.unreadable |= {("findings", row.where): row.why for row in others}
            sql = "SELECT shelf, id, text FROM texts WHERE name = :name"
            texts, _ = access.readable_rows("texts", sql, name=CRASH)
            sql = "SELECT shelf, id, COUNT(*) AS n, MIN(simplicity) AS least FROM examples GROUP BY shelf, id"
            some, _ = access.readable_rows("examples", sql)
        crashes = {(text["shelf"], text["id"]): text["text"] for text in texts}
        examples = {(row["shelf"], row["id"]): (row["n"], row["least"]) for row in some}
        found = {}
        for row in rows:
            key = row["shelf"], row["id"]
            some_examples = examples.get(key, (0, 0))
            found[key] = Row(row["simplicity"], crashes.get(key, ""), some_examples, row["count"], row["first_seen"])
        return found


def _put(access: Access, entry: Entry, row: Row, texts: Mapping[str, str]) -> None:
    """Describe a finding, unless it is described better there already."""
    key = {"shelf": entry.shelf, "id": entry.finding.id}
    values = {"document": to_json(entry.finding), "scenario": entry.scenario, "simplicity": row.simplicity}
    new = access.run(
        "INSERT INTO findings (shelf, id, kind, document, scenario, simplicity, count, first_seen, last_seen) "
        "VALUES (:shelf, :id, :kind, :document, :scenario, :simplicity, 0, :first, :last) ON CONFLICT DO NOTHING",
        **key,
        **values,
        **{"kind": entry.finding.kind, "first": entry.first_seen, "last": entry.last_seen},
    ).rowcount
    if not new:
        # It is locked by this: two that carry the same finding come one after the other.
        access.run(
            "UPDATE findings SET first_seen = CASE WHEN first_seen > :first THEN :first ELSE first_seen END, "
            "last_seen = CASE WHEN last_seen < :last THEN :last ELSE last_seen END WHERE shelf = :shelf AND id = :id",
            **key,
            **{"first": entry.first_seen, "last": entry.last_seen},
        )
        sql = "SELECT shelf, id, simplicity FROM findings WHERE shelf = :shelf AND id = :id"
        here, _ = access.readable_rows("findings", sql, **key)
        sql = "SELECT name, text FROM texts WHERE shelf = :shelf AND id = :id AND name = :name"
        crash, _ = access.readable_rows("texts", sql, **key, name=CRASH)
        theirs = crash[0]["text"] if crash else ""
        if here and not is_better((row.crash, row.simplicity), (theirs, here[0]["simplicity"])):
            return
        access.run(
            "UPDATE findings SET document = :document, scenario = :scenario, simplicity = :simplicity "
            "WHERE shelf = :shelf AND id = :id",
            **key,
            **values,
        )
        access.run("DELETE FROM texts WHERE shelf = :shelf AND id = :id", **key)
    for name, body in texts.items():
        sql = "INSERT INTO texts (shelf, id, name, text) VALUES (:shelf, :id, :name, :text)"
        access.run(sql, **key, name=name, text=body)


def is_tried(crash: str) -> bool:
    """Return whether the text of a crash says how often it came back; what cannot be read does not."""
    try:
        return from_text(crash).again is not None
    except (InputError, ValueError):
        return False


def is_reachable(crash: str) -> bool:
    """Return whether the text of a crash names a memory dump that other machines can read, by its URL."""
    try:
        dump = from_text(crash).remains.dump
    except (InputError, ValueError):
        return False
    return dump is not None and "://" in dump.path


def is_better(mine: tuple[str, int], theirs: tuple[str, int]) -> bool:
    """Whether a description is better, each by the text of its crash and how simple its scenario is.

    It says how often the crash came back; or its scenario is simpler; or others can read the memory dump.
    """
    (one, simplicity), (other, least) = mine, theirs
    return (not is_tried(one), simplicity, not is_reachable(one)) < (
        *(not is_tried(other), least, not is_reachable(other)),
    )


def _count(access: Access, counts: Mapping[Key, int], node: str) -> None:
    """Make a node's parts of counts what they are now: with few statements, because others wait for the rows."""
    sql, only = "SELECT node, shelf, id, count FROM shares WHERE node = :node", {"node": node}
    if len(counts) == 1:
        sql += " AND shelf = :shelf AND id = :id"
        only |= dict(zip(("shelf", "id"), next(iter(counts)), strict=True))
    rows, _ = access.readable_rows("shares", sql, **only)
    before = {(row["shelf"], row["id"]): row["count"] for row in rows}
    more = [
        {"node": node, "shelf": key[0], "id": key[1], "count": count, "more": count - before.get(key, 0)}
        for key, count in counts.items()
        if count > before.get(key, 0)
    ]
    access.run_many(
        "INSERT INTO shares (node, shelf, id, count) VALUES (:node, :shelf, :id, :count) "
        "ON CONFLICT (node, shelf, id) DO UPDATE SET count = excluded.count",
        more,
    )
    access.run_many("UPDATE findings SET count = count + :more WHERE shelf = :shelf AND id = :id", more)
