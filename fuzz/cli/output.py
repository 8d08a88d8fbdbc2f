# SPDX-License-Identifier: Apache-2.0
"""How commands write to the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from harness.errors import InputError

if TYPE_CHECKING:
    from harness.report.terminal import Style

JSON_VERSIONS: Mapping[str, int] = MappingProxyType(
    {
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
        "minimise": 1,
        "recording check": 1,
        "recording distil": 1,
        "recording record": 1,
        "replay": 1,
        "report write": 1,
        "setup": 1,
        "triage": 1,
    }
)
"""The version of each command's JSON output; docs/formats.md lists the keys.

A key that is there keeps its meaning within a version; new ones may come.
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
    """Return how this program is called from here: its name if the path has it, else where it is."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    if found is not None and called.exists() and Path(found).samefile(called):
        return called.name
    if not called.is_file() or called.suffix:
        return "shadowfuzz"  # not called as a command
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def json_text(name: str, document: Mapping[str, Any]) -> str:
    """Return the JSON output of a command, one object with its version; ``name`` is a key of JSON_VERSIONS."""
    return json.dumps({"version": JSON_VERSIONS[name], **document}, indent=1, default=str) + "\n"


def print_json(name: str, document: Mapping[str, Any]) -> None:
    """Print the JSON output of a command."""
    print(json_text(name, document), end="", flush=True)


def write_text(path: Path, text: str) -> None:
    """Write a file that an option names.  InputError: it cannot be written."""
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(str(path), None, f"cannot be written: {error.strerror}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file that an option names, whole or not at all.  InputError: it cannot be written."""
    if path.exists() and not path.is_file():
        write_text(path, text)  # a pipe or a device: nothing takes its place
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(str(path), None, f"cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def announce_page(path: Path, size: int, *, show: bool) -> None:
    """Report on stderr that a page was written; ``show``: open it in the browser, too."""
    print(f"report: {path}, {size // 1024} KiB", file=sys.stderr)
    if show:
        webbrowser.open(path.absolute().as_uri())
