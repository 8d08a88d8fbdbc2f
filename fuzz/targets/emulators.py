# SPDX-License-Identifier: Apache-2.0
"""List the installed versions of QEMU, and fetch others from the archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from harness.vm import qemu_versions
from harness.vm.cache import Cache, default_root
from harness.vm.qemu_versions import Emulator


def emulators_here() -> Sequence[Emulator]:
    """Return the installed versions of QEMU, the machine's own first.  SetupError: that one is missing."""
    return qemu_versions.present(Cache(default_root(os.environ)))


def fetch_emulators(progress: Callable[[str], None]) -> Sequence[Emulator]:
    """Fetch each series of QEMU of the archive, if only the machine's own is installed; return all installed ones."""
    cache = Cache(default_root(os.environ))
    alone = len(qemu_versions.present(cache)) == 1
    for package in reversed(qemu_versions.offered(cache, progress)) if alone else ():  # the newest of each series
        series = ".".join(qemu_versions.upstream(package.version).split(".")[:2])
        if qemu_versions.find(cache, series) is None:
            qemu_versions.fetch(cache, package, progress)
    return qemu_versions.present(cache)
