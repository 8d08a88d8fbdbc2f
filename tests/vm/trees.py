# SPDX-License-Identifier: Apache-2.0
"""Make kernel build directories from the cache: image and headers of a Debian kernel in the layout of a build."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.vm.build.kernel_entry import kernel_entry
from harness.vm.cache import Cache, default_root
from harness.vm.config import load_config
from harness.vm.kernels.files import hide_unused
from harness.vm.kernels.tree import IMAGE, RELEASE
from harness.vm.tools import quiet


def debian_tree(target: str, directory: Path, image_of: str | None = None) -> Path:
    """Make a build directory of a target's kernel; ``image_of``: with the image of another target's."""
    cache = Cache(default_root(os.environ))
    entry, other = (kernel_entry(load_config(name), cache, quiet) for name in (target, image_of or target))
    headers = entry.path / str(entry.facts["headers"])
    usr = directory / "usr"
    (usr / "src").mkdir(parents=True)
    # Links of the package point to usr/lib, its Makefile to a sibling directory.
    (usr / "lib").symlink_to(headers.parent.parent / "lib")
    for path in headers.parent.iterdir():
        if path != headers:
            (usr / "src" / path.name).symlink_to(path)
    tree = usr / "src" / headers.name
    shutil.copytree(headers, tree, symlinks=True)
    hide_unused(tree)
    (tree / IMAGE).parent.mkdir(parents=True, exist_ok=True)
    (tree / IMAGE).symlink_to(other.path / str(other.facts.get("image", "Image")))
    (tree / RELEASE).write_text(f"{other.facts['release']}\n")
    return tree
