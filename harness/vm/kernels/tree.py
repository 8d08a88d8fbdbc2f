# SPDX-License-Identifier: Apache-2.0
"""Read a kernel build directory: image, configuration and the files that a module build needs, as ``make`` left them.

In-tree or made with ``O=``; a headers package with its image has the same layout.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError, SetupError
from harness.vm.kernels.files import read_image

IMAGE, CONFIG, RELEASE = "arch/arm64/boot/Image", ".config", "include/config/kernel.release"
SYMBOLS = ("Module.symvers", "vmlinux.symvers")
"""Files from which modpost reads exported symbols: ``make modules`` writes the first, ``make Image`` the second
(scripts/Makefile.modpost, scripts/Makefile.vmlinux)."""
_UNUSABLE = re.compile(r"[\s:@%]")
"""make splits words at white space and colons; ``@`` and ``%`` separate parts of a target's name."""


@dataclass(frozen=True, slots=True)
class BuildTree:
    """A complete build directory: its absolute path, and the identity of its kernel.

    ``release`` is ``uname -r``; ``image_sha256`` and ``config_sha256`` are of the files' contents; ``symbols`` is the
    file of exported symbols that exists; ``clang``: the kernel was compiled with it.
    """

    path: Path
    release: str
    image_sha256: str
    config_sha256: str
    symbols: str
    clang: bool

    @property
    def image(self) -> Path:
        """The kernel's image."""
        return self.path / IMAGE


def tree_path(path: Path, where: str) -> Path:
    """Return the absolute path of a build directory.  InputError, which begins with `where`: it cannot be one."""
    try:
        found = path.resolve(strict=True)
        is_directory = found.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path, a loop of symbolic links
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(where, None, f"cannot use it as a kernel build directory: {reason}") from error
    if not is_directory:
        raise InputError(where, None, "is not a directory; expected a kernel build directory")
    if _UNUSABLE.search(str(found)):
        raise InputError(where, None, "a kernel build directory's path must not contain white space, colon, @ or %")
    return found


def read_release(tree: Path) -> str:
    """Return the release that a directory is configured for.  SetupError: nothing was built in it."""
    try:
        release = (tree / RELEASE).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{tree}: no {RELEASE}: build a kernel there with {make_command(tree)}") from error
    if not re.fullmatch(r"\d[!-~]{0,63}", release):
        raise SetupError(f"{tree}: {RELEASE} holds {release[:40]!r}, which is not a kernel release")
    return release


def read_tree(tree: Path) -> BuildTree:
    """Return the kernel in a build directory.

    InputError: the directory does not exist.  SetupError: a part of it is missing, or parts are of different kernels.
    """
    if not tree.is_dir():
        raise InputError(str(tree), None, "no such kernel build directory")
    release = read_release(tree)
    try:
        config = (tree / CONFIG).read_bytes()
        image = read_image(tree / IMAGE)
    except OSError as error:
        raise SetupError(f"{tree}: no {CONFIG}: build a kernel there with {make_command(tree)}") from error
    except InputError as error:
        raise SetupError(f"{error.where}: {error.reason}; build it with {make_command(tree)}") from error
    if image.release not in ("", release):
        raise SetupError(
            f"{tree}: the image is Linux {image.release}, the directory is configured for {release}; "
            f"build it again with {make_command(tree)}"
        )
    symbols = next((name for name in SYMBOLS if (tree / name).is_file()), None)
    if symbols is None or not (tree / "scripts").is_dir() or not (tree / "Makefile").is_file():
        what = " or ".join(SYMBOLS) if symbols is None else "Makefile and scripts"
        raise SetupError(f"{tree}: no {what}: no module can be built; build them with {make_command(tree)}")
    clang = re.search(rb"(?m)^CONFIG_CC_IS_CLANG=y$", config) is not None
    return BuildTree(tree, release, image.sha256, hashlib.sha256(config).hexdigest(), symbols, clang)


def make_command(tree: Path) -> str:
    """Return the command that builds the needed files in a directory."""
    words = ("make", "-C", str(tree), "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "Image", "modules")
    return shlex.join(words)
