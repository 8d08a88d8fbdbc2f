# SPDX-License-Identifier: Apache-2.0
"""Memory dumps of lost machines below a campaign's directory: the newest few of each cluster, and so much in all."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import Dump

DUMPS = "dumps"
KEPT = 3
"""So many dumps of a cluster stay."""
MAX_BYTES = 1 << 30
"""No more than that of all clusters together; a dump of a target of ours has about 14 MB."""
SUFFIX, NEW = ".kdump", "new-"


@dataclass(frozen=True, slots=True)
class Dumps:
    """The dumps of one campaign's directory; several workers may use it at once."""

    root: Path
    kept: int = KEPT
    max_bytes: int = MAX_BYTES

    def place(self) -> Path:
        """Return where to write a dump before it is known whose it is.  OSError: there is no room."""
        self.root.mkdir(exist_ok=True)
        for left in self.root.glob(f"{NEW}*{SUFFIX}"):  # by a worker that was killed while it wrote one
            if left.stem == f"{NEW}{os.getpid()}" or not Path("/proc", left.stem.removeprefix(NEW)).exists():
                left.unlink(missing_ok=True)
        return self.root / f"{NEW}{os.getpid()}{SUFFIX}"

    def keep(self, dump: Dump, id_: str) -> tuple[Dump, int]:
        """Give a dump to a finding; return it with its path below the campaign's directory, and how many older ones
        had to go for it.
        """
        place = self.root / id_
        place.mkdir(exist_ok=True)
        for number in itertools.count(1 + max((int(p.stem) for p in self._of(place)), default=0)):
            path = place / f"{number:04}{SUFFIX}"
            try:
                os.link(dump.path, path)  # unlike a rename, this fails if another worker was faster
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
        gone = 0
        try:
            for path in self._too_many(place):
                if path != newest:
                    path.unlink()
                    gone += 1
        except FileNotFoundError:
            pass  # another worker prunes, too
        return gone
