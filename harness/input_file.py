# SPDX-License-Identifier: Apache-2.0
"""Open a file that somebody names, so that no name makes a command wait for ever."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from harness.errors import InputError

FIFO_SECONDS = 2.0
"""How long a FIFO may take until somebody writes into it; a shell's ``<(command)`` is one."""


def open_input(path: Path, *, seekable: bool = False) -> BinaryIO:
    """Open a file for reading; ``seekable``: no FIFO will do.

    OSError: it cannot be opened, is a directory, or a FIFO that nothing comes from.  ValueError: a NUL in the name.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "Is a directory")
        if stat.S_ISFIFO(mode):
            if seekable:
                raise OSError(0, "Is a FIFO; expected a file")
            if not _has_data(handle):
                raise OSError(0, "Is a FIFO that nothing comes from; expected a file")
        os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_file(path: Path) -> None:
    """Ask whether a file can be read.  InputError: it cannot."""
    try:
        open_input(path, seekable=True).close()
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _has_data(handle: int) -> bool:
    """Wait for the first byte of a FIFO, or for its end; False: nobody has it open to write."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(FIFO_SECONDS * 1000))
