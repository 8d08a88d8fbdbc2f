# SPDX-License-Identifier: Apache-2.0
"""Read a whole recording, and report the progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from harness.trace.recording import Reader, Recorded

PROGRESS_SECONDS = 2.0


def read_with_progress(
    reader: Reader, progress: Callable[[str], None], describe: Callable[[int], str] = lambda count: f"{count} records"
) -> Iterator[Recorded]:
    """Yield all records; every few seconds, ``progress`` gets the result of ``describe`` for their number."""
    shown = time.monotonic()
    for number, recorded in enumerate(reader, 1):
        yield recorded
        if not number % 1024 and time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            progress(describe(number))
