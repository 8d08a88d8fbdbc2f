# SPDX-License-Identifier: Apache-2.0
"""Cache built files on disk: one directory for each key, the hash of its inputs; an entry is complete or absent.

::

    ROOT/<kind>-<key>/     an entry, moved into place when it is complete; manifest.json lists its files
    ROOT/building/<kind>-<key>.XXXX/   an entry that is being built; garbage once no process holds the entry's lock
    ROOT/locks/<name>      never removed: a removed lock file no longer locks

Guarantees: two processes that request one entry build it once.  A killed process leaves no entry that the next one
treats as complete; the next one removes its remains.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import SetupError
from harness.vm.tools import Progress, quiet

MANIFEST = "manifest.json"

Build = Callable[[Path], Mapping[str, object]]
"""Fill an empty directory and return facts about it, JSON values by name, for :attr:`Entry.facts`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A complete entry: its directory, and the facts that its builder recorded."""

    path: Path
    facts: Mapping[str, object]


def default_root(environ: Mapping[str, str]) -> Path:
    """Return the cache's directory: ``$XDG_CACHE_HOME/shadowfuzz``, else ``~/.cache/shadowfuzz``.

    A relative XDG_CACHE_HOME is ignored, as the XDG base directory specification requires.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path("~/.cache").expanduser()) / "shadowfuzz"


def hash_inputs(inputs: Sequence[str | bytes]) -> str:
    """Return a key of 16 hexadecimal digits; different lists of inputs give different keys."""
    digest = hashlib.sha256()
    for item in inputs:
        data = item.encode() if isinstance(item, str) else item
        digest.update(len(data).to_bytes(8, "big") + data)  # the length makes ("ab", "c") and ("a", "bc") different
    return digest.hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.  OSError: it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Source(Protocol):
    """Other machines that may have an entry already."""

    def take(self, kind: str, key: str, work: Path) -> Mapping[str, object] | None:
        """Fill an empty directory and return its facts; None: the entry is to be built, and the directory is empty."""
        ...

    def used(self, entry: Entry) -> None:
        """Note that this machine has an entry."""
        ...


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache below `root`; no directory is created before the first build.

    `source` is asked before a build, and notes which entries are used.
    """

    root: Path
    source: Source | None = None

    def find(self, kind: str, key: str) -> Entry | None:
        """Return the entry if it is complete: it has every file of its manifest with the recorded size."""
        found = _read_entry(self.root / f"{kind}-{key}")
        if found is not None and self.source is not None:
            self.source.used(found)
        return found

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return the complete entries of a kind, in the order of their keys."""
        found = (_read_entry(path) for path in sorted(self.root.glob(f"{kind}-*")))
        return tuple(entry for entry in found if entry is not None)

    def get(
        self,
        kind: str,
        key: str,
        build: Build,
        progress: Progress = quiet,
        room: int = 0,
        *,
        keep: int = 0,
        alike: str = "",
    ) -> Entry:
        """Return the entry, built by `build` if it is absent; SetupError if it cannot be built.

        `room` is the number of bytes that the build needs at its peak: some tools do not handle a full disk.  `keep` is
        the number of entries that are kept after a build, the last used: of all of this kind, or of those with the same
        fact `alike`.
        """
        found = self.find(kind, key)
        if found is not None:
            if keep:
                with suppress(OSError):
                    (found.path / MANIFEST).touch()  # records the last use
            return found
        name = f"{kind}-{key}"
        with _one_sentence(self.root, room), self.lock(name, progress):
            found = self.find(kind, key)  # another process may have built it meanwhile
            if found is not None:
                return found
            self._sweep(held=name)
            if shutil.disk_usage(self.root).free < room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            built = self._build(name, lambda work: self._take_or(build, kind, key, work))
        if self.source is not None:
            self.source.used(built)
        if keep:
            self._retire(kind, built, keep, alike)
        return built

    def _take_or(self, build: Build, kind: str, key: str, work: Path) -> Mapping[str, object]:
        facts = None if self.source is None else self.source.take(kind, key, work)
        return build(work) if facts is None else facts

    def remove(self, entry: Path) -> None:
        """Remove an entry if possible: atomically for other processes; a process that has its files open keeps them."""
        with suppress(OSError):
            away = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", dir=self.root / "building"))
            try:
                entry.rename(away / "retired")
            finally:
                shutil.rmtree(away, ignore_errors=True)

    def _retire(self, kind: str, built: Entry, keep: int, alike: str) -> None:
        def last_use(entry: Entry) -> float:
            with suppress(OSError):
                return (entry.path / MANIFEST).stat().st_mtime
            return 0.0

        others = [entry for entry in self.entries(kind) if entry.path != built.path]
        if alike:
            others = [entry for entry in others if entry.facts.get(alike) == built.facts.get(alike)]
        for entry in sorted(others, key=last_use, reverse=True)[keep - 1 :]:
            self.remove(entry.path)

    @contextmanager
    def lock(self, name: str, progress: Progress = quiet) -> Iterator[None]:
        """Hold the lock `name` of this cache; the system also releases it when the process dies."""
        with _one_sentence(self.root):
            lock = self._open_lock(name)
        try:
            if not _try_lock(lock):
                progress(f"waiting for another process that is building {name}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _open_lock(self, name: str) -> int:
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _build(self, name: str, build: Build) -> Entry:
        final = self.root / name
        building = self.root / "building"
        if final.exists():  # incomplete, or find() would have returned it: files in it were deleted
            final.rename(Path(tempfile.mkdtemp(prefix=f"{name}.", dir=building)) / "broken")
        work = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=building))
        work.chmod(0o755)
        try:
            _write_manifest(work, build(work))
            work.rename(final)
        finally:
            self._sweep(held=name)
        entry = _read_entry(final)
        if entry is None:
            raise SetupError(f"{final} changed while it was being built; run the command again")
        return entry

    def _sweep(self, held: str) -> None:
        """Remove the remains of killed builds: directories of entries whose lock is free, or held by this process."""
        building = self.root / "building"
        building.mkdir(exist_ok=True)
        for path in building.iterdir():
            name = path.name.rpartition(".")[0]
            if name == held:
                shutil.rmtree(path, ignore_errors=True)
                continue
            lock = self._open_lock(name or path.name)
            try:
                if _try_lock(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _try_lock(lock: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _files(directory: Path) -> Mapping[str, int]:
    """Return the size of each regular file of an entry's top level; users open only these."""
    return {path.name: path.stat().st_size for path in directory.iterdir() if path.is_file() and path.name != MANIFEST}


def _write_manifest(directory: Path, facts: Mapping[str, object]) -> None:
    text = json.dumps({"files": dict(_files(directory)), "facts": dict(facts)}, indent=1)
    # The rename may reach the disk before the data; after a power failure the sizes in the manifest show it.
    with (directory / MANIFEST).open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_entry(path: Path) -> Entry | None:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files, facts = manifest["files"], manifest["facts"]
        whole = isinstance(facts, dict) and all((path / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(path, facts) if whole else None


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def _one_sentence(root: Path, room: int = 0) -> Iterator[None]:
    """Turn an error of the file system into a message that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            needed = f" ({room >> 20} MiB)" if room else ""
            raise SetupError(
                f"no space left for {root}: free space{needed}, or set XDG_CACHE_HOME to a directory that has it"
            ) from error
        if error.errno in NOT_ALLOWED:
            raise SetupError(
                f"cannot write to {error.filename or root}: {error.strerror}; "
                "make it writable, or set XDG_CACHE_HOME to a directory that is"
            ) from error
        raise SetupError(f"cannot use the cache {root}: {error.strerror or error}") from error
