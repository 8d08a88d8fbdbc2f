# SPDX-License-Identifier: Apache-2.0
"""Edits of QEMU's source at named places: rows of ``edits-SERIES.toml``, applied as a whole or not at all."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError

HERE = Path(__file__).resolve().parent
WAYS = ("before", "after", "instead")
START = "{"
"""The place right after the brace that opens a function's body."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: ``text`` goes before or after what stands ``at`` a place, or instead of it.

    ``function`` narrows the place to one definition; empty: the whole file.  An empty ``at`` is the file's end.
    """

    file: str
    function: str
    at: str
    way: str
    text: str

    @property
    def place(self) -> str:
        """The place in words, for an error."""
        where = f"{self.file}, {self.function}" if self.function else self.file
        return f"{where}: {self.at!r}"


@dataclass(frozen=True, slots=True)
class Change:
    """What is changed in a series of QEMU, and the devices that the machine has, as QEMU's Kconfig calls them."""

    edits: tuple[Edit, ...]
    devices: tuple[str, ...]


def series_with_edits() -> tuple[str, ...]:
    """Return the series of QEMU that there are edits for: ``7.2``."""
    return tuple(sorted(path.stem.removeprefix("edits-") for path in HERE.glob("edits-*.toml")))


def load_change(series: str) -> Change:
    """Return the change of a series of QEMU, its edits in order; SetupError: there is none."""
    path = HERE / f"edits-{series}.toml"
    if not path.is_file():
        raise SetupError(f"no edits for QEMU {series}; there are some for {', '.join(series_with_edits())}")
    found: list[Edit] = []
    table = tomllib.loads(path.read_text())
    for row in table["edit"]:
        (way,) = [name for name in WAYS if name in row]
        functions = row.get("function", "")
        for function in functions if isinstance(functions, list) else [functions]:
            found.append(Edit(row["file"], function, row["at"], way, row[way]))
    return Change(tuple(found), tuple(table["devices"]))


def apply_edits(edits: Sequence[Edit], files: Mapping[str, str]) -> Mapping[str, str]:
    """Return the texts of all files that edits are in; ``files`` are texts by name.

    SetupError names the first edit whose place is not there exactly once.
    """
    changed = dict(files)
    for edit in edits:
        changed[edit.file] = apply_edit(edit, changed[edit.file])
    return changed


def apply_edit(edit: Edit, text: str) -> str:
    """Return a file's text with one edit; SetupError: its place is not there exactly once."""
    begin, end = function_body(edit, text) if edit.function else (0, len(text))
    if not edit.at or (edit.function and edit.at == START):
        at, behind = (begin, begin) if edit.at else (end, end)
    else:
        found = text.count(edit.at, begin, end)
        if found != 1:
            raise SetupError(f"QEMU's source is not as expected: {edit.place} is there {found} times, expected once")
        at = text.index(edit.at, begin, end)
        behind = at + len(edit.at)
    if edit.way == "instead":
        return f"{text[:at]}{edit.text}{text[behind:]}"
    if edit.way == "before":
        return f"{text[:at]}{edit.text}\n{text[at:]}"
    return f"{text[:behind]}\n{edit.text}{text[behind:]}" if edit.at else f"{text}{edit.text}\n"


def function_body(edit: Edit, text: str) -> tuple[int, int]:
    """Return where the body of an edit's function begins and ends, braces left out.

    A definition is a name and its parameters in a line that begins in the first column, and a body whose braces stand
    there, too.  SetupError: there is not exactly one.
    """
    pattern = rf"^(?:[a-zA-Z].*\b)?{re.escape(edit.function)}\([^;{{}}]*\)\n{{\n"
    found = list(re.finditer(pattern, text, re.MULTILINE))
    if len(found) != 1:
        raise SetupError(
            f"QEMU's source is not as expected: {edit.file} has {len(found)} definitions of {edit.function}, "
            "expected one"
        )
    begin = found[0].end() - 1
    end = text.find("\n}", begin)
    if end < 0:
        raise SetupError(f"QEMU's source is not as expected: {edit.file}, {edit.function}: no end")
    return begin, end + 1
