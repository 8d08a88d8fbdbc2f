# SPDX-License-Identifier: Apache-2.0
"""List every arm64 cloud kernel of Debian's archive: suites, packages of each kernel, features.

apt fetches and verifies the lists, in a private state next to the one of the machine's release.  Kernels that were
listed once are kept in ``kernels.json``, so that a kernel that has left the archive can be reported as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import InputError
from harness.vm.debian.apt import Archive, Package, record_fields, record_package
from harness.vm.debian.apt_sources import Source
from harness.vm.debian.versions import linux_version, version_key
from harness.vm.tools import run_tool

STATE_FILE = "kernels.json"
FLAVOUR = "cloud-arm64"

RELEASES: tuple[str, ...] = ("bookworm", "trixie", "sid")
"""Debian releases whose kernels are offered, the oldest first."""

POCKETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"bookworm": ("", "-updates", "-backports"), "trixie": ("", "-updates", "-backports"), "sid": ("",)}
)
"""Suites of each release in the main archive; its security suite, if any, is in the security archive."""

TOOL_LIBRARIES: tuple[str, ...] = (*("libc6", "libelf1", "libelf1t64", "zlib1g", "libssl3", "libssl3t64", "libzstd1"),)
"""Libraries that the programs of linux-kbuild are linked with, by the package names of all releases."""

LIBELF_NEEDS: tuple[str, ...] = ("libc6", "zlib1g", "libzstd1")
"""Libraries that libelf itself is linked with (its Depends)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of the archive.

    `version` is the package's, `release` is ``uname -r`` without the flavour; `size` is the sum of its packages in
    bytes.  `image` and `headers` are packages; without headers no recording module can be built for it from the archive
    alone.  `listed`: the archive offers it now.
    """

    version: str
    release: str
    suites: tuple[str, ...]
    image: tuple[Package, ...]
    headers: tuple[Package, ...]
    libraries: tuple[Package, ...] = ()
    size: int = 0
    listed: bool = True

    @property
    def uname(self) -> str:
        """The value of ``uname -r``."""
        return f"{self.release}-{FLAVOUR}"

    @property
    def linux(self) -> tuple[int, int]:
        """The kernel's own major and minor version."""
        return linux_version(self.version)


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that targets can use from a kernel version on."""

    name: str
    since: tuple[int, int]
    source: str


FEATURES: tuple[Feature, ...] = (
    Feature("nVHE", (3, 9), "arch/arm64/kvm/arm.c: KVM's first mode on Arm"),
    Feature("VHE", (4, 6), 'arch/arm64/kvm/hyp/vhe/switch.c; series "arm64: KVM: VHE" of 4.6; an Armv8.1 CPU'),
    Feature("protected", (5, 12), "Documentation/admin-guide/kernel-parameters.txt, kvm-arm.mode=protected"),
    Feature("protected VMs", (7, 1), "Documentation/virt/kvm/arm/pkvm.rst of 7.1: KVM_CREATE_VM type bit 31"),
)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The known kernels of the archive in version order, and the suites that could not be read, with the reason."""

    kernels: tuple[Kernel, ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    def find(self, wanted: str) -> Kernel:
        """Return the kernel of a release or package version, or of a prefix; InputError unless exactly one matches.

        ``6.12.117`` may be built for several Debian releases; rebuilds of one source version count as one, and the
        build for the older Debian is returned.  ``7.3.*`` is the newest kernel with this prefix.
        """
        if wanted.endswith(".*"):
            newest = [k for k in self.kernels if k.listed and _begins(k.version, wanted.removesuffix(".*"))]
            if newest:
                return max(newest, key=lambda k: version_key(k.version))
        exact = [k for k in self.kernels if wanted in (k.version, k.release, k.uname)]
        found = exact or [k for k in self.kernels if _begins(k.version, wanted) or _begins(k.release, wanted)]
        if not found:
            raise InputError(wanted, None, f"no such kernel; {self._summary()}")
        if len(found) > 1 and len({source_version(k.version) for k in found}) > 1:
            names = ", ".join(k.version for k in found[:6]) + (", ..." if len(found) > 6 else "")
            raise InputError(wanted, None, f"{len(found)} kernels match: {names}")
        return min(found, key=lambda k: version_key(k.version))

    def _summary(self) -> str:
        series = dict.fromkeys(f"{major}.{minor}" for major, minor in (k.linux for k in self.kernels))
        return f"there are {len(self.kernels)} of {', '.join(series)} (shadowfuzz kernels list)"


def _begins(version: str, wanted: str) -> bool:
    """Whether `wanted` is a prefix of whole components: 6.1 matches 6.1.192 but not 6.12."""
    rest = version.removeprefix(wanted)
    return rest != version and not (wanted[-1:].isdigit() and rest[:1].isdigit())


def source_version(version: str) -> str:
    """Return the source version of a rebuild: ``6.12.117-1`` for ``6.12.117-1~deb12u1``."""
    return re.sub(r"~(bpo|deb)\d+[u+]\d+$", "", version)


def suite_sources(configured: Iterable[Source], codename: str) -> tuple[Source, ...]:
    """Return every suite of :data:`RELEASES` on the mirrors that this machine uses for its own release.

    A mirror ``.../debian`` usually has ``.../debian-security`` next to it.  The keyring is the machine's: apt reports a
    missing key of a release.
    """
    known = tuple(configured)
    main = [s for s in known if s.suite.rstrip("/") == codename and not s.uri.rstrip("/").endswith("-security")]
    security = [s for s in known if s.suite.rstrip("/") in (f"{codename}-security", f"{codename}/updates")]
    if not security:
        mirrors = [s for s in main if s.uri.rstrip("/").endswith("/debian")]
        security = [replace(s, uri=f"{s.uri.rstrip('/')}-security") for s in mirrors]
    rows: list[Source] = []
    for release in RELEASES:
        rows += [replace(s, suite=release + pocket) for s in main for pocket in POCKETS[release]]
        if "-updates" in POCKETS[release]:
            rows += [replace(s, suite=f"{release}-security") for s in security]
    return tuple(dict.fromkeys(rows))


def read_lists(archive: Archive) -> Kernels:
    """Return the kernels in the lists that apt fetched, and the error of each suite that it could not fetch."""
    argv = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(ARCHITECTURE)|$(FILENAME)"]
    _, output = run_tool([*argv, "Created-By: Packages"], "asking apt for its lists", env=archive.environment)
    seen: dict[Package, tuple[int, set[str]]] = {}
    suites: set[str] = set()
    for line in output.splitlines():
        origin, suite, architecture, path = line.split("|", 3)
        # Only lists whose signed Release file has a Debian origin.
        if origin not in ("Debian", "Debian Backports") or architecture not in ("arm64", archive.build_architecture):
            continue
        _, text = run_tool(["/usr/lib/apt/apt-helper", "cat-file", path], f"reading {path}", env=archive.environment)
        suites.add(suite)
        for package, size in _records(text):
            seen.setdefault(package, (size, set()))[1].add(suite)
    wanted = {release + pocket for release in RELEASES for pocket in POCKETS[release]}
    wanted |= {f"{release}-security" for release in RELEASES if "-updates" in POCKETS[release]}
    reason = archive.offline_reason or "its list was not fetched (is its key in the package debian-archive-keyring?)"
    missing = dict.fromkeys(sorted(wanted - suites), reason)
    return Kernels(tuple(assemble(seen, archive.build_architecture)), missing)


_NAMES = re.compile(r"linux-(image|binary|base|headers|kbuild)-\d.*")


def _records(text: str) -> Iterator[tuple[Package, int]]:
    for record in text.split("\n\n"):
        name = record[9 : record.find("\n")] if record.startswith("Package: ") else ""
        if name in TOOL_LIBRARIES or (_NAMES.fullmatch(name) and not name.endswith(("-dbg", "-unsigned"))):
            fields = record_fields(record)
            yield record_package(fields), int(fields.get("Size", "0"))


def assemble(seen: Mapping[Package, tuple[int, set[str]]], build_architecture: str) -> Iterator[Kernel]:
    """Yield a kernel for each image among the packages, in version order, with its other packages."""
    by_name: dict[tuple[str, str], list[Package]] = {}
    for package in seen:
        by_name.setdefault((package.name, package.architecture), []).append(package)

    def exact(name: str, version: str, architecture: str = "arm64") -> list[Package]:
        found = [p for a in (architecture, "all") for p in by_name.get((name, a), ()) if p.version == version]
        return found[:1]

    found: list[Kernel] = []
    for package, (_, suites) in seen.items():
        match = re.fullmatch(rf"linux-image-(\d+\.\d+\.\d+.*)-{FLAVOUR}", package.name)
        if match is None or package.architecture != "arm64":
            continue
        release, version = match[1], package.version
        base = exact(f"linux-base-{release}-{FLAVOUR}", version)
        image = exact(f"linux-binary-{release}-{FLAVOUR}", version) + base or [package]
        headers = exact(f"linux-headers-{release}-{FLAVOUR}", version)
        common = [c for h in headers for d in h.depends if "-common" in d for c in exact(d, version)]
        tools = [t for h in headers for d in h.depends if d.startswith("linux-kbuild-")
                 for t in by_name.get((d, build_architecture), ())]  # fmt: skip
        same = [t for t in tools if t.version == version] or sorted(tools, key=lambda t: version_key(t.version))[-1:]
        whole = (*headers, *common, *same) if headers and common and same else ()
        release_of = next((r for r in reversed(RELEASES) if any(s.startswith(r) for s in suites)), RELEASES[0])
        libraries = [
            max(there, key=lambda p: version_key(p.version))
            for name in TOOL_LIBRARIES
            if (whole and any(name in t.depends for t in same)) or name in ("libc6", "libzstd1")
            if (there := [p for p in by_name.get((name, build_architecture), ()) if release_of in seen[p][1]])
        ]
        size = sum(seen[p][0] for p in (*image, *whole))
        found.append(Kernel(version, release, tuple(sorted(suites)), tuple(image), whole, tuple(libraries), size))
    yield from sorted(found, key=lambda kernel: version_key(kernel.version))


def remember(state: Path, now: Kernels) -> Kernels:
    """Add the kernels that were listed before and are no longer listed, save all of them, and return them."""
    listed = {kernel.version for kernel in now.kernels}
    before = recall(state)
    gone = [replace(k, listed=False) for k in (before.kernels if before else ()) if k.version not in listed]
    both = Kernels(tuple(sorted((*now.kernels, *gone), key=lambda k: version_key(k.version))), now.missing)
    rows = {"missing": dict(both.missing), "kernels": [asdict(kernel) for kernel in both.kernels]}
    partial = state / f"{STATE_FILE}.new"
    partial.write_text(json.dumps(rows, indent=1))
    partial.replace(state / STATE_FILE)
    return both


def recall(state: Path) -> Kernels | None:
    """Return the kernels that :func:`remember` saved; None if the file is missing or unreadable."""
    try:
        rows = json.loads((state / STATE_FILE).read_bytes())
        return Kernels(tuple(_kernel(row) for row in rows["kernels"]), rows["missing"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kernel(row: dict[str, Any]) -> Kernel:
    for name in ("image", "headers", "libraries"):
        row[name] = tuple(Package(**{**package, "depends": tuple(package["depends"])}) for package in row[name])
    row["suites"] = tuple(row["suites"])
    return Kernel(**row)
