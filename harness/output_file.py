# SPDX-License-Identifier: Apache-2.0
"""Write an output file that the user names: check before the work that it can be written, then write it atomically."""

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
"""Seconds to wait for a FIFO's reader; a shell's ``>(command)`` has one."""


def write_whole(path: Path, text: str) -> None:
    """Write text to a file atomically.  InputError: it cannot be written.

    An existing path that is not a regular file (a device, a pipe) is written to, never replaced.
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
    """Open a device, or a FIFO that has a reader.  OSError: no reader after :data:`READER_SECONDS`."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise OSError(0, "Is a FIFO without a reader") from error
            time.sleep(0.05)
        else:
            os.set_blocking(handle, True)
            return handle


def check_file(path: Path) -> None:
    """Check that a file can be written, without creating it.  InputError: it cannot."""
    with _reporting(path):
        existed = path.exists()
        if existed and path.is_fifo():
            return  # to open and close it would give its reader an end of file
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
        if not existed:
            path.unlink()


def check_directory(path: Path) -> None:
    """Check that a directory exists and is writable, or can be created, without creating it.  InputError: it cannot."""
    with _reporting(path):
        there = path.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(0, f"{there} is not a directory")
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
