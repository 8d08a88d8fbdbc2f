# SPDX-License-Identifier: Apache-2.0
"""Start a worker process: first say where its checker is found, then import and run it."""

from __future__ import annotations

import os
import sys

from fuzz.compiled.use import use_compiled


def main() -> int:
    """Run :func:`fuzz.campaign.worker_process.main` with the compiled checker, if there is one."""
    use_compiled(os.environ)
    from fuzz.campaign.worker_process import main as run_worker

    return run_worker(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
