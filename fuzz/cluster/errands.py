# SPDX-License-Identifier: Apache-2.0
"""What a node does besides, in a thread of its own: an object store that hangs delays no finding.

It gives what it has built to other nodes, carries the memory of lost machines to the files of all, and what dead nodes
of its machine left to the database.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from fuzz.cluster.built import Built
from fuzz.cluster.dump_sender import DumpSender
from fuzz.cluster.files import Files
from fuzz.cluster.left_behind import settle
from fuzz.store.database import Database
from harness.errors import InputError

SECONDS = 30.0
"""How often it looks for them.  A node that was just killed may have held its directory until then."""
PATIENCE_SECONDS = 15.0
"""So long a node that ends waits for what hangs; less than its head waits for it."""


class Errands:
    """The errands of the node whose directory is ``place``; ``files`` are those of all, if there are any.

    ``built`` is what it has for other nodes.
    """

    def __init__(
        self, cache: Path, store: str, place: Path, files: Files | None = None, built: Built | None = None
    ) -> None:
        self._cache, self._store, self._place, self._files, self._built = cache, store, place, files, built
        self._sender = None if files is None else DumpSender(files, place, Database(store))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="errands", daemon=True)
        self._finished = False
        self._stays = f"the memory of lost machines stays in {place} until it can be written"
        self.why = ""
        """Why something could not be written, as one line; empty: all was, when it last looked."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def last_time(self) -> str:
        """End; send what is left, unless the store hangs.  Return why something was not sent, empty if all was."""
        self._ending.set()
        self._thread.join(PATIENCE_SECONDS)
        if not self._finished:
            return f"still writing to {self._files.url if self._files else 'the database'}; {self._stays}"
        return self.why

    def _work(self) -> None:
        while not self._ending.is_set():
            given = self._given()
            with suppress(OSError):  # directories that others remove at the same time
                settle(self._cache, self._store, self._files, but=self._place)
            self.why = self._sent() or given
            self._ending.wait(SECONDS)
        self.why = self._sent()
        self._finished = True

    def _given(self) -> str:
        try:
            if self._built is not None:
                self._built.give()
        except (InputError, OSError) as error:
            return f"{error}; other nodes build for themselves"
        return ""

    def _sent(self) -> str:
        try:
            if self._sender is not None:
                self._sender.send()
        except (InputError, OSError) as error:
            return f"{error}; {self._stays}"
        return ""
