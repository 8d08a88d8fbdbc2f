# SPDX-License-Identifier: Apache-2.0
"""What one node has fetched or built, kernels and what is compiled against them, is taken by the others.

::

    built/RUN/KIND-KEY.json           HMAC of the listing by the campaign's secret, new line, listing
    built/RUN/KIND-KEY.claim          a node builds it; the others wait for it
    built/archives/KIND-KEY-HASH.gz   contents (:mod:`fuzz.cluster.packed_entry`), of any campaign

The secret comes with the job of a node, through Ray.  Who can write to the files of all, but is no node of the
campaign, can make nodes wait and build for themselves, and no more.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fuzz.cluster.files import Files
from fuzz.cluster.packed_entry import MAX_LISTING, MAX_TOTAL, Packed, describe, pack, unpack
from harness.errors import InputError
from harness.vm.cache import Entry

KINDS = ("kernel", "image", "headers", "guest")
"""The kinds of entries that are shared: what is fetched from Debian, and what takes a compiler."""
BUILT, ARCHIVES = "built", "built/archives"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: after ``grace`` one node builds what no other gave, after ``most`` each; ``pause`` is between looks."""

    grace: float = 15.0
    most: float = 300.0
    pause: float = 3.0


PATIENCE = Patience()


class Built:
    """The entries of the campaign ``run``, a :class:`harness.vm.cache.Source`; ``say`` gets a line for each."""

    def __init__(
        self, files: Files, run: str, secret: str, say: Callable[[str], None], patience: Patience = PATIENCE
    ) -> None:
        self._files, self._run, self._secret, self._say, self._patience = files, run, secret, say, patience
        self._used: dict[str, Entry] = {}
        self._builds = False
        self.refused: dict[str, str] = {}
        """Why an entry of another node was not taken, as one line, by its name."""

    def take(self, kind: str, key: str, work: Path) -> Mapping[str, object] | None:
        """Fill an empty directory with another node's entry; return its facts.  None: it is to be built here."""
        name = f"{kind}-{key}"
        if kind not in KINDS:
            return None
        try:
            text = self._wait_for(name)
            if text is None:
                return None
            packed = self._read(name, text)
            self._fetch(packed, work)
        except (InputError, OSError) as error:
            self.refused[name] = f"{name} of another node was not taken: {error}; it is built here"
            self._say(self.refused[name])
            for path in work.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            return None
        self._say(f"{name}: taken from another node")
        return packed.facts

    def used(self, entry: Entry) -> None:
        """Note an entry that this node has, so that :meth:`give` gives it to the others."""
        if entry.path.name.rpartition("-")[0] in KINDS:
            self._used[entry.path.name] = entry

    def give(self) -> None:
        """Give what is used here to the others, unless they have it.  OSError, InputError: it could not be done."""
        for name, entry in list(self._used.items()):
            again = name in self.refused
            if again or self._files.size(self._listing(name)) is None:
                self._give(entry, again)
            del self._used[name]

    def _give(self, entry: Entry, again: bool) -> None:
        packed = describe(entry)
        archive = _archive(packed)
        if again or self._files.size(archive) is None:
            with tempfile.TemporaryDirectory() as work:
                pack(entry.path, packed, Path(work) / "archive")
                self._files.put(Path(work) / "archive", archive)
        text = packed.to_json()
        self._files.put_bytes(f"{self._sign(text)}\n{text}".encode(), self._listing(entry.path.name))

    def _wait_for(self, name: str) -> str | None:
        """Return the listing of an entry, once a node has given it.  None: this node is to build it."""
        began = time.monotonic()
        while True:
            if self._files.size(self._listing(name)) is not None:
                return b"".join(self._files.read(self._listing(name), MAX_LISTING)).decode(errors="replace")
            waited = time.monotonic() - began
            if waited >= self._patience.most:
                return None
            if (self._builds or waited >= self._patience.grace) and self._files.create(f"{self._at(name)}.claim"):
                self._builds = True  # the first of several: no node has the others either
                return None
            time.sleep(self._patience.pause)

    def _read(self, name: str, text: str) -> Packed:
        where = self._files.url_of(self._listing(name))
        signature, _, listing = text.partition("\n")
        if not hmac.compare_digest(signature.encode(), self._sign(listing).encode()):
            raise InputError(where, None, "no node of this campaign signed it")
        packed = Packed.from_json(listing, where)
        if packed.name != name:
            raise InputError(where, None, f"is of {ascii(packed.name)[:60]}")
        return packed

    def _fetch(self, packed: Packed, work: Path) -> None:
        with tempfile.TemporaryFile() as archive:
            for piece in self._files.read(_archive(packed), MAX_TOTAL):
                archive.write(piece)
            archive.seek(0)
            unpack(packed, archive, work)

    def _sign(self, listing: str) -> str:
        return hmac.new(self._secret.encode(), listing.encode(), hashlib.sha256).hexdigest()

    def _at(self, name: str) -> str:
        return f"{BUILT}/{self._run}/{name}"

    def _listing(self, name: str) -> str:
        return f"{self._at(name)}.json"


def _archive(packed: Packed) -> str:
    return f"{ARCHIVES}/{packed.name}-{packed.contents}.gz"
