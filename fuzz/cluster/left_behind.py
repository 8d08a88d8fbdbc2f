# SPDX-License-Identifier: Apache-2.0
"""The directories of nodes that died: what they had found, and could not carry over any more, is carried over."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fuzz.cluster.node_job import PLACES
from fuzz.store.database import FILE, Database, default_url
from fuzz.store.replicate import Carrier
from harness.errors import InputError

OWNER, STORE = "owner", "store"
DUMPS = "dumps"


def _key(store: str) -> str:
    """Return a name of a database that gives no password away."""
    return hashlib.sha256(store.encode()).hexdigest()


@contextmanager
def hold(place: Path, store: str) -> Iterator[None]:
    """Hold a node's directory, and note whose database what is in it belongs to.

    InputError: another process holds it, or it cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / STORE).write_text(_key(store))
        lock = os.open(place / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(str(place), None, f"cannot be a node's directory: {error.strerror}") from error
    try:
        if not _try(lock):
            raise InputError(str(place), None, "another process works as this node right now")
        yield
    finally:
        os.close(lock)


def _try(lock: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def settle(cache: Path, store: str, but: Path | None = None) -> int:
    """Carry over what dead nodes of this machine left for a database, and remove it; return of how many.

    What cannot be carried over, or read, stays.  ``but`` is left alone.
    """
    done = 0
    for place in sorted((cache / PLACES).glob("*/*")):
        if place == but or not (place / STORE).is_file() or (place / STORE).read_text() != _key(store):
            continue
        with suppress(InputError, OSError), hold(place, store):
            if _carry_all(place, store):
                remove(place)
                done += 1
    return done


def _carry_all(place: Path, store: str) -> bool:
    if not (place / FILE).is_file():
        return True
    carrier = Carrier(Database(default_url(place)), Database(store), f"{place.parent.name}/{place.name}")
    carrier.carry()
    return not carrier.unreadable


def remove(place: Path) -> None:
    """Remove a node's directory: all that it had is in the database, but the memory of lost machines stays."""
    with suppress(OSError):
        for path in place.iterdir():
            if path.name == DUMPS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        place.rmdir()
        place.parent.rmdir()
