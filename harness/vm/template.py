# SPDX-License-Identifier: Apache-2.0
"""Describe a template: files of a machine that was saved while its agent waited, from which machines start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

RAM, MAILBOX, STATE, CONSOLE = "ram", "mailbox", "state", "console"
"""The files: Linux's memory and the mailbox, both sparse, QEMU's device state, and the console's output."""
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Template:
    """The directory of a saved machine; complete, because it is an entry of the cache."""

    path: Path

    @property
    def ram(self) -> Path:
        """Linux's memory."""
        return self.path / RAM

    @property
    def mailbox(self) -> Path:
        """The saved mailbox."""
        return self.path / MAILBOX

    @property
    def state(self) -> Path:
        """QEMU's migration stream, without any memory."""
        return self.path / STATE

    @property
    def console(self) -> str:
        """The machine's output during boot."""
        return (self.path / CONSOLE).read_text(encoding="utf-8")


def copy_with_holes(source: int, target: int) -> int:
    """Copy a file's content to an empty file, keeping holes; return the bytes written.  OSError: no space."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = written = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole from here on
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(source, min(CHUNK, end - at), at)
            if data.strip(b"\0"):  # skip pages of zeros
                os.pwrite(target, data, at)
                written += len(data)
            at += len(data)
    return written
