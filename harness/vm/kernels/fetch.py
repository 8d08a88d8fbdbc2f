# SPDX-License-Identifier: Apache-2.0
"""Keep kernels of the whole archive in the cache: their list, and for each the image and headers that build here.

Three kinds of entry: ``image`` (Image and changelog), ``headers`` (headers with build tools that run on this machine),
and the programs that :mod:`harness.vm.build.prepare` compiles.  .deb files stay until their entry is complete, so that
a killed download continues where it stopped.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import InputError, SetupError
from harness.vm.cache import Cache, Entry, hash_inputs
from harness.vm.debian.apt import Archive, Package, open_archive, release_codename, unpack
from harness.vm.debian.kernel_archive import RELEASES, Kernel, Kernels, read_lists, recall, remember, suite_sources
from harness.vm.debian.versions import version_key
from harness.vm.kernels.btf import read_btf
from harness.vm.kernels.files import (
    find_changelog,
    find_headers,
    find_image,
    hide_unused,
    make_relocatable,
    read_image,
    wrap_tools,
)
from harness.vm.kernels.vcpu_layout import why_incompatible
from harness.vm.tools import Progress, quiet

STATE = "apt-suites"
IMAGE_RECIPE, HEADERS_RECIPE = "1", "2"
"""Part of the keys: raise it when the code below makes other entries of the same packages."""
ROOM = 400 << 20
"""Bytes for one kernel while it is unpacked (measured: 300 MiB; 35 and 100 MiB are kept)."""
CHANGELOG = "changelog.gz"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A kernel in the cache; `headers` may be None; `donor` is the kernel that they are from, if another one."""

    kernel: Kernel
    image: Entry
    headers: Entry | None
    donor: Kernel | None = None


def load_kernels(cache: Cache, progress: Progress = quiet, *, refresh: bool = False) -> Kernels:
    """Return the archive's kernels as last read; read them now if needed.  SetupError: they cannot be read."""
    state = cache.root / STATE
    known = None if refresh else recall(state)
    if known is not None:
        return known
    with cache.lock(STATE, progress):
        now = read_lists(_open(cache, progress))
        if not now.kernels:
            raise SetupError(f"cannot list Debian's kernels: {'; '.join(dict.fromkeys(now.missing.values()))}")
        return remember(state, now)


def _open(cache: Cache, progress: Progress) -> Archive:
    state = cache.root / STATE
    state.mkdir(parents=True, exist_ok=True)
    return open_archive(state, progress, offer=suite_sources)


def find_kernel(cache: Cache, wanted: str, progress: Progress = quiet) -> Kernel:
    """Return the kernel of a version or a prefix of it; the archive is read again if none is known."""
    known = recall(cache.root / STATE)
    if known is not None:
        with suppress(InputError):
            return known.find(wanted)
    return load_kernels(cache, progress, refresh=True).find(wanted)


def image_key(kernel: Kernel) -> str:
    """Return the key of a kernel's ``image`` entry."""
    return hash_inputs([IMAGE_RECIPE, *(package.wanted for package in kernel.image)])


def headers_key(kernel: Kernel) -> str:
    """Return the key of a kernel's ``headers`` entry."""
    packages = (*kernel.headers, *_foreign(kernel))
    return hash_inputs([HEADERS_RECIPE, platform.machine(), *(package.wanted for package in packages)])


def find_fetched(cache: Cache, kernel: Kernel) -> Fetched | None:
    """Return a kernel if all its parts are in the cache; never fetches."""
    image = cache.find("image", image_key(kernel))
    headers = cache.find("headers", headers_key(kernel)) if kernel.headers else None
    return None if image is None or (kernel.headers and headers is None) else Fetched(kernel, image, headers)


def fetch(cache: Cache, kernel: Kernel, progress: Progress = quiet) -> Fetched:
    """Return a kernel; parts that are not in the cache are fetched and unpacked.  SetupError: they cannot be."""
    found = find_fetched(cache, kernel)
    if found is not None:
        return found
    if not kernel.listed:
        raise SetupError(f"Linux {kernel.version} is no longer in Debian's archive, and not in the cache")
    image = cache.get(
        "image", image_key(kernel), lambda work: _build_image(cache, kernel, work, progress), progress, ROOM
    )
    headers = None
    if kernel.headers:
        headers = cache.get(
            "headers", headers_key(kernel), lambda work: _build_headers(cache, kernel, work, progress), progress, ROOM
        )
    return Fetched(kernel, image, headers)


def borrow(cache: Cache, fetched: Fetched, progress: Progress = quiet) -> Fetched:
    """Return a kernel without headers with those of the nearest kernel that fits; SetupError if none fits."""
    own = read_btf(fetched.image.path / "Image")
    why = "no other kernel has headers"
    for donor in donors(fetched.kernel, load_kernels(cache, progress).kernels):
        lent = fetch(cache, donor, progress)
        why = why_incompatible(own, read_btf(lent.image.path / "Image"))
        if not why:
            return replace(fetched, headers=lent.headers, donor=donor)
    raise SetupError(
        f"Linux {fetched.kernel.version} has no headers in Debian's archive, and no other kernel's headers fit: {why}"
    )


def donors(kernel: Kernel, kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Return the kernels whose headers may fit, the most likely first: the next newer, the next older.

    Further kernels would be of the same two series, with similar headers.
    """
    listed = [k for k in kernels if k.headers and k.listed]
    above = [k for k in listed if version_key(k.version) > version_key(kernel.version)]
    below = [k for k in listed if version_key(k.version) < version_key(kernel.version)]
    near = (*above[:1], *below[-1:])
    return tuple(sorted(near, key=lambda k: k.linux != kernel.linux))


def _download(cache: Cache, kernel: Kernel, packages: tuple[Package, ...], progress: Progress) -> tuple[Path, ...]:
    with cache.lock(STATE, progress):
        state = cache.root / STATE
        # The lists are present: the kernel was found in them.
        archive = Archive(state, "", "", progress)
        try:
            return archive.download(packages)
        except SetupError as error:
            text = str(error)
        known = remember(state, read_lists(_open(cache, progress)))
        if not any(k.version == kernel.version and k.listed for k in known.kernels):
            raise SetupError(f"Linux {kernel.version} is no longer in Debian's archive")
        raise SetupError(text)


def _build_image(cache: Cache, kernel: Kernel, work: Path, progress: Progress) -> Mapping[str, object]:
    progress(f"Linux {kernel.version}: fetching and unpacking")
    debs = _download(cache, kernel, kernel.image, progress)
    unpack(debs, work / "unpacked", progress)
    find_image(work / "unpacked").rename(work / "Image")
    changelog = find_changelog(work / "unpacked")
    if changelog is not None:
        changelog.rename(work / CHANGELOG)
    shutil.rmtree(work / "unpacked")  # the package's modules: KVM and all that the agent needs is built in
    facts = read_image(work / "Image")
    _forget(debs)
    return {
        "package": kernel.image[0].name,
        "version": kernel.version,
        "release": facts.release,
        "sha256": facts.sha256,
    }


def _build_headers(cache: Cache, kernel: Kernel, work: Path, progress: Progress) -> Mapping[str, object]:
    if any(character.isspace() or character == ":" for character in str(work)):
        raise SetupError(f"no kernel module can be built in {cache.root}: set XDG_CACHE_HOME to a path without spaces")
    progress(f"Linux {kernel.version}: headers")
    foreign = _foreign(kernel)
    debs = _download(cache, kernel, (*kernel.headers, *foreign), progress)
    unpack(debs[: len(kernel.headers)], work / "unpacked", progress)
    headers = find_headers(work / "unpacked")
    make_relocatable(headers)
    hide_unused(headers)
    (work / "unpacked" / "usr").rename(work / "usr")
    shutil.rmtree(work / "unpacked")
    if foreign:
        unpack(debs[len(kernel.headers) :], work / "usr" / "libs", progress)
        for tools in (work / "usr" / "lib").glob("linux-kbuild-*"):
            wrap_tools(tools, work / "usr" / "libs")
    _forget(debs)
    return {
        "headers": f"usr/src/{headers.name}",
        "release": headers.name.removeprefix("linux-headers-"),
        "packages": [package.wanted for package in (*kernel.headers, *foreign)],
    }


def _foreign(kernel: Kernel) -> tuple[Package, ...]:
    """Return the libraries that the build tools need, if they are of a newer Debian than this machine's."""
    codename = release_codename(Path("/etc"))
    own = RELEASES.index(codename) if codename in RELEASES else len(RELEASES)
    newest = max((RELEASES.index(r) for r in RELEASES for s in kernel.suites if s.startswith(r)), default=0)
    return kernel.libraries if newest > own else ()


def _forget(debs: tuple[Path, ...]) -> None:
    for deb in debs:
        deb.unlink(missing_ok=True)
