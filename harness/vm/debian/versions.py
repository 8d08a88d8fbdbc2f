# SPDX-License-Identifier: Apache-2.0
"""Order Debian versions, and read the kernel's version from a release."""

from __future__ import annotations

import re

Key = tuple[object, ...]


def version_key(version: str) -> Key:
    """Return a key that sorts versions as dpkg does.

    Source: deb-version(7), "Sorting algorithm": runs of other characters and of digits in turn; a tilde before
    everything, even the end; letters before the rest.
    """
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return int(epoch) if epoch.isdigit() else 0, _part_key(upstream), _part_key(revision)


def _part_key(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    runs = re.findall(r"(\D*)(\d*)", text)
    # The end is an empty run and a zero: "1" sorts after "1~" and before "1a".
    return (*(((*map(_order, other), 0), int(digits or 0)) for other, digits in runs if other or digits), ((0,), 0))


def _order(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)


def linux_version(release: str) -> tuple[int, int]:
    """Return major and minor of a release or package version such as ``6.12.117+deb13``; (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (0, 0) if match is None else (int(match[1]), int(match[2]))
