# SPDX-License-Identifier: Apache-2.0
"""Show progress on stderr: lines, and a bar for commands without other output."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from fuzz.cli.declare import QUIET
from fuzz.cli.output import with_program_name

_COUNT = re.compile(r"(\d+) of (\d+)\b")
"""The beginning of a line of progress: number done, total."""
QUIET_SECONDS = 10
"""Interval between status lines on a stream that is no terminal."""
_NEVER = -(1 << 62)
"""A number of ticks that is never reached."""


def say(line: str) -> None:
    """Print a line, unless ``--quiet`` was given."""
    if not is_quiet():
        print(with_program_name(line), file=sys.stderr, flush=True)


def is_quiet() -> bool:
    """Return whether ``--quiet`` was given."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def progress_printer(who: str, clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """Return a function that prints lines after ``who``; a line ``N of M ...`` gets the remaining time.

    Lines count on from each other until a number is lower or a total higher than before: then another work begins.  A
    total may become lower, for a part that turns out not to be needed.
    """
    first, last, most, start = 0, 0, 0, 0.0

    def show(line: str) -> None:
        nonlocal first, last, most, start
        if found := _COUNT.match(line):
            number, total = int(found[1]), int(found[2])
            if number < last or number <= first or total > most:
                first, start = number, clock()  # the first line of its kind: no rate is known yet
            elif total > number:
                left = (clock() - start) / (number - first) * (total - number)
                line = f"{line} ({_minutes(left)} left)"
            last, most = number, total
        say(f"{who}: {line}")

    return show


def _minutes(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


@contextmanager
def bar(who: str, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` parts; with ``shown``, a bar shows the progress.

    The bar is shown on terminals only, fits 80 columns, and has the number of parts done, the total, and the time left.
    """
    hidden = is_quiet() or not shown or not sys.stderr.isatty()
    room = max(10, min(shutil.get_terminal_size().columns, 80) - 50)
    with click.progressbar(
        length=total, label=who, file=sys.stderr, hidden=hidden, width=room, show_pos=True, show_percent=False
    ) as made:
        yield lambda: made.update(1)


class StatusLine:
    """The status line of a campaign: rewritten in place on a terminal, a new line at intervals on other streams."""

    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream = stream
        self._terminal = stream.isatty() and not quiet
        self._ticks = _NEVER if quiet else 0

    def tick(self, line: str) -> None:
        """Show the campaign's status; called about once a second."""
        if self._terminal:
            width = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[K{line[: width - 1]}")
        elif self._ticks % QUIET_SECONDS == 0 and self._ticks:
            self._write(f"{line}\n")
        self._ticks += 1

    def clear(self) -> None:
        """Clear the terminal's line."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _write(self, what: str) -> None:
        try:
            self._stream.write(what)
            self._stream.flush()
        except OSError:
            self._terminal, self._ticks = False, _NEVER  # the reader is gone: the campaign continues
