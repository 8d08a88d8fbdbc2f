# SPDX-License-Identifier: Apache-2.0
"""Order Debian versions, and read the kernel's version from a release."""

from __future__ import annotations

import re

_VERSION = re.compile(r"[A-Za-z0-9.+~:-]*")
"""Characters of a version: deb-version(7)."""

Key = tuple[object, ...]


def version_key(version: str) -> Key:
    """Return a key that sorts versions as dpkg does.

    Other characters, such as the ``%`` in a target's name, sort after the version before them.
    """
    from debian.debian_support import NativeVersion  # 10 ms, which a command that sorts no versions does not need

    known = _VERSION.match(version)
    end = 0 if known is None else known.end()
    return NativeVersion(version[:end] or "~"), version[end:]


def linux_version(release: str) -> tuple[int, int]:
    """Return major and minor of a release or package version such as ``6.12.117+deb13``; (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (0, 0) if match is None else (int(match[1]), int(match[2]))
