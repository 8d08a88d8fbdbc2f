# SPDX-License-Identifier: Apache-2.0
"""What the process returns.  Every exit status of every command is one of these."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """An exit status.  ``DIVERGENCE`` is what its text says and nothing else: scripts can rely on it.

    ``NOT_TESTED`` and ``BAD_COMMAND`` are for ``replay --bisect`` only: what git-bisect(1) understands in place of
    ``FAILED`` and ``USAGE``.  The last two are a shell's numbers for SIGINT and SIGPIPE.
    """

    OK = 0
    """Done, and nothing is unexplained."""
    DIVERGENCE = 1
    """An unexplained divergence, an expected value that was not seen, or an alarm of the target's kernel."""
    USAGE = 2
    """The command line, or a file that it names, is wrong."""
    FAILED = 3
    """Something is missing here, a target was lost, or shadowfuzz itself failed."""
    NOT_TESTED = 125
    BAD_COMMAND = 128
    INTERRUPTED = 130
    BROKEN_PIPE = 141
