# SPDX-License-Identifier: Apache-2.0
"""Keep the kernel's KVM selftests in the cache, from Debian's package of its source, and build programs with them.

Measured: 153 MB to fetch, 18 s of CPU to unpack them and to make the headers, 36 MB are kept; then 3 s of CPU for the
library and half a second for a program.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import SetupError
from harness.exit_status import ExitStatus
from harness.vm.cache import Cache, default_root, hash_inputs
from harness.vm.debian.apt import open_archive, unpack
from harness.vm.tools import Progress, quiet, require_tool, run_tool

PACKAGE = "linux-source-6.12"
RECIPE = "1"
"""Part of the key: raise it when the code below keeps other files of the same package."""
ROOM = 512 << 20
"""Bytes while it is unpacked: package, archive and the kept files."""
KVM = "tools/testing/selftests/kvm"
WANTED: tuple[str, ...] = (
    # Files that the Makefile of the KVM selftests and `make headers` read.
    *("Makefile", "scripts/*", "include/uapi/*", "include/asm-generic/*"),
    *("arch/arm64/Makefile", "arch/arm64/include/*", "arch/arm64/tools/*"),
    *("tools/lib/rbtree.c", "tools/include/*", "tools/arch/arm64/*", "tools/scripts/*", "tools/build/*"),
    *(f"{KVM}/*", "tools/testing/selftests/rseq/*", "tools/testing/selftests/*.h", "tools/testing/selftests/lib.mk"),
)
MAKE: tuple[str, ...] = ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")


def selftest_tree(cache: Cache, progress: Progress = quiet) -> Path:
    """Return a kernel tree with what KVM's selftests need; SetupError if it is not there and cannot be fetched."""
    key = hash_inputs([RECIPE, PACKAGE, platform.machine()])
    return cache.get("selftests", key, lambda work: _fetch(cache, work, progress), progress, ROOM).path / "tree"


def _fetch(cache: Cache, work: Path, progress: Progress) -> Mapping[str, object]:
    progress(f"{PACKAGE}: fetching and unpacking (150 MB, once)")
    require_tool("xz", "xz-utils")
    make = require_tool("make", "make")
    with cache.lock("apt", progress):
        archive = open_archive(cache.root / "apt", progress)
        package = archive.show(PACKAGE)
        debs = archive.download((package,))
        unpack(debs, work / "unpacked", progress)
        for deb in debs:
            deb.unlink()
    found = sorted((work / "unpacked" / "usr" / "src").glob("linux-source-*.tar.xz"))
    if len(found) != 1:
        raise SetupError(f"{PACKAGE} {package.version} has {len(found)} archives of source, expected one")
    tree = work / "tree"
    tree.mkdir()
    argv = ["tar", "-xJf", str(found[0]), "-C", str(tree), "--strip-components=1", "--wildcards"]
    run_tool([*argv, *(f"{PACKAGE}/{name}" for name in WANTED)], "unpacking KVM's selftests", progress=progress)
    shutil.rmtree(work / "unpacked")
    run_tool([make, "-s", "-C", str(tree), "ARCH=arm64", "headers"], "making the kernel's headers", progress=progress)
    return {"package": package.wanted}


def build_selftests(tree: Path, sources: Mapping[str, str], work: Path, progress: Progress = quiet) -> Sequence[Path]:
    """Build static programs with the Makefile of the kernel's KVM selftests; return them in order.

    ``sources`` are their texts by file name; ``work`` is an empty directory.  SetupError: the compiler fails.
    """
    make = require_tool("make", "make")
    here = work / "tree"
    # A program is built inside the tree, which other processes also use: all but its directory is shared.
    here.mkdir()
    _link_around(tree, here, Path(KVM) / "aarch64")
    for name, text in sources.items():
        (here / KVM / "aarch64" / name).write_text(text)
    out = work / "out"
    out.mkdir()
    programs = [f"aarch64/{name.removesuffix('.c')}" for name in sources]
    argv = [make, "-s", "-C", str(here / KVM), *MAKE, "LDFLAGS=-static", f"OUTPUT={out}"]
    run_tool([*argv, f"TEST_GEN_PROGS_aarch64={' '.join(programs)}"], "building KVM selftests", progress=progress)
    return [out / program for program in programs]


def _link_around(tree: Path, here: Path, place: Path) -> None:
    """Fill ``here`` with links to everything in a tree but one directory, which is copied."""
    first, *rest = place.parts
    for path in tree.iterdir():
        if path.name != first:
            (here / path.name).symlink_to(path)
    if rest:
        (here / first).mkdir()
        _link_around(tree / first, here / first, Path(*rest))
    else:
        shutil.copytree(tree / first, here / first)


def main() -> int:
    """Print the tree's path, for scripts; a missing tool gives one line and status 3."""
    try:
        print(selftest_tree(Cache(default_root(os.environ)), lambda line: print(f"selftests: {line}", file=sys.stderr)))
    except SetupError as error:
        print(f"shadowfuzz: {error}", file=sys.stderr)
        return ExitStatus.FAILED
    return ExitStatus.OK


if __name__ == "__main__":
    sys.exit(main())
