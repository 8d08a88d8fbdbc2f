# SPDX-License-Identifier: Apache-2.0
"""Where the ``shadowfuzz`` command begins: an interrupt ends it without a word until :mod:`fuzz.cli.main` is there.

Python would answer one with a traceback of whatever it was importing.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from fuzz.cli.main import main  # noqa: E402  # after the line above, which is what this file is for


def start() -> int:
    """Run the command and return its exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()
