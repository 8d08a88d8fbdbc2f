# SPDX-License-Identifier: Apache-2.0
"""Progress on stderr, which no command's result is on: lines, and a bar where a person waits and sees nothing else."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from fuzz.cli.declare import QUIET
from fuzz.cli.output import as_called

_COUNT = re.compile(r"(\d+) of (\d+)\b")
"""How a line begins that says how far its work is."""


def say(line: str) -> None:
    """Show a line, unless ``--quiet`` was given."""
    if not is_quiet():
        print(as_called(line), file=sys.stderr, flush=True)


def is_quiet() -> bool:
    """Return whether ``--quiet`` was given."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def progress_printer(who: str, clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """Return a function that shows lines after a command's name; a line ``N of M ...`` gets the time that is left."""
    began: list[tuple[int, float]] = []

    def show(line: str) -> None:
        if found := _COUNT.match(line):
            number, total = int(found[1]), int(found[2])
            if not began or number <= began[-1][0]:
                began[:] = [(number, clock())]  # the first of its kind: nothing can be said yet
            elif total > number:
                first, start = began[0]
                left = (clock() - start) / (number - first) * (total - number)
                line = f"{line} ({_minutes(left)} left)"
        say(f"{who}: {line}")

    return show


def _minutes(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


@contextmanager
def bar(who: str, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of ``total`` parts of a work; ``shown``: nothing else says how far it is.

    The bar is for terminals, fits into 80 columns, and shows how many are done, of how many, and the time that is left.
    """
    hidden = is_quiet() or not shown or not sys.stderr.isatty()
    room = max(10, min(shutil.get_terminal_size().columns, 80) - 50)
    with click.progressbar(
        length=total, label=who, file=sys.stderr, hidden=hidden, width=room, show_pos=True, show_percent=False
    ) as made:
        yield lambda: made.update(1)
