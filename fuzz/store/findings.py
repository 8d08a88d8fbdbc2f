# SPDX-License-Identifier: Apache-2.0
"""Findings in the database: whole or not there at all, however the writer ends; and their export as directories.

::

    findings/<kind>-<hash>/scenario.scn    the simplest scenario that showed it (none: the machine did not boot)
                           finding.json    harness.findings.finding
                           count           how many scenarios showed it so far, decimal
                           trace.json      what was recorded (harness.trace.tracefile)
                           other-trace.json  what the second target recorded, where two were compared
                           target.toml      the target, as a file that --target takes; other-target.toml: the second
                           console.txt     of a crash: the end of the console
                           crash.json      and what was taken from the machine (harness.vm.crash)
                           earlier-01.scn  and what ran before, 01 the last one

The database is the store; directories are written from it and never read back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
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
"""The shelves: what was confirmed, and what did not come back."""
SCENARIO, FINDING, COUNT, TRACE = "scenario.scn", "finding.json", "count", "trace.json"
OTHER_TRACE = "other-trace.json"
CONSOLE = "console.txt"
FRESH_QEMU = "fresh_qemu"
"""The text that says how often a finding came back in a fresh QEMU: hits and runs, if that was tried."""
ELSEWHERE = "elsewhere"
"""The text that says what other emulators showed of a finding (fuzz.triage.other_emulators), if any was tried."""


FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a text is called that becomes a file of its finding's directory: nothing outside it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A finding as it is kept: ``scenario`` is text, ``count`` the scenarios that showed it, dates are ISO 8601."""

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
        """Keep a finding and return True; if its cluster is there already, count one more and return False.

        A simpler scenario takes the place of the one that is there, with its texts and tries.  ``leader`` is the
        cluster that the scenario shows first: a scenario of each is kept (:mod:`harness.findings.problems`).
        """
        text = None if scenario is None else format_scenario(scenario)
        weight = 0 if scenario is None else simplicity(scenario)
        with self._database.access(write=True, durable=True) as access:
            key = {"shelf": self.shelf, "id": finding.id}
            values = {"document": to_json(finding), "scenario": text, "simplicity": weight}
            # First the row, whoever makes it: from here on it is locked, for others that add to the same cluster.
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
                here, _ = access.sound_rows("findings", sql, **key)
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
        """Return the scenarios of each finding that differ in what they show first.

        Findings without any are left out, and so are rows that cannot be read.
        """
        return self.sound_examples()[0]

    def sound_examples(self) -> tuple[dict[str, tuple[Example, ...]], tuple[Unreadable, ...]]:
        """Return :meth:`examples`, and the rows that cannot be read."""
        with self._database.access() as access:
            sql = "SELECT id, leader, example, simplicity FROM examples WHERE shelf = :shelf ORDER BY id, leader"
            rows, others = access.sound_rows("examples", sql, shelf=self.shelf)
        found: dict[str, tuple[Example, ...]] = {}
        for row in rows:
            example = Example(row["leader"], row["example"], row["simplicity"])
            found[row["id"]] = (*found.get(row["id"], ()), example)
        return found, tuple(others)

    def revise(self, finding: Finding, scenario: Scenario, extra: Mapping[str, str], leader: str = "") -> None:
        """Describe a finding that is there by another scenario and other texts, whatever was known of it before.

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
        """Put a text with a finding that is there, in place of one of that name."""
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
        """Count more members of clusters, so many each, the last of them seen at ``now`` (ISO 8601)."""
        with self._database.access(write=True) as access:
            for id_, more in times.items():
                self._bump(access, id_, now, more)

    def _bump(self, access: Access, id_: str, now: str, times: int = 1) -> None:
        access.run(
            "UPDATE findings SET count = count + :times, last_seen = :now WHERE shelf = :shelf AND id = :id",
            **{"times": times, "now": now, "shelf": self.shelf, "id": id_},
        )

    def count(self, id_: str) -> int:
        """Return how many scenarios showed a cluster; 0 if it is not there."""
        with self._database.access() as access:
            sql = "SELECT count FROM findings WHERE shelf = :shelf AND id = :id"
            return next((int(row["count"]) for row in access.rows(sql, shelf=self.shelf, id=id_)), 0)

    def simplicities(self) -> dict[str, int]:
        """Return the clusters that are there, sorted, each with how simple its scenario is (less is simpler).

        Rows in which these cannot be read are left out: what they are of may be found again.
        """
        with self._database.access() as access:
            sql = "SELECT id, simplicity FROM findings WHERE shelf = :shelf ORDER BY id"
            rows, _ = access.sound_rows("findings", sql, shelf=self.shelf)
            return {row["id"]: row["simplicity"] for row in rows}

    def ids(self) -> tuple[str, ...]:
        """Return the clusters that are there, sorted; a row without a readable id is left out."""
        with self._database.access() as access:
            sql = "SELECT id FROM findings WHERE shelf = :shelf ORDER BY id"
            return tuple(row["id"] for row in access.sound_rows("findings", sql, shelf=self.shelf)[0])

    def load(self, id_: str) -> Finding:
        """Read a finding.  InputError: it is not there, or somebody changed it into something else."""
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
            rows, others = access.sound_rows("findings", sql, shelf=self.shelf)
            sql = "SELECT id, name, text FROM texts WHERE shelf = :shelf ORDER BY id, name"
            texts, more = access.sound_rows("texts", sql, shelf=self.shelf)
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
        """Return the texts that belong to a finding, by name; what cannot be read is left out."""
        with self._database.access() as access:
            sql = "SELECT name, text FROM texts WHERE shelf = :shelf AND id = :id ORDER BY name"
            rows, _ = access.sound_rows("texts", sql, shelf=self.shelf, id=id_)
            return {row["name"]: row["text"] for row in rows}

    def export(self, root: Path, only: Collection[str] | None = None) -> None:
        """Write every finding that can be read as a directory below ``root``, over what is there.

        ``only``: their ids (None: all).  OSError: it cannot be written.
        """
        for entry, texts in self.read()[0]:
            if only is not None and entry.finding.id not in only:
                continue
            place = root / entry.finding.id
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            files = {FINDING: to_json(entry.finding), COUNT: f"{entry.count}\n", **texts}
            if entry.scenario is not None:
                files[SCENARIO] = entry.scenario
            for name, text in files.items():
                if FILE_NAME.fullmatch(name):
                    (place / name).write_text(text, encoding="utf-8", newline="")
