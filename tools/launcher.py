# SPDX-License-Identifier: Apache-2.0
"""Start shadowfuzz: the script of a virtual environment, which tools/setup.sh writes there with its first line.

That line starts Python without site packages, which takes milliseconds.  It blocks SIGINT and executes the full Python:
an interrupt stays pending until :func:`fuzz.cli.main.main` handles it with a line and status 130.  Without this, an
interrupt during Python's own start ends with a traceback and status 1.

A process that multiprocessing spawned runs this file under another name before it begins its work: it has no command.
"""

import sys

if sys.flags.no_site:
    import _signal as signal  # the built-in part: signal imports enum, which takes longer than the rest of this file

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    import os

    os.execv(sys.executable, [sys.executable, *sys.argv])

if __name__ == "__main__":
    from fuzz.cli.main import main

    sys.exit(main())
else:
    import os

    from fuzz.compiled.use import use_compiled

    use_compiled(os.environ)
