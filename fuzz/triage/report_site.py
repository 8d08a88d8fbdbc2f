# SPDX-License-Identifier: Apache-2.0
"""Make the pages and the JSON of ``shadowfuzz report serve``, and cache them until the database changes.

A request is answered from the cache, even if it is old; after a change, new answers are made in the background.  Making
them takes seconds, because every trace is checked again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.triage.metrics import EXPOSITION
from harness.errors import InputError
from harness.report import api
from harness.report.campaign_data import Book
from harness.report.html_markup import el
from harness.report.html_report import finding_page, page

HTML, JSON = "text/html; charset=utf-8", "application/json"
AsCalled = Callable[[str], str]
"""Replaces the program's name in the commands of a page."""
METRICS = "/metrics"
LOOK_SECONDS = 1.0
"""Minimum interval between two checks for a change of the database."""
FINDINGS = "/findings/"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its body, ``plain`` or ``packed`` (gzip, for clients that accept it); ``tag`` is a hash of it."""

    status: int
    kind: str
    plain: bytes
    packed: bytes
    tag: str


def answer(status: int, kind: str, text: str) -> Answer:
    """Return an answer with a compressed body and a tag."""
    plain = text.encode()
    return Answer(status, kind, plain, gzip.compress(plain, 6, mtime=0), hashlib.sha256(plain).hexdigest()[:20])


def _data(document: api.Json, status: int = 200) -> Answer:
    return answer(status, JSON, json.dumps(document) + "\n")


_LISTS: dict[str, Callable[[Book], api.Json]] = {
    "": api.index,
    "/problems": api.problems,
    "/errata": api.errata,
    "/clusters": api.clusters,
    "/runs": api.runs,
    "/nodes": api.nodes,
}


@dataclass
class _Snapshot:
    """The answers for one state of the database, made on demand."""

    book: Book | InputError
    as_called: AsCalled = str
    answers: dict[str, Answer] = field(default_factory=dict)

    def get(self, path: str) -> Answer:
        if path not in self.answers:
            made = self._make(path)
            if made.status != 200:
                return made  # not cached: the number of invalid paths is unlimited
            self.answers[path] = made
        return self.answers[path]

    def _make(self, path: str) -> Answer:
        if isinstance(self.book, InputError):
            return (
                _data({"error": str(self.book)}, 500) if _is_api(path) else answer(500, HTML, el("p", str(self.book)))
            )
        if path == "/":
            return answer(200, HTML, self.as_called(page(self.book, live=True)))
        if path.startswith(FINDINGS):
            story = api.find(self.book, path.removeprefix(FINDINGS))
            return (
                answer(404, HTML, "no such finding")
                if story is None
                else answer(200, HTML, self.as_called(finding_page(story, self.book.out)))
            )
        if _is_api(path):
            return self._api(path.removeprefix(api.ROOT).rstrip("/"))
        return answer(404, HTML, f"there are /, {FINDINGS}ID, {METRICS} and {api.ROOT}")

    def _api(self, path: str) -> Answer:
        assert isinstance(self.book, Book)
        if path in _LISTS:
            return _data(_LISTS[path](self.book))
        found = api.cluster(self.book, path.removeprefix("/clusters/")) if path.startswith("/clusters/") else None
        return _data({"error": f"no such place; {api.ROOT} has a list"}, 404) if found is None else _data(found)


def _is_api(path: str) -> bool:
    return path == api.ROOT or path.startswith(f"{api.ROOT}/")


class Site:
    """The site.  ``read`` reads the database (InputError: it cannot); a change of ``stamp`` indicates new contents.

    ``metrics`` returns the numbers that Prometheus asks for, as text; they are read anew each time, which is cheap.
    ``as_called`` replaces the program's name in a page's commands.
    """

    def __init__(
        self,
        read: Callable[[], Book],
        stamp: Callable[[], object],
        metrics: Callable[[], str],
        as_called: AsCalled = str,
    ) -> None:
        self._read, self._stamp, self._metrics, self._as_called = read, stamp, metrics, as_called
        self._lock = threading.Lock()
        self._making = False
        self._looked = time.monotonic()
        self._seen = stamp()
        self._made = self._make()

    def get(self, path: str) -> Answer:
        """Return the answer for a path without its query."""
        if path == METRICS:
            return self._numbers()
        self._look()
        made = self._made
        with self._lock:
            return made.get(path)

    def _numbers(self) -> Answer:
        try:
            return answer(200, EXPOSITION, self._metrics())
        except InputError as error:
            return answer(500, "text/plain; charset=utf-8", f"{error}\n")

    def _make(self) -> _Snapshot:
        try:
            made = _Snapshot(self._read(), self._as_called)
        except InputError as error:
            made = _Snapshot(error)
        made.get("/")  # the first page that clients request
        return made

    def _look(self) -> None:
        """Check for a change of the database, at most once per interval; after one, make new answers in a thread."""
        with self._lock:
            now = time.monotonic()
            if self._making or now - self._looked < LOOK_SECONDS:
                return
            self._looked, seen = now, self._stamp()
            if seen == self._seen:
                return
            self._making = True
        threading.Thread(target=self._renew, args=(seen,), daemon=True).start()

    def _renew(self, seen: object) -> None:
        try:
            made = self._make()
            with self._lock:
                self._made, self._seen = made, seen
        finally:
            with self._lock:
                self._making = False
