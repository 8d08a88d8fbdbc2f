# SPDX-License-Identifier: Apache-2.0
"""Print text, tables and JSON for commands."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from harness.report.terminal import Style

NAME = "shadowfuzz"
JSON_VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "bench compare": 1,
        "bench exits": 1,
        "bench trial": 1,
        "ci": 1,
        "confirm": 1,
        "corpus cmin": 1,
        "corpus coverage": 1,
        "corpus reach": 1,
        "doctor": 1,
        "findings export": 1,
        "findings list": 1,
        "findings set": 1,
        "findings show": 1,
        "fuzz": 2,
        "kernels against": 1,
        "kernels bisect": 1,
        "kernels fetch": 1,
        "kernels list": 1,
        "kernels matrix": 1,
        "lemma": 1,
        "lint": 1,
        "minimise": 1,
        "recording check": 2,
        "recording distil": 1,
        "recording record": 1,
        "replay": 1,
        "report write": 1,
        "setup": 1,
        "triage": 1,
    }
)
"""The version of each command's JSON output; docs/formats.md lists the keys.

A key keeps its meaning within a version; keys may be added.
"""


def style_of(stream: TextIO, environ: Mapping[str, str]) -> Style:
    """Return the style for a stream: colour on a terminal unless NO_COLOR is set, and its width."""
    from harness.report import terminal
    from harness.report.terminal import Style

    terminal_there = stream.isatty()
    width = shutil.get_terminal_size((100, 24)).columns
    colour = terminal_there and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Style(max(width, terminal.MIN_WIDTH), colour)


def program() -> str:
    """Return the name for calling this program: its name if PATH has it, else its path."""
    called = Path(sys.argv[0])
    if called.resolve().name != NAME:
        return NAME  # a test, or Python with the module's name
    found = shutil.which(called.name)
    if found is not None and called.exists() and Path(found).samefile(called):
        return called.name
    if not called.is_file():
        return NAME
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def with_program_name(text: str) -> str:
    """Replace ``shadowfuzz`` in the commands of a text by the name for calling this program.

    Other rooms write ``shadowfuzz COMMAND``; so the commands also work if PATH does not have ``shadowfuzz``.
    Mails, SARIF, JUnit, JSON and exported scenarios are read on other machines and say ``shadowfuzz``.
    """
    return _with_program(text, shlex.quote)


def page_with_program_name(text: str) -> str:
    """Return an HTML page whose commands can be entered where it was made, likewise."""
    return _with_program(text, lambda name: html.escape(shlex.quote(name)))


def _with_program(text: str, written: Callable[[str], str]) -> str:
    name = program()
    if name == NAME:
        return text
    from fuzz.cli.tree import COMMANDS

    commands = "|".join(map(re.escape, COMMANDS.by_name))
    return re.sub(rf"(?<![\w./-]){NAME}(?= (?:{commands})\b)", lambda _: written(name), text)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, red: Callable[[Sequence[str]], bool]) -> None:
    """Print a table that fits the terminal; ``red`` selects the red rows.  Pipes get plain lines instead."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row), style="red" if red(row) else None)
    Console(highlight=False, no_color=not style_of(sys.stdout, os.environ).colour).print(table)


def json_text(name: str, document: Mapping[str, Any]) -> str:
    """Return the JSON output of a command, one object with its version; ``name`` is a key of JSON_VERSIONS."""
    return json.dumps({"version": JSON_VERSIONS[name], **document}, indent=1, default=str) + "\n"


def print_json(name: str, document: Mapping[str, Any]) -> None:
    """Print the JSON output of a command."""
    print(json_text(name, document), end="", flush=True)


def announce_page(path: Path, size: int, *, show: bool) -> None:
    """Report on stderr that a page was written; with ``show``, open it in the browser, too."""
    print(f"report: {path}, {size // 1024} KiB", file=sys.stderr)
    if show:
        import webbrowser  # its import is slow

        webbrowser.open(path.absolute().as_uri())
