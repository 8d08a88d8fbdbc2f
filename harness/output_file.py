# SPDX-License-Identifier: Apache-2.0
"""Write a file that somebody names: asked before the work is done whether it can be, and then whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import InputError

READER_SECONDS = 2.0
"""How long a FIFO may have no reader; a shell's ``>(command)`` has one."""


def write_whole(path: Path, text: str) -> None:
    """Write text, so that nobody ever sees a part of it.  InputError: it cannot be written.

    What is there and is no file, as a device or a pipe, is written to; it must not be replaced.
    """
    with _reporting(path):
        if path.exists() and not path.is_file():
            with os.fdopen(_open_for_reader(path), "w", encoding="utf-8") as stream:
                stream.write(text)
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _open_for_reader(path: Path) -> int:
    """Open a device, or a FIFO that somebody reads.  OSError: nobody does, after :data:`READER_SECONDS`."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise OSError(0, "Is a FIFO that nobody reads") from error
            time.sleep(0.05)
        else:
            os.set_blocking(handle, True)
            return handle


def check_file(path: Path) -> None:
    """Ask whether a file can be written, and leave nothing behind.  InputError: it cannot."""
    with _reporting(path):
        existed = path.exists()
        if existed and path.is_fifo():
            return  # to open and close it would be the end for who reads it
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
        if not existed:
            path.unlink()


def check_directory(path: Path) -> None:
    """Ask whether a directory can be made, or be written to, and leave nothing behind.  InputError: it cannot."""
    with _reporting(path):
        there = path.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(0, f"{there} is no directory")
        with tempfile.TemporaryDirectory(prefix=".shadowfuzz-", dir=there):
            pass


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    if "\0" in str(path):
        raise InputError(str(path), None, "cannot be written: a NUL character in the name")
    try:
        yield
    except OSError as error:
        raise InputError(str(path), None, f"cannot be written: {error.strerror or error}") from error
