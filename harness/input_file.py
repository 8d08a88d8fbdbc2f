# SPDX-License-Identifier: Apache-2.0
"""Open an input file that the user names; no file, a FIFO included, blocks the command without end."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from harness.errors import InputError

FIFO_SECONDS = 2.0
"""Seconds to wait for a FIFO's writer; a shell's ``<(command)`` is a FIFO."""


def open_input(path: Path, *, seekable: bool = False) -> BinaryIO:
    """Open a file for reading; ``seekable``: reject a FIFO.

    OSError: it cannot be opened, is a directory, or is a FIFO without a writer.  ValueError: a NUL in the name.
    """
    if "\0" in str(path):
        raise ValueError("embedded null byte")  # in the same words in every version of Python
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "Is a directory")
        if stat.S_ISFIFO(mode):
            if seekable:
                raise OSError(0, "Is a FIFO; expected a file")
            if not _has_data(handle):
                raise OSError(0, "Is a FIFO that nothing writes to; expected a file")
        os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_file(path: Path) -> None:
    """Check that a file can be read.  InputError: it cannot."""
    try:
        open_input(path, seekable=True).close()
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _has_data(handle: int) -> bool:
    """Wait for the first byte of a FIFO, or for its end; False: no process has it open for writing."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(FIFO_SECONDS * 1000))
