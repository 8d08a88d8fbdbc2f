# SPDX-License-Identifier: Apache-2.0
"""Other versions of QEMU for targets to run on: which are here, and fetching those that the archive offers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from harness.vm import qemu_versions
from harness.vm.cache import Cache, default_root
from harness.vm.qemu_versions import Emulator


def emulators_here() -> Sequence[Emulator]:
    """Return the versions of QEMU that are here, the machine's own first.  SetupError: not even that one."""
    return qemu_versions.present(Cache(default_root(os.environ)))


def fetch_emulators(progress: Callable[[str], None]) -> Sequence[Emulator]:
    """Fetch each series of QEMU that the archive offers, if only the machine's own is here; return all that are."""
    cache = Cache(default_root(os.environ))
    alone = len(qemu_versions.present(cache)) == 1
    for package in reversed(qemu_versions.offered(cache, progress)) if alone else ():  # of a series the newest
        series = ".".join(qemu_versions.upstream(package.version).split(".")[:2])
        if qemu_versions.find(cache, series) is None:
            qemu_versions.fetch(cache, package, progress)
    return qemu_versions.present(cache)
