# SPDX-License-Identifier: Apache-2.0
"""Lines of progress on stderr, which no command's result is on."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from fuzz.cli.declare import QUIET
from fuzz.cli.output import as_called


def say(line: str) -> None:
    """Show a line, unless ``--quiet`` was given."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(QUIET):
        print(as_called(line), file=sys.stderr, flush=True)


def progress_printer(who: str) -> Callable[[str], None]:
    """Return a function that shows lines after a command's name."""
    return lambda line: say(f"{who}: {line}")
