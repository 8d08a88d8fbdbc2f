# SPDX-License-Identifier: Apache-2.0
"""Read a kernel's files: its image, its headers, and build tools of another Debian release."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError, SetupError

IMAGE_MAGIC = b"ARM\x64"
IMAGE_MAGIC_OFFSET = 56
"""Documentation/arch/arm64/booting.rst, "Call the kernel image"."""
MAX_IMAGE_BYTES = 1 << 29


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts from a kernel image; the release is empty if it has no banner."""

    sha256: str
    release: str


def read_image(path: Path) -> ImageFacts:
    """Return the facts of an arm64 ``Image`` file; InputError if it is not one."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_IMAGE_BYTES:
            reason = "expected a kernel image, a file of at most 512 MiB" if path.exists() else "no such file"
            raise InputError(str(path), None, f"cannot use it as a kernel: {reason}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = str(error.strerror) if isinstance(error, OSError) else str(error)
        raise InputError(str(path), None, f"cannot read the kernel: {reason}") from error
    if data.startswith(b"\x1f\x8b"):
        raise InputError(str(path), None, "is compressed with gzip; expected an uncompressed arm64 kernel Image")
    if data[IMAGE_MAGIC_OFFSET : IMAGE_MAGIC_OFFSET + len(IMAGE_MAGIC)] != IMAGE_MAGIC:
        raise InputError(str(path), None, 'is not an arm64 kernel Image ("ARM\\x64" at byte 56)')
    banner = re.search(rb"Linux version ([!-~]{1,64}) \(", data)
    return ImageFacts(hashlib.sha256(data).hexdigest(), "" if banner is None else banner[1].decode())


def make_relocatable(headers: Path) -> None:
    """Make header trees usable in any directory: their Makefile includes
    ``/usr/src/linux-headers-...-common/Makefile``.

    From 7.x on it also names its own directory there.  make runs in that directory, so a relative path works; the other
    links in the packages are relative.
    """
    makefile = headers / "Makefile"
    makefile.write_text(re.sub(r"(?m)^(include |KBUILD_OUTPUT=)/usr/src/", r"\1../", makefile.read_text()))


def find_image(unpacked: Path) -> Path:
    """Return the kernel image of an unpacked package; SetupError if there is not exactly one."""
    images = [*unpacked.glob("boot/vmlinuz-*"), *unpacked.glob("usr/lib/modules/*/vmlinuz")]
    if len(images) != 1:
        raise SetupError(f"the kernel package has {len(images)} images in boot and usr/lib/modules, not 1")
    return images[0]


def find_headers(unpacked: Path) -> Path:
    """Return the header tree of an unpacked package; SetupError if there is not exactly one."""
    trees = [path for path in unpacked.glob("usr/src/linux-headers-*") if (path / "Module.symvers").is_file()]
    if len(trees) != 1:
        raise SetupError(f"the headers package has {len(trees)} header trees in usr/src, not 1")
    return trees[0]


def find_changelog(unpacked: Path) -> Path | None:
    """Return the compressed Debian changelog of the packages (Debian Policy 12.7), if they have one."""
    found = [path for path in unpacked.glob("usr/share/doc/*/changelog*.gz") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_size) if found else None


SUFFIX = ".elf"
"""Suffix of a program's file after a script replaced it (``.real`` is Debian's own, for modpost)."""
ELF_MAGIC = b"\x7fELF"
LOADERS = ("lib64/ld-linux-*.so.*", "usr/lib64/ld-linux-*.so.*", "lib/ld-linux-*.so.*", "usr/lib/ld-linux-*.so.*")


def wrap_tools(tools: Path, root: Path) -> int:
    """Make every program below `tools` run with the C library and loader of the private `root`; return their number.

    A program of a newer Debian release needs that release's libc.  Each is replaced by a script that starts it through
    the loader of `root`: no file is patched, and both directories may be moved together (a path with spaces is refused
    earlier).
    """
    loader = next((path for pattern in LOADERS for path in sorted(root.glob(pattern)) if path.exists()), None)
    if loader is None:
        raise SetupError(f"the libraries in {root} have no loader (ld-linux)")
    directories = {path.parent for path in root.rglob("*.so*") if path.is_file()}
    wrapped = 0
    for path in sorted(path for path in tools.rglob("*") if path.is_file() and not path.is_symlink()):
        with path.open("rb") as file:
            head = file.read(18)
        if head[:4] != ELF_MAGIC or head[16] not in (2, 3) or not path.stat().st_mode & 0o111 or ".so" in path.name:
            continue

        def at(what: Path, base: Path = path.parent) -> str:
            return f'$(dirname "$0")/{os.path.relpath(what, base)}'

        libraries = ":".join(at(directory) for directory in sorted(directories))
        path.rename(path.with_name(path.name + SUFFIX))
        script = f'exec {at(loader)} --library-path "{libraries}" --argv0 "$0" "$0{SUFFIX}" "$@"'
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        wrapped += 1
    return wrapped


def hide_unused(headers: Path) -> None:
    """Remove `vmlinux` from the headers: it holds only BTF, for a newer pahole, and breaks a module's build."""
    (headers / "vmlinux").unlink(missing_ok=True)
