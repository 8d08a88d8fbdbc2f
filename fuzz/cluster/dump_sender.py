# SPDX-License-Identifier: Apache-2.0
"""Carry the memory of lost machines from a node to the files of all; the finding says where it is then.

One of each crash is carried: the one that the finding names, or the newest, where that one was removed for newer ones;
none where the shared database names one already.  The URL is written into the finding of the node's own database, which
is carried over as any other change (:mod:`fuzz.store.replicate`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.cluster.files import Files
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS, SUFFIX
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.replicate import is_reachable
from harness.errors import Dump
from harness.vm.crash import CRASH, Report, from_text, to_text

_PATH = re.compile(rf"{DUMPS}/([A-Za-z0-9-]+/[0-9]+{re.escape(SUFFIX)})")


@dataclass(frozen=True, slots=True)
class _Loss:
    """A crash of the node's own database: its id, its text, and the name of its dump below the node's directory."""

    id: str
    text: str
    report: Report
    dump: Dump
    name: str


class DumpSender:
    """Carries the dumps of the node whose directory is ``place`` (its name: CAMPAIGN/NODE)."""

    def __init__(self, files: Files, place: Path, shared: Database) -> None:
        self._files, self._place = files, place
        self._local, self._shared = Database(default_url(place)), shared
        self._left: set[tuple[str, str]] = set()

    def send(self) -> int:
        """Carry what has not been carried; return how many.

        FilesError: a dump cannot be written; it stays where it is, and the next call tries again.  StoreError,
        InputError: a database cannot be used.
        """
        sent = 0
        for loss in self._losses():
            if (loss.id, loss.text) in self._left:
                continue
            dump = None if self._is_there(loss.id) else self._put(loss)
            if dump is None:
                self._left.add((loss.id, loss.text))
            else:
                sent += self._note(loss, dump)
        return sent

    def _losses(self) -> Iterator[_Loss]:
        with self._local.access() as access:
            sql = "SELECT shelf, id, text FROM texts WHERE shelf = :shelf AND name = :name ORDER BY id"
            rows, _ = access.readable_rows("texts", sql, shelf=FINDINGS, name=CRASH)
        for row in rows:
            try:
                report = from_text(row["text"])
            except ValueError:
                continue  # the carrier carries it as it is
            dump = report.remains.dump
            if dump is not None and (path := _PATH.fullmatch(dump.path)) is not None:
                yield _Loss(row["id"], row["text"], report, dump, path[1])

    def _is_there(self, id_: str) -> bool:
        return is_reachable(Store(self._shared, FINDINGS).texts(id_).get(CRASH, ""))

    def _put(self, loss: _Loss) -> Dump | None:
        """Write a dump; return it with its URL.  None: there is none any more."""
        named = self._place / DUMPS / loss.name
        if self._files.size(self._name(named)) == loss.dump.file_bytes:  # carried before a worker described it again
            return replace(loss.dump, path=self._files.url_of(self._name(named)))
        source = named if named.is_file() else max(named.parent.glob(f"*{SUFFIX}"), default=None)
        if source is None:
            return None
        size = source.stat().st_size
        return replace(loss.dump, path=self._files.put(source, self._name(source)), file_bytes=size)

    def _name(self, dump: Path) -> str:
        node = self._place
        return f"{DUMPS}/{node.parent.name}/{node.name}/{dump.relative_to(node / DUMPS)}"

    def _note(self, loss: _Loss, dump: Dump) -> int:
        """Write the URL into the finding, unless a worker changed it meanwhile: then the next call does it."""
        remains = replace(loss.report.remains, dump=dump)
        with self._local.access(write=True, durable=True) as access:
            sql = "UPDATE texts SET text = :new WHERE shelf = :shelf AND id = :id AND name = :name AND text = :old"
            key = {"shelf": FINDINGS, "id": loss.id, "name": CRASH}
            return access.run(sql, **key, old=loss.text, new=to_text(replace(loss.report, remains=remains))).rowcount
