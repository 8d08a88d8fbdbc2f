# SPDX-License-Identifier: Apache-2.0
"""Versions of Debian packages: they sort as by dpkg, and contain the version of Linux."""

from __future__ import annotations

import random
import subprocess
from itertools import pairwise

from harness.vm.debian.kernel_archive import source_version
from harness.vm.debian.versions import linux_version, version_key

ORDERED = (
    *("6.1.164-1", "6.1.170-2", "6.1.192-1", "6.12.74-2~bpo12+1", "6.12.74-2", "6.12.90-1~bpo12+1", "6.12.90-1"),
    *("6.12.117-1~deb12u1", "6.12.117-1", "7.2~rc3-1~exp1", "7.2.6-1~bpo13+1", "7.2.13-1", "1:1.0-1"),
)


def test_versions_sort_as_dpkg_sorts_them() -> None:
    shuffled = random.Random(1).sample(ORDERED, len(ORDERED))
    assert tuple(sorted(shuffled, key=version_key)) == ORDERED
    for low, high in pairwise(ORDERED):
        assert subprocess.run(["dpkg", "--compare-versions", low, "lt", high], check=False).returncode == 0


def test_other_text_sorts_too() -> None:
    """Names of targets: a version with an emulator, a wildcard, a directory, no version at all."""
    names = ("", "/home/dev/linux", "6.1.164-1", "6.1.164-1%cortex-a76", "6.1.170-2", "7.3.*", "7.3.4-1")
    assert tuple(sorted(set(names), key=version_key)) == names


def test_parts_of_versions() -> None:
    assert linux_version("6.12.117+deb13-cloud-arm64") == (6, 12)
    assert linux_version("trixie") == (0, 0)
    assert source_version("6.12.117-1~deb12u1") == source_version("6.12.117-1") == "6.12.117-1"
    assert source_version("7.3.4-1~bpo13+1") == "7.3.4-1"
