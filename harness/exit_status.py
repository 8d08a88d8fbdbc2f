# SPDX-License-Identifier: Apache-2.0
"""Exit statuses of the process.  Every command returns one of these."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """An exit status.  ``DIVERGENCE`` has no other meaning than its text: scripts can rely on it.

    ``NOT_TESTED`` and ``BAD_COMMAND`` are for ``replay --bisect`` only: git-bisect(1) expects them in place of
    ``FAILED`` and ``USAGE``.  The last two are a shell's numbers for SIGINT and SIGPIPE.
    """

    OK = 0
    """The command succeeded and found nothing unexplained."""
    DIVERGENCE = 1
    """An unexplained divergence, an expected value that was not observed, or an alarm of the target's kernel."""
    USAGE = 2
    """The command line, or a file that it names, is wrong."""
    FAILED = 3
    """Something is missing on this machine, a target was lost, or shadowfuzz itself failed."""
    NOT_TESTED = 125
    BAD_COMMAND = 128
    INTERRUPTED = 130
    BROKEN_PIPE = 141
