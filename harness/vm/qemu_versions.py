# SPDX-License-Identifier: Apache-2.0
"""Provide several QEMU versions: the installed one, and others of this Debian release, in the cache.

Only the program is kept: a target has no device that needs a ROM, and its libraries are those of the same Debian
release.  apt fetches and checks it, as it does kernels.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import InputError, SetupError
from harness.vm.cache import Cache, Entry, hash_inputs
from harness.vm.debian.apt import Archive, Package, open_archive, record_fields, record_package, unpack
from harness.vm.debian.apt_sources import Source
from harness.vm.debian.versions import version_key
from harness.vm.tools import Progress, quiet, run_tool

QEMU = "qemu-system-aarch64"
PACKAGE = "qemu-system-arm"
KIND = "qemu"
STATE = "apt-emulators"
RECIPE = "1"
"""Part of the key: raise it when the code below makes another entry of the same package."""
ROOM = 200 << 20
"""Bytes for one version while it is unpacked, with apt's lists (measured: 180 MiB; 33 MiB are kept)."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """One QEMU: its version, such as ``10.0.2``, the first words of its command line, the Debian package's version.

    The installed QEMU has no `package`.
    """

    version: str
    command: tuple[str, ...]
    package: str = ""

    @property
    def series(self) -> str:
        """Major and minor version: ``10.0``."""
        return ".".join(self.version.split(".")[:2])

    @property
    def name(self) -> str:
        """Its name in a target's name: ``qemu-10.0``."""
        return f"qemu-{self.series}"


def read_version(command: Sequence[str]) -> str:
    """Return the version that a QEMU reports; SetupError if it does not run here."""
    status, output = run_tool([*command, "--version"], f"reading the version of {command[0]}", check=False)
    match = re.search(r"QEMU emulator version (\d+\.\d+\.\d+)", output)
    if status != 0 or match is None:
        raise SetupError(f"{command[0]} does not run here: {' '.join(output.split())[:200] or f'status {status}'}")
    return match[1]


def installed() -> Emulator:
    """Return the installed QEMU; SetupError if there is none."""
    return Emulator(read_version((QEMU,)), (QEMU,))


def fetched(cache: Cache) -> tuple[Emulator, ...]:
    """Return the versions in the cache, in order."""
    entries = (entry for entry in cache.entries(KIND) if entry.facts.get("recipe") == RECIPE)
    return tuple(sorted(map(_emulator, entries), key=lambda e: version_key(e.version)))


def present(cache: Cache) -> tuple[Emulator, ...]:
    """Return the QEMUs that are present, the installed one first; of one series only the first."""
    found: dict[str, Emulator] = {}
    for emulator in (installed(), *reversed(fetched(cache))):
        found.setdefault(emulator.series, emulator)
    return tuple(found.values())


def find(cache: Cache, wanted: str) -> Emulator | None:
    """Return the QEMU of a version, or of a prefix of one, if it is present; never fetches."""
    return next((e for e in present(cache) if begins(e.version, wanted)), None)


def obtain(cache: Cache, wanted: str, progress: Progress = quiet) -> Emulator:
    """Return the QEMU of a version, or of a prefix of one; it is fetched if it is not present.

    InputError: the archive has no such version.  SetupError: it cannot be fetched, or does not run here.
    """
    found = find(cache, wanted)
    if found is not None:
        return found
    offers = offered(cache, progress)
    fitting = [package for package in offers if begins(upstream(package.version), wanted)]
    if not fitting:
        names = dict.fromkeys((installed().version, *(upstream(package.version) for package in offers)))
        raise InputError(
            f"qemu-{wanted}", None, f"no such QEMU here or in Debian's archive; expected one of {', '.join(names)}"
        )
    return fetch(cache, fitting[-1], progress)


def offered(cache: Cache, progress: Progress = quiet) -> tuple[Package, ...]:
    """Return the versions of QEMU in the suites of this machine's release, backports included, in order."""
    with cache.lock(STATE, progress):
        archive = _open(cache, progress)
        argv = ["apt-cache", "show", "--all-versions", f"{PACKAGE}:{archive.build_architecture}"]
        status, output = run_tool(argv, f"looking up {PACKAGE}", env=archive.environment, check=False)
    if status != 0:
        raise SetupError(f"Debian's archive offers no {PACKAGE}: {archive.offline_reason or 'no list contains it'}")
    records = (record for record in output.split("\n\n") if record.startswith("Package: "))
    found = {record_package(record_fields(record)) for record in records}
    return tuple(sorted(found, key=lambda package: version_key(package.version)))


def fetch(cache: Cache, package: Package, progress: Progress = quiet) -> Emulator:
    """Return the QEMU of a package, fetched and unpacked if it is not in the cache."""
    key = hash_inputs([RECIPE, platform.machine(), package.wanted, package.sha256])
    return _emulator(cache.get(KIND, key, lambda work: _build(cache, package, work, progress), progress, ROOM))


def upstream(version: str) -> str:
    """Return QEMU's version from a package's: ``10.0.2`` from ``1:10.0.2+ds-2+deb13u1~bpo12+1``."""
    return re.sub(r"^\d+:", "", version).split("+")[0].split("-")[0]


def begins(version: str, wanted: str) -> bool:
    """Whether `wanted` is a version or a prefix of whole components: 10.0 matches 10.0.2, 1 does not."""
    return version == wanted or version.startswith(f"{wanted}.")


def backports(configured: Iterable[Source], codename: str) -> tuple[Source, ...]:
    """Return the release's backports on the mirrors that this machine uses for the release itself."""
    main = [s for s in configured if s.suite.rstrip("/") == codename and not s.uri.rstrip("/").endswith("-security")]
    return tuple(dict.fromkeys(replace(s, suite=f"{codename}-backports") for s in main))


def _open(cache: Cache, progress: Progress) -> Archive:
    state = cache.root / STATE
    state.mkdir(parents=True, exist_ok=True)
    return open_archive(state, progress, offer=backports)


def _build(cache: Cache, package: Package, work: Path, progress: Progress) -> Mapping[str, object]:
    progress(f"QEMU {upstream(package.version)}: fetching and unpacking")
    with cache.lock(STATE, progress):
        # The lists are present: the package was found in them.
        debs = Archive(cache.root / STATE, "", "", progress).download([package])
    unpack(debs, work / "unpacked", progress)
    program = work / QEMU
    (work / "unpacked" / "usr" / "bin" / QEMU).rename(program)
    shutil.rmtree(work / "unpacked")  # the 32-bit program and documents
    version = read_version((str(program),))
    with cache.lock(STATE, progress):
        shutil.rmtree(cache.root / STATE)  # 100 MB of lists and a package that are not needed any more
    return {"recipe": RECIPE, "version": version, "package": package.version}


def _emulator(entry: Entry) -> Emulator:
    return Emulator(str(entry.facts["version"]), (str(entry.path / QEMU),), str(entry.facts["package"]))
