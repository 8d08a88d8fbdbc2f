# SPDX-License-Identifier: Apache-2.0
"""Store memory dumps of lost machines in a campaign's directory: the newest of each cluster, up to a total size."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import Dump

DUMPS = "dumps"
KEPT = 3
"""Number of dumps that are kept for a cluster."""
MAX_BYTES = 1 << 30
"""Maximum total size of all dumps; a dump of one of the project's targets has about 14 MB."""
SUFFIX, NEW = ".kdump", "new-"


@dataclass(frozen=True, slots=True)
class Dumps:
    """The dumps of one campaign's directory; several workers may use it at once."""

    root: Path
    kept: int = KEPT
    max_bytes: int = MAX_BYTES

    def new_path(self) -> Path:
        """Return a path for a new dump whose cluster is not known yet.  OSError: the directory cannot be made."""
        self.root.mkdir(exist_ok=True)
        for left in self.root.glob(f"{NEW}*{SUFFIX}"):  # left by a worker that was killed while it wrote a dump
            if left.stem == f"{NEW}{os.getpid()}" or not Path("/proc", left.stem.removeprefix(NEW)).exists():
                left.unlink(missing_ok=True)
        return self.root / f"{NEW}{os.getpid()}{SUFFIX}"

    def keep(self, dump: Dump, id_: str) -> tuple[Dump, int]:
        """Move a dump to its finding; return it with its new path, and the number of older dumps that were removed.

        The path is relative to the campaign's directory.
        """
        place = self.root / id_
        place.mkdir(exist_ok=True)
        for number in itertools.count(1 + max((int(p.stem) for p in self._of(place)), default=0)):
            path = place / f"{number:04}{SUFFIX}"
            try:
                os.link(dump.path, path)  # unlike a rename, this fails if another worker made the file first
            except FileExistsError:
                continue
            break
        Path(dump.path).unlink()
        return replace(dump, path=str(path.relative_to(self.root.parent))), self._prune(place, path)

    def _of(self, place: Path) -> list[Path]:
        return sorted(p for p in place.glob(f"*{SUFFIX}") if p.stem.isdecimal())

    def _too_many(self, place: Path) -> Iterator[Path]:
        yield from self._of(place)[: -self.kept]
        every = sorted((p for p in self.root.glob(f"*/*{SUFFIX}")), key=lambda p: p.stat().st_mtime_ns)
        size = sum(p.stat().st_size for p in every)
        for path in every:
            if size <= self.max_bytes:
                return
            size -= path.stat().st_size
            yield path

    def _prune(self, place: Path, newest: Path) -> int:
        removed = 0
        try:
            for path in self._too_many(place):
                if path != newest:
                    path.unlink()
                    removed += 1
        except FileNotFoundError:
            pass  # another worker prunes, too
        return removed
