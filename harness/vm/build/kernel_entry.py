# SPDX-License-Identifier: Apache-2.0
"""Make the cache entry of a target's kernel: from a package, from the whole archive, or from a build directory.

Its facts: ``package`` and ``version``, ``release``, ``sha256`` of the image, ``headers`` (a path from the entry's),
``packages`` that it was made of; ``image``, if it is in another directory; ``borrowed``, the kernel whose headers are
used; ``clang`` and ``symbols`` of a build directory.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from harness.errors import SetupError
from harness.vm.cache import Cache, Entry, hash_inputs
from harness.vm.config import MachineConfig, Mode, list_configs, load_config
from harness.vm.debian.apt import Archive, Package, open_archive, release_codename, unpack
from harness.vm.debian.kernel_archive import recall
from harness.vm.debian.versions import linux_version
from harness.vm.kernels.fetch import STATE, Fetched, borrow, fetch, find_fetched, find_kernel
from harness.vm.kernels.files import find_headers, find_image, make_relocatable, read_image
from harness.vm.kernels.needed_config import ALWAYS, Use, missing_symbols
from harness.vm.kernels.tree import CONFIG, BuildTree, read_tree
from harness.vm.tools import Progress, quiet

KERNEL_RECIPE, TREE_RECIPE = "1", "1"
"""Parts of the entries' keys: raise them when the code below makes another entry of the same packages or files."""

KERNEL_ROOM = 512 << 20
"""Bytes for one kernel while it is unpacked, with its packages and apt's lists (measured: 340 MiB; 120 to 150 MiB are
kept)."""
TREE_ROOM = 512 << 20
TREES_KEPT = 6
"""Number of images of build directories that are kept, the last used (20 to 60 MB each)."""


def kernel_entry(config: MachineConfig, cache: Cache, progress: Progress) -> Entry:
    """Return the kernel that a target boots, with its headers; parts that are not in the cache are fetched or copied.

    InputError, SetupError: the kernel does not exist, or does not fit this target.
    """
    if config.kernel_tree is not None:
        tree = read_tree(config.kernel_tree)
        check_configuration(tree, config.mode)
        return cache.get(
            *("tree", _tree_key(tree), lambda work: _copy_tree(tree, config.like, work, progress), progress, TREE_ROOM),
            keep=TREES_KEPT,
        )
    version = archive_version(config, _codename())
    if version:
        return _pinned(cache, fetch(cache, find_kernel(cache, version, progress), progress), progress)
    entry = cache.get(
        "kernel",
        _kernel_key(config),
        lambda work: _build_kernel(config, cache, work, progress),
        progress,
        KERNEL_ROOM,
    )
    check_series(config, str(entry.facts["package"]), str(entry.facts["release"]))
    return entry


def find_kernel_entry(config: MachineConfig, cache: Cache) -> Entry | None:
    """Return the kernel if all of it is in the cache.  InputError, SetupError: as :func:`kernel_entry`."""
    if config.kernel_tree is not None:
        return cache.find("tree", _tree_key(read_tree(config.kernel_tree)))
    version = archive_version(config, _codename())
    if not version:
        entry = cache.find("kernel", _kernel_key(config))
        if entry is not None:
            check_series(config, str(entry.facts["package"]), str(entry.facts["release"]))
        return entry
    known = recall(cache.root / STATE)
    found = None if known is None else find_fetched(cache, known.find(version))
    return None if found is None else _pinned(cache, found)


def _pinned(cache: Cache, fetched: Fetched, progress: Progress = quiet) -> Entry:
    """Return a kernel of the archive as one entry; its image and its headers are in different directories."""
    if fetched.headers is None:
        fetched = borrow(cache, fetched, progress)
    assert fetched.headers is not None
    facts = {**fetched.headers.facts, **fetched.image.facts, "image": str(fetched.image.path / "Image")}
    if fetched.donor is not None:
        facts["borrowed"] = fetched.donor.version
    return Entry(fetched.headers.path, facts)


def check_configuration(tree: BuildTree, mode: Mode) -> None:
    """Check a kernel's configuration.  SetupError: it lacks a symbol that a target of the mode needs."""
    uses = (*ALWAYS, Use.PROTECTED) if mode is Mode.PROTECTED else ALWAYS
    found = missing_symbols((tree.path / CONFIG).read_text(errors="replace"), uses)
    if found:
        more = f" (and {len(found) - 1} more: shadowfuzz doctor --tree {tree.path})" if len(found) > 1 else ""
        raise SetupError(f"{tree.path}: {found[0].text}{more}; shadowfuzz kernels config prints what is needed")


def _tree_key(tree: BuildTree) -> str:
    # The path, because the module is built with the files there; the image, because a struct can change without a
    # change of the headers that make compares.
    return hash_inputs([TREE_RECIPE, str(tree.path), tree.release, tree.image_sha256, tree.config_sha256])


def _copy_tree(tree: BuildTree, like: str, work: Path, progress: Progress) -> Mapping[str, object]:
    """Copy the image: a later build in the directory must not change what machines boot from."""
    progress(f"{tree.path}: Linux {tree.release}; kept findings and errata are those of {like}")
    shutil.copyfile(tree.image, work / "Image")
    if read_image(work / "Image").sha256 != tree.image_sha256:
        raise SetupError(f"{tree.path}: its image was replaced while it was read; run the command again")
    facts: dict[str, object] = {"package": str(tree.path), "version": tree.release, "release": tree.release}
    facts |= {"sha256": tree.image_sha256, "headers": str(tree.path), "clang": tree.clang, "symbols": tree.symbols}
    return facts | {"packages": [tree.config_sha256]}


def _kernel_key(config: MachineConfig) -> str:
    return hash_inputs([KERNEL_RECIPE, config.kernel_package, platform.machine()])


def _build_kernel(config: MachineConfig, cache: Cache, work: Path, progress: Progress) -> Mapping[str, object]:
    if re.search(r"[\s:]", str(work)):
        # Check before 40 MB are fetched: make splits words at spaces, and Linux' Makefile refuses such a path.
        raise SetupError(f"no kernel module can be built in {cache.root}: set XDG_CACHE_HOME to a path without spaces")
    progress(f"kernel package {config.kernel_package}: fetching and unpacking")
    unpacked = work / "unpacked"
    with cache.lock("apt", progress):
        archive = open_archive(cache.root / "apt", progress)
        packages = resolve_kernel(archive, config.kernel_package)
        check_series(config, packages[0].name, packages[0].name.removeprefix("linux-image-"))
        debs = archive.download(packages)
        unpack(debs, unpacked, progress)
        for path in (cache.root / "apt" / "debs", cache.root / "apt" / "cache"):
            shutil.rmtree(path)  # 150 MB that are not needed any more; the lists stay for the next kernel
    image, headers = find_image(unpacked), find_headers(unpacked)
    release = headers.name.removeprefix("linux-headers-")
    make_relocatable(headers)
    image.rename(work / "Image")
    headers.parent.parent.rename(work / "usr")
    shutil.rmtree(unpacked)  # the package's modules: KVM and all that the agent needs is built in
    return {
        "package": packages[0].name,
        "version": packages[0].version,
        "release": release,
        "sha256": read_image(work / "Image").sha256,
        "headers": f"usr/src/{headers.name}",
        "packages": [package.wanted for package in packages],
    }


OFFERED: Mapping[tuple[str, str], str] = MappingProxyType(
    # The series of a meta package in a Debian release: packages.debian.org/RELEASE/PACKAGE.
    {
        ("linux-image-cloud-arm64", "bookworm"): "6.1",
        ("linux-image-cloud-arm64", "trixie"): "6.12",
        ("linux-image-6.12-cloud-arm64", "bookworm"): "6.12",
    }
)
"""Series by package and release; a pair that is not here is another series, or is not offered."""


def _codename() -> str:
    with suppress(SetupError):  # a kernel in the cache needs no Debian
        return release_codename(Path("/etc"))
    return ""


def archive_version(config: MachineConfig, codename: str) -> str:
    """Return the version of the kernel of the whole archive that a target boots
    (:meth:`harness.vm.debian.kernel_archive.Kernels.find`).

    Empty: the target boots its package, which is of the target's series in this Debian release.  Only the machine's own
    suites are read then.
    """
    if config.kernel_version or not config.linux:
        return config.kernel_version
    own = not codename or OFFERED.get((config.kernel_package, codename)) == config.linux
    return "" if own else f"{config.linux}.*"


def check_series(config: MachineConfig, package: str, release: str) -> None:
    """Check the series of a target's package.  SetupError: it is not the series of the target."""
    found = ".".join(map(str, linux_version(release)))
    if config.linux and found != config.linux:
        raise SetupError(f"{config.kernel_package} is {package} here, {_instead(config, found)}")


def _instead(config: MachineConfig, series: str) -> str:
    name = re.split("[@%]", config.name)[0]
    alike = (config.mode, config.cpu, series)
    same = [other.name for other in map(load_config, list_configs()) if (other.mode, other.cpu, other.linux) == alike]
    # Another Debian release may not offer the target's own package.
    or_that = f", or '{same[0]}@{series}.*' for {series}" if same else ""
    return f"but target {config.name} is Linux {config.linux}: use --target '{name}@{config.linux}.*'{or_that}"


def resolve_kernel(archive: Archive, name: str) -> tuple[Package, ...]:
    """Return the kernel package of `name` (a meta package or the package itself), then the packages that a module build
    needs.

    The headers have the image's version; the build tools (linux-kbuild) are for this machine's architecture.
    """
    image = archive.show(name)
    follow = [other for other in image.depends if re.fullmatch(r"linux-image-\d.*", other)]
    if follow:
        image = archive.show(follow[0])
    release = image.name.removeprefix("linux-image-")
    headers = archive.show(f"linux-headers-{release}")
    if headers.version != image.version:
        raise SetupError(f"the archive has {image.name} {image.version} but its headers {headers.version}; try later")
    common = [archive.show(other) for other in headers.depends if re.fullmatch(r"linux-headers-.*-common.*", other)]
    tools = [other for other in headers.depends if other.startswith("linux-kbuild-")]
    return (image, headers, *common, *(archive.show(other, archive.build_architecture) for other in tools))
