# SPDX-License-Identifier: Apache-2.0
"""The ``shadowfuzz`` script of a virtual environment; tools/setup.sh writes it there with its first line.

That line starts Python without site packages.  Such a Python begins within milliseconds, blocks SIGINT and starts
itself again, in full: an interrupt waits until :func:`fuzz.cli.main.main` can answer it with a line and status 130.
Without that, an interrupt while Python imports what it needs to start ends with its traceback and status 1.
"""

import sys

if sys.flags.no_site:
    import _signal as signal  # the built-in part: signal imports enum, and that takes longer than all else here

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    import os

    os.execv(sys.executable, [sys.executable, *sys.argv])

from fuzz.cli.main import main

sys.exit(main())
