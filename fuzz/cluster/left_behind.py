# SPDX-License-Identifier: Apache-2.0
"""The directories of nodes that died: what they had found, and could not carry over any more, is carried over."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fuzz.cluster.dump_sender import DumpSender
from fuzz.cluster.files import Files
from fuzz.cluster.node_job import PLACES
from fuzz.store.database import FILE, Database, default_url
from fuzz.store.dumps import DUMPS
from fuzz.store.replicate import Carrier
from harness.errors import InputError

OWNER, STORE = "owner", "store"
GONE = "gone-"


def _key(store: str) -> str:
    """Return a name of a database that gives no password away."""
    return hashlib.sha256(store.encode()).hexdigest()


@contextmanager
def hold(place: Path, store: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a node's directory, and note whose database what is in it belongs to.

    Another process may hold it for a while, to carry over what is in it: ``wait`` so many seconds for its end.
    InputError: it still does, or the directory cannot be written.
    """
    deadline = time.monotonic() + wait
    while (lock := _lock(place)) is None:
        if time.monotonic() >= deadline:
            raise InputError(str(place), None, "another process works as this node right now")
        time.sleep(0.1)
    try:
        (place / STORE).write_text(_key(store))
        yield
    finally:
        os.close(lock)


def _lock(place: Path) -> int | None:
    """Return the lock of a directory; None: another process has it, or had it and has removed the directory."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = os.open(place / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(str(place), None, f"cannot be a node's directory: {error.strerror}") from error
    with suppress(FileNotFoundError):
        if _try(lock) and os.fstat(lock).st_ino == (place / OWNER).stat().st_ino:
            return lock
    os.close(lock)
    return None


def _try(lock: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def settle(cache: Path, store: str, files: Files | None = None, *, but: Path | None = None) -> int:
    """Carry over what dead nodes of this machine left for a database, and remove it; return of how many.

    What cannot be carried over, or read, stays.  ``files`` get the memory of lost machines.  ``but`` is left alone.
    """
    done = 0
    for place in sorted((cache / PLACES).glob("*/*")):
        if place.name.startswith(GONE):  # by a process that was killed meanwhile
            _clear(place)
            continue
        if place == but or not (place / STORE).is_file() or (place / STORE).read_text() != _key(store):
            continue
        with suppress(InputError, OSError), hold(place, store):
            if _carry_all(place, store, files):
                remove(place, keep_dumps=files is None)
                done += 1
    return done


def _carry_all(place: Path, store: str, files: Files | None) -> bool:
    if not (place / FILE).is_file():
        return True
    shared = Database(store)
    carrier = Carrier(Database(default_url(place)), shared, f"{place.parent.name}/{place.name}")
    carrier.carry()
    if files is not None and DumpSender(files, place, shared).send():
        carrier.carry()
    return not carrier.unreadable


def remove(place: Path, *, keep_dumps: bool = True) -> None:
    """Remove a node's directory, which the caller holds: all that it had is in the database.

    With ``keep_dumps``, the memory of lost machines stays, next to it.  The rename is one step: a process that waits
    for the directory makes another one.
    """
    with suppress(OSError):
        away = place.with_name(f"{GONE}{place.name}")
        place.rename(away)
        if keep_dumps and (away / DUMPS).is_dir():
            (away / DUMPS).rename(place.with_name(f"{DUMPS}-{place.name}"))
        _clear(away)


def _clear(away: Path) -> None:
    """Remove a directory that is used no more, and that of its campaign with the last one.

    Others may remove the same one: nodes of one machine end together, and each clears what it sees.
    """
    shutil.rmtree(away, ignore_errors=True)
    with suppress(OSError):
        away.parent.rmdir()
