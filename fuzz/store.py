# SPDX-License-Identifier: Apache-2.0
"""Findings on disk: a directory each, whole or not there at all, however the writer ends.

::

    findings/<kind>-<hash>/scenario.scn    the first scenario that showed it (none: the machine did not boot)
                           finding.json    harness.findings
                           count           how many scenarios showed it so far, decimal
                           ...             console.txt and earlier scenarios of a crash
    findings/.tmp-*                        being written; garbage when its writer is dead
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.errors import InputError
from harness.findings import ID, MAX_JSON_BYTES, Finding, from_json, to_json

SCENARIO, FINDING, COUNT = "scenario.scn", "finding.json", "count"
_TEMPORARY = ".tmp-"
_DIGITS = 20


class Store:
    """The findings below one directory; any number of processes may use it at once.

    OSError (disk full, read-only): nothing was written, or nothing that counts as a finding.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __contains__(self, id_: str) -> bool:
        return (self.root / id_).is_dir()

    def add(self, finding: Finding, scenario: str | None, extra: Mapping[str, str] | None = None) -> bool:
        """Keep a finding and return True; if its cluster is there already, count one more and return False."""
        place = self.root / finding.id
        if place.is_dir():
            self.bump(finding.id)
            return False
        self.root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.root))
        try:
            work.chmod(0o755)
            texts = {FINDING: to_json(finding), COUNT: _count_text(1)} | dict(extra or {})
            if scenario is not None:
                texts[SCENARIO] = scenario
            for name, text in texts.items():
                _write_synced(work / name, text)
            _sync(work)
            try:
                work.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
                self.bump(finding.id)  # another worker was faster
                return False
            _sync(self.root)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return True

    def bump(self, id_: str) -> int:
        """Count one more member of a cluster; return how many there are."""
        handle = os.open(self.root / id_ / COUNT, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            count = _count_of(os.pread(handle, 64, 0)) + 1
            # Same length each time, one write: a reader sees the old number or the new one.
            os.pwrite(handle, _count_text(count).encode(), 0)
            return count
        finally:
            os.close(handle)

    def count(self, id_: str) -> int:
        """Return how many scenarios showed a cluster; 0 if it is not there."""
        try:
            return _count_of((self.root / id_ / COUNT).read_bytes())
        except OSError:
            return 0

    def ids(self) -> tuple[str, ...]:
        """Return the clusters that are there, sorted."""
        try:
            return tuple(sorted(name for name in os.listdir(self.root) if ID.fullmatch(name)))  # noqa: PTH208
        except FileNotFoundError:
            return ()

    def load(self, id_: str) -> Finding:
        """Read a finding.  InputError: it is not there, or somebody changed it into something else."""
        path = self.root / id_ / FINDING
        try:
            with path.open("rb") as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except OSError as error:
            raise InputError(str(path), None, f"cannot be read: {error.strerror}") from error
        return from_json(data, str(path))

    def clean(self) -> None:
        """Remove what dead writers left; only when no writer is alive."""
        for path in self.root.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)


def _count_text(count: int) -> str:
    return f"{count:{_DIGITS}d}\n"


def _count_of(data: bytes) -> int:
    with suppress(ValueError):
        return max(0, int(data[:_DIGITS]))
    return 0


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
