# SPDX-License-Identifier: Apache-2.0
"""How commands write to the terminal."""

from __future__ import annotations

import shutil
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from harness.report import terminal
from harness.report.terminal import Style


def style_of(stream: TextIO, environ: Mapping[str, str]) -> Style:
    """Return the style for a stream: colour on a terminal unless NO_COLOR is set, and its width."""
    terminal_there = stream.isatty()
    width = shutil.get_terminal_size((100, 24)).columns
    colour = terminal_there and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Style(max(width, terminal.MIN_WIDTH), colour)


def announce_page(path: Path, size: int, *, show: bool) -> None:
    """Report on stderr that a page was written; ``show``: open it in the browser, too."""
    print(f"report: {path}, {size // 1024} KiB", file=sys.stderr)
    if show:
        webbrowser.open(path.absolute().as_uri())
