# SPDX-License-Identifier: Apache-2.0
"""Make a fake kernel build directory: the files that are read, without a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.vm.kernels.files import IMAGE_MAGIC, IMAGE_MAGIC_OFFSET
from harness.vm.kernels.needed_config import NEEDED
from harness.vm.kernels.tree import CONFIG, IMAGE, RELEASE, SYMBOLS

FAKE_RELEASE = "6.12.117-fake"
NAMES = tuple(row.name for row in NEEDED)
"""Symbols that a configuration must have."""


def fake_tree(directory: Path, release: str = FAKE_RELEASE, config: Iterable[str] = NAMES) -> Path:
    """Make the files of a fake build directory of ``release``; ``config`` are symbols with value ``y``."""
    header = b"MZ".ljust(IMAGE_MAGIC_OFFSET, b"\0") + IMAGE_MAGIC + bytes(100)
    image = header + f"Linux version {release} (someone@somewhere) #1 SMP\n".encode()
    texts = {
        RELEASE: f"{release}\n",
        CONFIG: "".join(f"CONFIG_{name}=y\n" for name in config),
        SYMBOLS[0]: "",
        "Makefile": "",
        "scripts/module.lds": "",
    }
    for name, data in ((IMAGE, image), *((name, text.encode()) for name, text in texts.items())):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory
