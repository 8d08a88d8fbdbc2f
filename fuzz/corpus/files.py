# SPDX-License-Identifier: Apache-2.0
"""Find and read the scenarios of files and directories; files of a campaign's corpus have no suffix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError
from harness.scenario.scenario import Scenario, load

SUFFIX = ".scn"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Scenarios by their files; ``invalid`` are files in directories that are no scenario."""

    scenarios: tuple[tuple[Path, Scenario], ...]
    invalid: tuple[Path, ...]


def find_scenarios(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the scenario files of ``paths``, those of a directory sorted.  InputError: a directory has none."""
    found: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                below = sorted(p for p in path.rglob(f"*{SUFFIX}") if p.is_file())
                if not below:
                    raise InputError(str(path), None, f"a directory without scenarios: expected *{SUFFIX} files in it")
                found += below
            else:
                found.append(path)  # load() reports an error in it
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(str(path), None, f"cannot be read: {reason}") from error
    return tuple(dict.fromkeys(found))


def read_corpus(paths: Sequence[Path]) -> Corpus:
    """Read files, and every file below directories.  InputError: a file is no scenario, or there is no scenario."""
    found: dict[Path, Scenario] = {}
    invalid: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found[path] = load(path)
            continue
        for each in _below(path):
            try:
                found[each] = load(each)
            except InputError:
                invalid.append(each)
    if not found:
        where = ", ".join(str(path) for path in paths)
        raise InputError(where, None, f"no scenario in it ({len(invalid)} files that are none)")
    return Corpus(tuple(found.items()), tuple(invalid))


def _below(directory: Path) -> Iterator[Path]:
    try:
        # libFuzzer names a file by its content, without a suffix.
        yield from sorted(p for p in directory.rglob("*") if p.is_file() and p.suffix in (SUFFIX, ""))
    except OSError as error:
        raise InputError(str(directory), None, f"cannot be read: {error.strerror}") from error
