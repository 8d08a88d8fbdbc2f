# SPDX-License-Identifier: Apache-2.0
"""Read the entries about KVM on arm64 between two kernels from Debian's changelog.

Format: deb-changelog(5).  The file is the one in the kernel's package.
"""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.vm.debian.kernel_archive import source_version
from harness.vm.debian.versions import version_key

ITEM = re.compile(r"\s+[*+-]\s+")
UPSTREAM = re.compile(r"New upstream (?:stable )?(?:release|update)[^\n]*")


@dataclass(frozen=True, slots=True)
class Note:
    """An item of the changelog, in one line, with its version."""

    version: str
    text: str


def read_changelog(path: Path) -> str:
    """Return a compressed changelog's text; SetupError if it cannot be read."""
    try:
        return gzip.decompress(path.read_bytes()).decode(errors="replace")
    except (OSError, EOFError) as error:
        raise SetupError(f"{path}: not a changelog: {error}") from error


def notes(text: str, after: str, upto: str) -> Iterator[Note]:
    """Yield the items about KVM on arm64 of the versions after one and up to another.

    An item is about KVM on arm64 if it contains both words, in any case.  For a new upstream release Debian's changelog
    does not list the changes, only the release: see :func:`upstream`.
    """
    for version, item in _items(text, after, upto):
        if re.search(r"\bKVM\b", item) and re.search(r"arm64|aarch64", item, re.IGNORECASE):
            yield Note(version, item)


def upstream(text: str, after: str, upto: str) -> tuple[str, ...]:
    """Return the versions between two whose changelog only names a new upstream release."""
    found = (version for version, item in _items(text, after, upto) if re.match("New upstream release", item))
    return tuple(dict.fromkeys(found))


def _items(text: str, after: str, upto: str) -> Iterator[tuple[str, str]]:
    from debian.changelog import Changelog  # 30 ms, which a command that reads no changelog does not need

    logging.getLogger(Changelog.__module__).setLevel(logging.CRITICAL)  # else it prints each malformed line
    low, high = version_key(source_version(after)), version_key(source_version(upto))
    for block in Changelog(text, strict=False):
        # The entry of the signed kernel has the version 6.12.117+1 for 6.12.117-1.
        version = re.sub(r"^([^-]*)\+(\d+(?:~.*)?)$", r"\1-\2", str(block.version))
        if low < version_key(source_version(version)) <= high:
            yield from ((version, item) for item in _joined(block.changes()))


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Yield the items of an entry's lines, each in one line."""
    item = ""
    for line in (*lines, ""):
        if item and line.startswith("   ") and not ITEM.match(line):
            item += " " + line.strip()
            continue
        if item:
            yield item
        item = ITEM.sub("", line, count=1).strip() if ITEM.match(line) else ""
