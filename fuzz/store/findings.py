# SPDX-License-Identifier: Apache-2.0
"""Store findings in the database, each in one transaction, and export them as directories.

::

    findings/<kind>-<hash>/scenario.scn    the simplest scenario that showed it (none: the machine did not boot)
                           finding.json    harness.findings.finding
                           count           the number of scenarios that showed it, decimal
                           trace.json      the recorded trace (harness.trace.tracefile)
                           other-trace.json  the trace of the second target, if two were compared
                           target.toml      the target, as a file for --target; other-target.toml: the second
                           confirmed_on.txt  if the campaign ran on the fast QEMU: which QEMU confirmed it
                           console.txt     of a crash: the end of the console
                           crash.json      and the state of the machine (harness.vm.crash)
                           earlier-01.scn  and the scenarios that ran before, 01 the last one

The database is the store; directories are written from it and never read back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.store.database import Access, Database, Unreadable, name_of
from harness.errors import InputError
from harness.findings.finding import Finding, from_json, to_json
from harness.findings.problems import Example
from harness.scenario.scenario import Scenario, format_scenario
from harness.scenario.simplify import simplicity
from harness.vm.config_text import OTHER_TARGET, TARGET

FINDINGS, FLAKY = "findings", "flaky"
"""The shelves: confirmed findings, and those that were not reproduced."""
SCENARIO, FINDING, COUNT, TRACE = "scenario.scn", "finding.json", "count", "trace.json"
OTHER_TRACE = "other-trace.json"
CONSOLE = "console.txt"
CONFIRMED_ON = "confirmed_on.txt"
"""Name of the text that says on which QEMU a finding of the fast one was confirmed."""
FRESH_QEMU = "fresh_qemu"
"""Name of the text with the reproductions in fresh QEMUs: hits and runs, if that was tried."""
ELSEWHERE = "elsewhere"
"""Name of the text with the results of other emulators (fuzz.triage.other_emulators), if any was tried."""


FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of texts that are exported as files: they cannot leave the finding's directory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored finding: ``scenario`` is text, ``count`` the number of scenarios that showed it, dates are ISO 8601."""

    shelf: str
    finding: Finding
    scenario: str | None
    count: int
    first_seen: str
    last_seen: str


class Store:
    """One shelf of findings; any number of processes may use it at once.

    StoreError (an OSError): disk full, read-only; nothing was written.  InputError: it cannot be read.
    """

    def __init__(self, database: Database, shelf: str) -> None:
        self._database = database
        self.shelf = shelf

    def __contains__(self, id_: str) -> bool:
        return id_ in self.ids()

    def add(
        self,
        finding: Finding,
        scenario: Scenario | None,
        extra: Mapping[str, str] | None = None,
        leader: str = "",
    ) -> bool:
        """Store a finding and return True; if its cluster is stored already, add one to its count and return False.

        A simpler scenario replaces the stored one, with its texts and tries.  ``leader`` is the cluster that the
        scenario shows first: one scenario of each leader is stored (:mod:`harness.findings.problems`).
        """
        text = None if scenario is None else format_scenario(scenario)
        weight = 0 if scenario is None else simplicity(scenario)
        with self._database.access(write=True, durable=True) as access:
            key = {"shelf": self.shelf, "id": finding.id}
            values = {"document": to_json(finding), "scenario": text, "simplicity": weight}
            # Insert the row first, unless it exists: this locks it against other writers of the same cluster.
            new = access.run(
                "INSERT INTO findings (shelf, id, kind, document, scenario, simplicity, count, first_seen, last_seen) "
                "VALUES (:shelf, :id, :kind, :document, :scenario, :simplicity, 0, :now, :now) ON CONFLICT DO NOTHING",
                **key,
                **values,
                **{"kind": finding.kind, "now": finding.first_seen},
            ).rowcount
            self._bump(access, finding.id, finding.first_seen)
            if leader and text is not None:
                self.exemplify(access, finding.id, Example(leader, text, weight))
            if not new:
                sql = "SELECT simplicity FROM findings WHERE shelf = :shelf AND id = :id"
                here, _ = access.readable_rows("findings", sql, **key)
                if here and weight >= here[0]["simplicity"]:
                    return False
                access.run(
                    "UPDATE findings SET document = :document, scenario = :scenario, simplicity = :simplicity "
                    "WHERE shelf = :shelf AND id = :id",
                    **key,
                    **values,
                )
                access.run("DELETE FROM texts WHERE shelf = :shelf AND id = :id", **key)
            self._attach(access, finding.id, extra or {})
        return bool(new)

    def exemplify(self, access: Access, id_: str, example: Example) -> None:
        """Keep a scenario that shows a leader first, in an open transaction, unless a simpler one is there."""
        access.run(
            "INSERT INTO examples (shelf, id, leader, example, simplicity) "
            "VALUES (:shelf, :id, :leader, :scenario, :simplicity) ON CONFLICT (shelf, id, leader) DO UPDATE "
            "SET example = excluded.example, simplicity = excluded.simplicity "
            "WHERE excluded.simplicity < examples.simplicity",
            **{"shelf": self.shelf, "id": id_, **example._asdict()},
        )

    def examples(self) -> dict[str, tuple[Example, ...]]:
        """Return the scenarios of each finding, one for each leading cluster.

        Findings without a scenario and rows that cannot be read are left out.
        """
        return self.readable_examples()[0]

    def examples_of(self, id_: str) -> tuple[Example, ...]:
        """Return the scenarios of one finding; rows that cannot be read are left out."""
        return self._examples("AND id = :id", id=id_)[0].get(id_, ())

    def readable_examples(self) -> tuple[dict[str, tuple[Example, ...]], tuple[Unreadable, ...]]:
        """Return :meth:`examples`, and the rows that cannot be read."""
        return self._examples("")

    def _examples(self, condition: str, **values: str) -> tuple[dict[str, tuple[Example, ...]], tuple[Unreadable, ...]]:
        sql = (
            f"SELECT id, leader, example, simplicity FROM examples WHERE shelf = :shelf {condition} ORDER BY id, leader"
        )
        with self._database.access() as access:
            rows, others = access.readable_rows("examples", sql, shelf=self.shelf, **values)
        found: dict[str, tuple[Example, ...]] = {}
        for row in rows:
            example = Example(row["leader"], row["example"], row["simplicity"])
            found[row["id"]] = (*found.get(row["id"], ()), example)
        return found, tuple(others)

    def revise(self, finding: Finding, scenario: Scenario, extra: Mapping[str, str], leader: str = "") -> None:
        """Replace the scenario and the texts of a stored finding.

        ``leader``: as in :meth:`add`.
        """
        text, weight = format_scenario(scenario), simplicity(scenario)
        key = {"shelf": self.shelf, "id": finding.id}
        with self._database.access(write=True, durable=True) as access:
            access.run(
                "UPDATE findings SET document = :document, scenario = :scenario, simplicity = :simplicity "
                "WHERE shelf = :shelf AND id = :id",
                **key,
                **{"document": to_json(finding), "scenario": text, "simplicity": weight},
            )
            if leader:
                self.exemplify(access, finding.id, Example(leader, text, weight))
            # The target is the same.
            sql = "DELETE FROM texts WHERE shelf = :shelf AND id = :id AND name NOT IN (:one, :other)"
            access.run(sql, **key, one=TARGET, other=OTHER_TARGET)
            self._attach(access, finding.id, extra)

    def annotate(self, id_: str, name: str, text: str) -> None:
        """Store a text with an existing finding; replace a text of the same name."""
        with self._database.access(write=True, durable=True) as access:
            sql = "DELETE FROM texts WHERE shelf = :shelf AND id = :id AND name = :name"
            access.run(sql, shelf=self.shelf, id=id_, name=name)
            self._attach(access, id_, {name: text})

    def _attach(self, access: Access, id_: str, texts: Mapping[str, str]) -> None:
        for name, body in texts.items():
            access.run(
                "INSERT INTO texts (shelf, id, name, text) VALUES (:shelf, :id, :name, :text)",
                **{"shelf": self.shelf, "id": id_, "name": name, "text": body},
            )

    def bump(self, times: Mapping[str, int], now: str) -> None:
        """Add ``times`` members to the counts of clusters; the last ones were observed at ``now`` (ISO 8601)."""
        with self._database.access(write=True) as access:
            for id_, more in times.items():
                self._bump(access, id_, now, more)

    def _bump(self, access: Access, id_: str, now: str, times: int = 1) -> None:
        access.run(
            "UPDATE findings SET count = count + :times, last_seen = :now WHERE shelf = :shelf AND id = :id",
            **{"times": times, "now": now, "shelf": self.shelf, "id": id_},
        )

    def count(self, id_: str) -> int:
        """Return the number of scenarios that showed a cluster; 0 if it is not stored."""
        with self._database.access() as access:
            sql = "SELECT count FROM findings WHERE shelf = :shelf AND id = :id"
            return next((int(row["count"]) for row in access.rows(sql, shelf=self.shelf, id=id_)), 0)

    def simplicities(self) -> dict[str, int]:
        """Return the stored clusters, sorted, each with the simplicity of its scenario (less is simpler).

        Rows whose id or simplicity cannot be read are left out: their clusters may be found again.
        """
        with self._database.access() as access:
            sql = "SELECT id, simplicity FROM findings WHERE shelf = :shelf ORDER BY id"
            rows, _ = access.readable_rows("findings", sql, shelf=self.shelf)
            return {row["id"]: row["simplicity"] for row in rows}

    def ids(self) -> tuple[str, ...]:
        """Return the ids of the stored clusters, sorted; a row without a readable id is left out."""
        with self._database.access() as access:
            sql = "SELECT id FROM findings WHERE shelf = :shelf ORDER BY id"
            return tuple(row["id"] for row in access.readable_rows("findings", sql, shelf=self.shelf)[0])

    def load(self, id_: str) -> Finding:
        """Read a finding.  InputError: it is not stored, or its document was changed to that of another one."""
        return self.entry(id_).finding

    def entry(self, id_: str) -> Entry:
        """Read a finding with its scenario and counts.  InputError: as :meth:`load`."""
        with self._database.access() as access:
            sql = "SELECT * FROM findings WHERE shelf = :shelf AND id = :id"
            rows = access.rows(sql, shelf=self.shelf, id=id_)
        if not rows:
            raise InputError(id_, None, f"no such finding in {self._database.url}")
        return self._entry(rows[0], f"{self._database.url} {id_}")

    def _entry(self, row: Mapping[str, Any], where: str) -> Entry:
        finding = from_json(row["document"], where)
        if finding.id != row["id"]:
            raise InputError(where, None, f"another finding's document: that of {finding.id}")
        return Entry(self.shelf, finding, row["scenario"], row["count"], row["first_seen"], row["last_seen"])

    def read(self) -> tuple[tuple[tuple[Entry, Mapping[str, str]], ...], tuple[Unreadable, ...]]:
        """Return every finding with its texts, sorted by id, and the rows that cannot be read."""
        with self._database.access() as access:
            sql = "SELECT * FROM findings WHERE shelf = :shelf ORDER BY id"
            rows, others = access.readable_rows("findings", sql, shelf=self.shelf)
            sql = "SELECT id, name, text FROM texts WHERE shelf = :shelf ORDER BY id, name"
            texts, more = access.readable_rows("texts", sql, shelf=self.shelf)
        of: dict[str, dict[str, str]] = {}
        for text in texts:
            of.setdefault(text["id"], {})[text["name"]] = text["text"]
        entries = []
        for row in rows:
            where = name_of("findings", {"shelf": self.shelf, "id": row["id"]})
            try:
                entries.append((self._entry(row, where), of.get(row["id"], {})))
            except InputError as error:
                others.append(Unreadable(where, error.reason))
        return tuple(entries), (*others, *more)

    def texts(self, id_: str) -> Mapping[str, str]:
        """Return the texts of a finding, by name; a text that cannot be read is left out."""
        with self._database.access() as access:
            sql = "SELECT name, text FROM texts WHERE shelf = :shelf AND id = :id ORDER BY name"
            rows, _ = access.readable_rows("texts", sql, shelf=self.shelf, id=id_)
            return {row["name"]: row["text"] for row in rows}

    def _readable(self, ids: Iterable[str]) -> Iterator[tuple[Entry, Mapping[str, str]]]:
        """Yield those of some findings that are there and can be read, with their texts."""
        for id_ in ids:
            with suppress(InputError):
                yield self.entry(id_), self.texts(id_)

    def export(self, root: Path, only: Collection[str] | None = None) -> None:
        """Write every readable finding as a directory below ``root``, over existing ones.

        ``only``: their ids (None: all).  OSError: it cannot be written.
        """
        for entry, texts in self.read()[0] if only is None else self._readable(only):
            place = root / entry.finding.id
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            files = {FINDING: to_json(entry.finding), COUNT: f"{entry.count}\n", **texts}
            if entry.scenario is not None:
                files[SCENARIO] = entry.scenario
            for name, text in files.items():
                if FILE_NAME.fullmatch(name):
                    (place / name).write_text(text, encoding="utf-8", newline="")
